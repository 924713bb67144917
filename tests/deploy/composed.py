"""The stack of compose.yaml under a name of its own, as a person starts it with `make up`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from deploy import stand_ins
from deploy.engine import Engine

REPOSITORY = Path(__file__).resolve().parents[2]
SERVICES = ("gateway", "stock-data", "email", "batch-processor")
T = TypeVar("T")


@dataclass(frozen=True)
class Composed:
    """One running stack; `services` are those that could be started here, `up_s` how long that took."""

    engine: Engine
    project: str
    tag: str
    port: int
    secrets: Path
    services: tuple[str, ...]
    up_s: float = 0

    @property
    def api(self) -> httpx.Client:
        """A client of the published gateway with the administrator's key."""
        headers = {"Authorization": f"Bearer {(self.secrets / 'api-key').read_text()}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=20)

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """What `docker compose <arguments>` prints."""
        return self.engine.docker("compose", "--project-name", self.project, *arguments, timeout_s=timeout_s)

    def up(self, *options: str) -> None:
        """Start what does not run, and wait until all is healthy; a failure shows the logs."""
        try:
            self.compose("up", *options, "--wait", "--wait-timeout", "180", *self.services)
        except subprocess.CalledProcessError:
            sys.stderr.write(self.compose("logs", "--tail", "30"))
            raise

    def container(self, service: str) -> str:
        """The id of the container of `service`."""
        return self.compose("ps", "--all", "--quiet", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of the container of `service`."""
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", self.container(service)))
        return found[0]

    def python(self, service: str, program: str) -> str:
        """What a Python `program` prints inside the container of one of our services."""
        return self.compose("exec", "-T", service, "/opt/tickwire/bin/python", "-c", program)

    def mailbox(self, path: str) -> Any:
        """What the mailbox answers, asked from inside: it is not published."""
        url = f"http://mailpit:8025{path}"
        program = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=10).read().decode())"
        return json.loads(self.python("stock-data", program))


@contextmanager
def start(engine: Engine, folder: Path) -> Iterator[Composed]:
    """The stack for the block; afterwards its containers, networks, volumes and images are gone."""
    mark = uuid.uuid4().hex[:8]
    port = _free_port()
    secrets = folder / "secrets"
    subprocess.run([REPOSITORY / "deploy/containers/make-secrets", secrets], check=True)
    variables = {
        "GATEWAY_PORT": str(port),
        "TICKWIRE_SECRETS": str(secrets),
        "TICKWIRE_TAG": f"test-{mark}",
        "COMPOSE_FILE": str(REPOSITORY / "compose.yaml"),
        "COMPOSE_PROFILES": "observability",
    }
    own = replace(engine, environment={**engine.environment, **variables})
    stack = Composed(own, f"tickwire-test-{mark}", f"test-{mark}", port, secrets, _startable(own))
    began = time.monotonic()
    try:
        stack.up("--build")
        yield replace(stack, up_s=time.monotonic() - began)
    finally:
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        made = engine.docker("images", "--quiet", "--filter", f"reference=tickwire/*:{stack.tag}").split()
        if made:
            engine.docker("rmi", "--force", *made)


def until(ask: Callable[[], T | None], *, timeout_s: float = 60) -> T:
    """What `ask` gives as soon as that is something. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (found := ask()) is not None:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"nothing after {timeout_s} s")


def _startable(engine: Engine) -> tuple[str, ...]:
    services = engine.docker("compose", "config", "--services").split()
    left_out: Sequence[str] = stand_ins.WITHOUT if engine.stand_ins else ()
    for name in sorted(set(left_out) & set(services)):
        print(f"left out, because there is no stand-in for its image: {name}")
    return tuple(sorted(set(services) - set(left_out)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The stack of compose.yaml under a name of its own, as a person starts it with `make up`."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from support.deployment import stand_ins
from support.deployment.engine import Engine

REPOSITORY = Path(__file__).resolve().parents[3]
SERVICES = ("gateway", "stock-data", "email", "batch-processor")
# They do their work at the start, and end.
JOBS = {"secrets"}
T = TypeVar("T")


@dataclass(frozen=True)
class Composed:
    """One running stack; `services` are those that could be started here.

    `up_s` is how long `make up` took, and `card` what it printed.
    """

    engine: Engine
    project: str
    tag: str
    port: int
    tls_port: int
    mailbox_port: int
    secrets: Path
    services: tuple[str, ...]
    up_s: float = 0
    card: str = ""

    @property
    def api(self) -> httpx.Client:
        """A client of the published gateway with the administrator's key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=20)

    @property
    def authority(self) -> ssl.SSLContext:
        """The proxy's own authority, as one that is trusted."""
        return ssl.create_default_context(
            cafile=str(self.secrets / "proxy/caddy/pki/authorities/local/root.crt")
        )

    @property
    def secure(self) -> httpx.Client:
        """A client like `api`, through the proxy."""
        return httpx.Client(
            base_url=f"https://localhost:{self.tls_port}",
            headers={"Authorization": f"Bearer {self.key}"},
            http2=True,
            verify=self.authority,
            timeout=20,
            trust_env=False,
        )

    @property
    def key(self) -> str:
        """The administrator's key, from the file in which people find it."""
        return (self.secrets.parent / "api-key").read_text()

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """Return the output of `docker compose <arguments>`."""
        return self.engine.docker("compose", *arguments, timeout_s=timeout_s)

    def up(self) -> str:
        """Start what does not run, wait until all is healthy, and return the card; show logs on failure."""
        try:
            return self.make("up")
        except subprocess.CalledProcessError:
            sys.stderr.write(self.compose("logs", "--tail", "30"))
            raise

    @contextmanager
    def telling(self, *services: str) -> Iterator[None]:
        """Show the last lines of `services` when the block fails: afterwards their containers are gone."""
        try:
            yield
        except BaseException:
            sys.stderr.write(self.compose("logs", "--timestamps", "--tail", "200", *services))
            raise

    def changed(self, **variables: str) -> Composed:
        """Return the same stack as commands with more variables see it."""
        return replace(
            self, engine=replace(self.engine, environment={**self.engine.environment, **variables})
        )

    def make(self, target: str, *variables: str) -> str:
        """Return the output of `make <target> <variables>`."""
        command = ["make", "--no-print-directory", target, *variables]
        environment = self.engine.environment
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        if done.returncode:
            sys.stderr.write(f"make {target}:\n{done.stdout}{done.stderr}\n")
        done.check_returncode()
        return done.stdout

    def container(self, service: str) -> str:
        """Return the id of the container of `service`."""
        return str(self.inspect(service)["Id"])

    def inspect(self, service: str) -> dict[str, Any]:
        """Return the engine's record of the container of `service`.

        It has the name that compose gives it: to ask compose for its id would read all files again.
        """
        name = f"{self.project}-{service}-1"
        found: list[dict[str, Any]] = json.loads(self.engine.docker("container", "inspect", name))
        return found[0]

    def address(self, service: str) -> str:
        """Return the address of the container of `service`, which only this machine can reach."""
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        return str(networks[f"{self.project}_inside"]["IPAddress"])

    def is_healthy(self, service: str) -> bool:
        """Return whether the container of `service` runs and its health check succeeds."""
        state = self.inspect(service)["State"]
        return bool(state["Running"]) and state["Health"]["Status"] == "healthy"

    def python(self, service: str, program: str) -> str:
        """Return the output of a Python `program` inside the container of one of our services."""
        return self.compose("exec", "-T", service, "/opt/tickwire/bin/python", "-c", program)

    def mailbox(self, path: str) -> Any:
        """Return the answer of the published mailbox."""
        url = f"http://127.0.0.1:{self.mailbox_port}{path}"
        return httpx.get(url, timeout=10, trust_env=False).json()


@contextmanager
def start(engine: Engine, folder: Path) -> Iterator[Composed]:
    """Yield the stack for the block; afterwards its containers, networks, volumes and images are gone."""
    mark = uuid.uuid4().hex[:8]
    port, tls_port, mailbox_port = _free_port(), _free_port(), _free_port()
    secrets = folder / "secrets"
    project = f"tickwire-test-{mark}"
    variables = {
        "COMPOSE_PROJECT_NAME": project,
        "GATEWAY_PORT": str(port),
        "TLS_PORT": str(tls_port),
        "MAILPIT_PORT": str(mailbox_port),
        "TICKWIRE_SECRETS": str(secrets),
        "TICKWIRE_TAG": f"test-{mark}",
        "COMPOSE_FILE": _files(engine, folder),
        "COMPOSE_PROFILES": "observability,tls,tracing",
        # Only what a caller wants traced is: spans of everything else would be most of the load.
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4318",
        "OTEL_TRACES_SAMPLER_ARG": "0",
        # What a killed process had in hand is taken over after this; by default, after a minute.
        "EMAIL_LEASE_S": "15",
    }
    own = replace(engine, environment={**engine.environment, **variables})
    services = tuple(sorted({*own.docker("compose", "config", "--services").split()} - JOBS))
    stack = Composed(own, project, f"test-{mark}", port, tls_port, mailbox_port, secrets, services)
    began = time.monotonic()
    try:
        card = stack.up()
        yield replace(stack, up_s=time.monotonic() - began, card=card)
    finally:
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        made = engine.docker(
            "images", "--quiet", "--filter", f"reference=localhost/tickwire/*:{stack.tag}"
        ).split()
        if made:
            engine.docker("rmi", "--force", *made)


def until(ask: Callable[[], T | None], *, timeout_s: float = 60) -> T:
    """Return the result of `ask` as soon as it is not None. Raise `TimeoutError` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (found := ask()) is not None:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"nothing after {timeout_s} s")


def _files(engine: Engine, folder: Path) -> str:
    """Return the compose files; with stand-ins a second one leaves out what has no stand-in."""
    own = str(REPOSITORY / "compose.yaml")
    if not engine.stand_ins:
        return own
    lines = ["services:"]
    for name in stand_ins.WITHOUT:
        print(f"left out, because there is no stand-in for its image: {name}")
        lines.append(f"  {name}: {{profiles: !override [without-a-stand-in]}}")
    second = folder / "compose.stand-ins.yaml"
    second.write_text("\n".join(lines) + "\n")
    return f"{own}:{second}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The native run (`make run`), as the commands use it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from native import leftovers, probes, runner, stack
from native.directories import RunDirectory, write_private
from native.errors import NotReadyError
from native.ports import HOST
from native.postgres import DATABASES, METRICS, SUPERUSER
from native.rabbitmq import ADMIN
from native.services import SERVICES
from native.settings import NativeSettings
from native.stack import Blueprint
from upkeep.commands import CommandLine, request
from upkeep.errors import UpkeepError
from upkeep.installation import VARIABLES

_RESTART_S = 180.0


@dataclass(frozen=True)
class NativeStack:
    """The stack whose files are below a run directory."""

    run: RunDirectory
    variables: NativeSettings

    kind = "native run"

    @cached_property
    def blueprint(self) -> Blueprint:
        """The blueprint of the stack as it runs, or as it would run."""
        ports = runner.ports(self.run) or self.variables.ports
        return Blueprint(self.run, ports, variables=self.variables.variables)

    @property
    def gateway_url(self) -> str:
        """The public address of the gateway."""
        return f"http://{HOST}:{self.blueprint.ports.gateway}"

    @property
    def mailbox_url(self) -> str:
        """The public address of the mailbox."""
        return self.blueprint.mailbox.url

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of PostgreSQL that have a password."""
        return (*DATABASES, SUPERUSER, METRICS)

    @property
    def is_running(self) -> bool:
        """Whether its services run."""
        return runner.owner(self.run) is not None

    @property
    def backups(self) -> Path:
        """The folder that backups go to unless another one is named."""
        return self.run.root.parent / "backups"

    @property
    def broker_url(self) -> str:
        """The broker's address, with the login of the administrator."""
        return self.blueprint.rabbitmq.url_of(ADMIN)

    @property
    def key_file(self) -> Path:
        """The file of the administrator's API key."""
        return self.run.api_key

    def secret(self, name: str) -> str:
        """Return a secret, or an empty text when there is none."""
        file = self._file(name)
        return file.read_text().strip() if file.exists() else ""

    def put(self, secrets: Mapping[str, str]) -> None:
        """Store secrets in this order, and rewrite the addresses that contain them."""
        for name, text in secrets.items():
            write_private(self._file(name), text)
        self.blueprint.backing.write_addresses()

    def set_by_hand(self, name: str) -> str | None:
        """Return the variable that sets a secret in place of its file, or None."""
        if name not in VARIABLES:
            return None
        # A file of the user's own is not ours to write.
        ways = (VARIABLES[name], f"{VARIABLES[name]}_FILE")
        return next((variable for variable in ways if self.variables.variables.get(variable)), None)

    def changed_at(self, name: str) -> float:
        """Return when a secret was last written, in seconds since 1970; 0 if it never was."""
        file = self._file(name)
        return file.stat().st_mtime if file.exists() else 0.0

    def ask(self, path: str, *, key: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and JSON of the gateway's answer to a GET, or to a POST with `body`."""
        return request(f"{self.gateway_url}{path}", key=key, body=body)

    def restart(self, service: str) -> None:
        """Restart a service gracefully (the runner starts it again), and return when it is ready."""
        before = runner.state(self.run).get(service, {}).get("pid", "")
        if not before:
            raise UpkeepError(f"{service} is not ready: see `make status`, then try again.")
        os.kill(int(before), signal.SIGTERM)
        deadline = time.monotonic() + _RESTART_S
        while time.monotonic() < deadline:
            time.sleep(0.1)
            found = runner.state(self.run).get(service, {})
            if found.get("pid") not in ("", before) and found["state"] == "ready":
                return
        raise UpkeepError(f"{service} is not ready after {_RESTART_S:.0f} s: less +G {self.run.log(service)}")

    def postgres(self, program: str, *arguments: str, database: str) -> CommandLine:
        """Return a command that runs a PostgreSQL program as the superuser."""
        environment = self._login_environment(SUPERUSER, self.secret(f"postgres-{SUPERUSER}"))
        binary = str(self.blueprint.postgres.cluster.binaries / program)
        return CommandLine((binary, f"--dbname={database}", *arguments), environment)

    def login(self, role: str, password: str) -> CommandLine:
        """Return a command that fails unless `role` can log in with `password`."""
        binary = str(self.blueprint.postgres.cluster.binaries / "psql")
        database = "postgres" if role == METRICS else role
        words = (binary, "--no-psqlrc", f"--dbname={database}", "--command=SELECT 1")
        return CommandLine(words, self._login_environment(role, password))

    def rabbitmqctl(self, *arguments: str) -> CommandLine:
        """Return a command that calls `rabbitmqctl`."""
        program, environment = self.blueprint.rabbitmq.control_program
        return CommandLine((program, *arguments), environment)

    def gateway_program(self, *words: str) -> CommandLine:
        """Return a command that runs Python with the gateway's settings."""
        return CommandLine((sys.executable, *words), self.settings()["gateway"])

    def python(self, source: str) -> CommandLine:
        """Return a command that runs Python."""
        return CommandLine((sys.executable, "-c", source), dict(os.environ))

    @contextmanager
    def servers_only(self) -> Iterator[None]:
        """Run PostgreSQL and RabbitMQ without any service for the length of the block."""
        RunDirectory.at(self.run.root)
        blueprint = Blueprint(
            self.run, self.blueprint.ports, services=(), without=("prometheus", "mailbox", "memcached")
        )
        loop = asyncio.new_event_loop()
        with runner.ownership(self.run):
            # Servers of a runner that was killed have the data and the ports.
            loop.run_until_complete(leftovers.stop(self.run.root, patience_s=leftovers.PATIENCE_S))
            blueprint.postgres.settle()
            servers = stack.running(blueprint)
            try:
                loop.run_until_complete(servers.__aenter__())
                yield
            finally:
                loop.run_until_complete(servers.__aexit__(None, None, None))
                loop.close()

    def settings(self) -> Mapping[str, Mapping[str, str]]:
        """Return the environment variables of each service, including secrets."""
        backing, ports = self.blueprint.backing, self.blueprint.ports
        return {service.name: backing.environment(service, ports) for service in SERVICES}

    def log(self, name: str, lines: int) -> str:
        """Return the last lines that a process logged."""
        file = self.run.log(name)
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""

    def readiness(self, service: str) -> str:
        """Return a service's answer to `/readyz`, or the reason why there is none."""
        (found,) = (one for one in SERVICES if one.name == service)
        try:
            status, body = asyncio.run(probes.http_get(found.ops_port(self.blueprint.ports), "/readyz"))
        except (OSError, NotReadyError) as error:
            return str(error)
        return f"{status} {body}"

    def _file(self, name: str) -> Path:
        places = {
            "api-key": self.key_file,
            "pepper": self.run.secrets / "gateway-pepper",
            "previous-pepper": self.run.secrets / "gateway-previous-pepper",
            "next-pepper": self.run.secrets / "gateway-next-pepper",
        }
        return places.get(name, self.run.secrets / name)

    def _login_environment(self, role: str, password: str) -> dict[str, str]:
        port = str(self.blueprint.ports.postgres)
        login = {"PGHOST": HOST, "PGPORT": port, "PGUSER": role, "PGPASSWORD": password}
        return self.run.environment() | login | {"PGCONNECT_TIMEOUT": "10"}

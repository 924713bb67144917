"""The stack in containers (`make up`), as the commands use it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from containers import make_secrets
from native import settings
from upkeep.commands import CommandLine, request
from upkeep.errors import UpkeepError
from upkeep.installation import SERVICES, VARIABLES
from upkeep.secret_files import SecretFiles

_PYTHON = "/opt/tickwire/bin/python"
_READY_S = "180"


@dataclass(frozen=True)
class ComposeStack:
    """The stack of compose.yaml in `repository`; its containers mount parts of the folder `secrets`."""

    repository: Path
    secrets: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    kind = "containers"
    # The broker's address inside the network of the containers.
    broker_host = "rabbitmq:5672"

    @property
    def gateway_url(self) -> str:
        """The published address of the gateway."""
        return self._published("gateway", 8080)

    @property
    def mailbox_url(self) -> str:
        """The published address of the mailbox."""
        return self._published("mailpit", 8025)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of PostgreSQL that have a password."""
        return (*make_secrets.ROLES.values(), "postgres", "metrics")

    @property
    def is_running(self) -> bool:
        """Whether a gateway runs."""
        found = self.compose("ps", "--quiet", "--status=running", "gateway").attempt()
        return found.returncode == 0 and bool(found.stdout.strip())

    @property
    def backups(self) -> Path:
        """The folder that backups go to unless another one is named."""
        return self.repository / "backups"

    @property
    def broker_url(self) -> str:
        """The broker's internal address, with the login of the administrator."""
        return f"amqp://{make_secrets.ADMIN}:{self.secret('rabbitmq-admin')}@{self.broker_host}/{make_secrets.VHOST}"

    def compose(self, *arguments: str) -> CommandLine:
        """Return a command that calls `docker compose`."""
        words = ("docker", "compose", "--project-directory", str(self.repository), *arguments)
        return CommandLine(words, self.environment)

    @property
    def key_file(self) -> Path:
        """The file of the administrator's API key."""
        return self.secrets.parent / "api-key"

    def secret(self, name: str) -> str:
        """Return a secret, or an empty text when there is none."""
        return self._files.read(name)

    def put(self, secrets: Mapping[str, str]) -> None:
        """Store secrets in this order, and rewrite the files of the containers that use them."""
        self._files.write(secrets)

    def set_by_hand(self, name: str) -> str | None:
        """Return the variable that sets a secret in place of its file, or None."""
        variable = VARIABLES.get(name, "")
        # As the job that makes the files sees it: from the environment, or from `.env`.
        job = json.loads(self.compose("config", "--format", "json", "secrets").run())["services"]["secrets"]
        return variable if job["environment"].get(variable) else None

    def changed_at(self, name: str) -> float:
        """Return when a secret was last written, in seconds since 1970; 0 if it never was."""
        return self._files.changed_at(name)

    def ask(self, path: str, *, key: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and JSON of the gateway's answer to a GET, or to a POST with `body`."""
        return request(f"{self.gateway_url}{path}", key=key, body=body)

    def restart(self, service: str) -> None:
        """Restart the containers of a service gracefully, and return when they are ready again."""
        names = (service, "gateway-2") if service == "gateway" else (service,)
        # Of a profile that is off there is no container, and `up` would make one. Gateways restart one after
        # the other: behind the proxy, one answers while the other is away.
        for one in filter(self._has, names):
            self.compose("restart", one).run()
            self.compose("up", "--no-deps", "--no-recreate", "--wait", "--wait-timeout", _READY_S, one).run()

    def postgres(self, program: str, *arguments: str, database: str) -> CommandLine:
        """Return a command that runs a PostgreSQL program inside its container, as the superuser."""
        login = ("--username=postgres", f"--dbname={database}")
        return self.compose("exec", "-T", "postgres", program, *login, *arguments)

    def login(self, role: str, password: str) -> CommandLine:
        """Return a command that fails unless `role` can log in with `password`."""
        database = "postgres" if role == "metrics" else role
        words = ("psql", "--no-psqlrc", "--host=127.0.0.1", f"--username={role}", f"--dbname={database}")
        exec_ = ("exec", "-T", "--env", "PGPASSWORD", "postgres", *words, "--command=SELECT 1")
        return CommandLine(self.compose(*exec_).words, {**self.environment, "PGPASSWORD": password})

    def rabbitmqctl(self, *arguments: str) -> CommandLine:
        """Return a command that calls `rabbitmqctl` inside the broker's container."""
        return self.compose("exec", "-T", "rabbitmq", "rabbitmqctl", *arguments)

    def gateway_program(self, *words: str) -> CommandLine:
        """Return a command that runs Python with the gateway's settings, inside its container."""
        return self.compose("exec", "-T", "gateway", _PYTHON, *words)

    def python(self, source: str) -> CommandLine:
        """Return a command that runs Python in a container of the gateway's image on the internal network."""
        entry = ("--entrypoint", _PYTHON)
        return self.compose("run", "--rm", "-T", "--no-deps", *entry, "gateway", "-c", source)

    @contextmanager
    def servers_only(self) -> Iterator[None]:
        """Stop the services and keep or start the servers during the block; start everything after it."""
        services = [name for name in (*SERVICES, "gateway-2") if self._has(name)]
        self.compose("up", "--wait", "postgres", "rabbitmq").run()
        if services:
            self.compose("stop", *services).run()
        yield
        # Those that were stopped are as they were started, also by variables of that command.
        kept = ("--no-recreate",) if services else ()
        self.compose("up", "--wait", *kept, *(services or SERVICES)).run(timeout_s=300)

    def settings(self) -> Mapping[str, Mapping[str, str]]:
        """Return the environment variables of each service; secrets are in files."""
        found = json.loads(self.compose("config", "--format", "json").run())["services"]
        return {
            name: {key: str(value) for key, value in found[name]["environment"].items() if value is not None}
            for name in SERVICES
        }

    def _published(self, service: str, port: int) -> str:
        place = self.compose("port", service, str(port)).run().strip()
        return f"http://{place.replace('0.0.0.0', '127.0.0.1')}"  # noqa: S104

    def _has(self, name: str) -> bool:
        return bool(self.compose("ps", "--all", "--quiet", name).attempt().stdout.strip())

    @property
    def _files(self) -> SecretFiles:
        return SecretFiles(self.secrets, self.key_file)


def has_containers(repository: Path) -> bool:
    """Return whether compose has containers of this repository, running or not."""
    words = ("docker", "compose", "--project-directory", str(repository), "ps", "--all", "--quiet")
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def at(repository: Path, environment: Mapping[str, str]) -> ComposeStack:
    """Return the stack of compose.yaml. Raise `UpkeepError` where its secrets cannot be read."""
    # As compose reads it: from the environment, else from `.env`, which may both leave it empty.
    variables = settings.given(environment, repository / ".env")
    secrets = repository / (variables.get("TICKWIRE_SECRETS") or ".run/compose-secrets")
    if secrets.exists() and not os.access(secrets, os.R_OK | os.W_OK | os.X_OK):
        raise UpkeepError(f"{secrets} cannot be read: run this as the user who owns it.")
    return ComposeStack(repository, secrets, environment)

"""What an installation is to the verbs, and which one is meant."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from upkeep.commands import Command, Session

SERVICES = ("gateway", "stock-data", "email", "batch-processor")
# The database and role of each service; both carry the same name.
DATABASES = {
    "gateway": "gateway",
    "stock-data": "stock_data",
    "email": "emailer",
    "batch-processor": "batch_processor",
}


class Installation(Protocol):
    """An installation on this machine: its servers' programs, its secrets, its processes.

    Secrets go by these names in every way of running: `api-key`, `pepper`, `previous-pepper`,
    `email-secrets-key`, `email-previous-secrets-key`, `smtp-password`, `postgres-<role>`, `rabbitmq-<user>`.
    """

    @property
    def kind(self) -> str:
        """Return how it runs, in words."""

    @property
    def gateway_url(self) -> str:
        """The public address of the gateway."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of PostgreSQL that have a password."""

    @property
    def is_running(self) -> bool:
        """Return whether its services run."""

    def secret(self, name: str) -> str:
        """Return a secret; an empty text when there is none."""

    def put(self, name: str, text: str) -> None:
        """Keep a secret, and what is made of it: the next start of a process reads it."""

    def changed_at(self, name: str) -> float:
        """Return when a secret was last written, in seconds since 1970."""

    def restart(self, service: str) -> None:
        """Let a service drain and end, and return when it is ready again."""

    def postgres(self, program: str, *arguments: str, database: str) -> Command:
        """Return a program of PostgreSQL (`psql`, `pg_dump`, …), logged in as the superuser."""

    def login(self, role: str, password: str) -> Command:
        """Return a program that fails unless `role` may log in with `password`."""

    def rabbitmqctl(self, *arguments: str) -> Command:
        """Return a call of `rabbitmqctl`."""

    def python(self, source: str) -> Command:
        """Return a Python program that can reach the broker and imports what the services have."""

    @property
    def broker_url(self) -> str:
        """The broker's address for that program, as the user who may do everything."""

    def servers_only(self) -> AbstractContextManager[None]:
        """Run PostgreSQL and RabbitMQ without any service, for the length of the block."""

    def settings(self) -> Mapping[str, Mapping[str, str]]:
        """Return the variables of each service, secrets included."""

    @property
    def backups(self) -> Path:
        """The folder that backups go to unless another one is named."""


def session(installation: Installation, database: str) -> Session:
    """Return a connection as the superuser that stays open; a refused statement ends it."""
    options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--file=-")
    return Session(installation.postgres("psql", *options, database=database))


def query(installation: Installation, database: str, statements: str) -> str:
    """Return the rows of `statements`, run as the superuser; they are read from the standard input."""
    options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--file=-")
    return installation.postgres("psql", *options, database=database).run(statements).strip()

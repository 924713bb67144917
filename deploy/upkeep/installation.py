"""The interface of an installation, as the commands use it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from upkeep.commands import CommandLine, Session

SERVICES = ("gateway", "stock-data", "email", "batch-processor")
# The database and role of each service; both have the same name.
DATABASES = {
    "gateway": "gateway",
    "stock-data": "stock_data",
    "email": "emailer",
    "batch-processor": "batch_processor",
}
# Where one is set, in `.env` or in the environment, it takes the place of the secret's file at each start.
VARIABLES = {
    "alpaca-secret-key": "STOCK_DATA_ALPACA_SECRET_KEY",
    "api-key": "GATEWAY_BOOTSTRAP_KEY",
    "email-previous-secrets-key": "EMAIL_PREVIOUS_SECRETS_KEY",
    "email-secrets-key": "EMAIL_SECRETS_KEY",
    "pepper": "GATEWAY_KEY_PEPPER",
    "previous-pepper": "GATEWAY_PREVIOUS_KEY_PEPPER",
    "smtp-password": "EMAIL_SMTP_PASSWORD",
}


class Installation(Protocol):
    """An installation on this machine: the programs of its servers, its secrets and its processes.

    Secrets have these names in every way of running: `api-key`, `pepper`, `previous-pepper`, `next-pepper`
    and `next-postgres-password` (of an unfinished rotation; no service reads them), `email-secrets-key`,
    `email-previous-secrets-key`, `smtp-password`, `alpaca-secret-key`, `postgres-<role>`, `rabbitmq-<user>`.
    """

    @property
    def kind(self) -> str:
        """The way in which it runs, in words."""

    @property
    def gateway_url(self) -> str:
        """The public address of the gateway."""

    @property
    def mailbox_url(self) -> str:
        """The public address of the mailbox."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of PostgreSQL that have a password."""

    @property
    def is_running(self) -> bool:
        """Whether its services run."""

    @property
    def key_file(self) -> Path:
        """The file of the administrator's API key."""

    def secret(self, name: str) -> str:
        """Return a secret, or an empty text when there is none."""

    def put(self, secrets: Mapping[str, str]) -> None:
        """Store secrets in this order, and the files made of them, which processes read when they start."""

    def set_by_hand(self, name: str) -> str | None:
        """Return the variable that sets a secret in place of its file, or None."""

    def changed_at(self, name: str) -> float:
        """Return when a secret was last written, in seconds since 1970; 0 if it never was."""

    def ask(self, path: str, *, key: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and JSON of the gateway's answer to a GET, or to a POST with `body`."""

    def restart(self, service: str) -> None:
        """Restart a service gracefully, and return when it is ready again."""

    def postgres(self, program: str, *arguments: str, database: str) -> CommandLine:
        """Return a command that runs a PostgreSQL program (`psql`, `pg_dump`, …) as the superuser."""

    def login(self, role: str, password: str) -> CommandLine:
        """Return a command that fails unless `role` can log in with `password`."""

    def rabbitmqctl(self, *arguments: str) -> CommandLine:
        """Return a command that calls `rabbitmqctl`."""

    def gateway_program(self, *words: str) -> CommandLine:
        """Return a command that runs Python with the gateway's settings."""

    def python(self, source: str) -> CommandLine:
        """Return a command that runs Python where the broker and the services' packages are available."""

    @property
    def broker_url(self) -> str:
        """The broker's address for that command, with the login of the administrator."""

    def servers_only(self) -> AbstractContextManager[None]:
        """Run PostgreSQL and RabbitMQ without any service for the length of the block."""

    def settings(self) -> Mapping[str, Mapping[str, str]]:
        """Return the environment variables of each service, including secrets."""

    @property
    def backups(self) -> Path:
        """The folder that backups go to unless another one is named."""


def session(installation: Installation, database: str) -> Session:
    """Return a connection as the superuser that stays open; a rejected statement ends it."""
    options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--file=-")
    return Session(installation.postgres("psql", *options, database=database))


def query(installation: Installation, database: str, statements: str) -> str:
    """Run `statements` as the superuser, by the standard input, and return their rows."""
    options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--file=-")
    return installation.postgres("psql", *options, database=database).run(statements).strip()

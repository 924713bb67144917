"""The four services as programs: their commands, their environment and their readiness."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from containers import make_secrets
from native import probes
from native.directories import MARKER, kept, write_private
from native.memcached import Memcached
from native.ports import HOST, Ports
from native.postgres import PostgresServer
from native.process import Program
from native.rabbitmq import RabbitMQ

_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ServiceProgram:
    """One service: its name, its import name, and its database and role, which share one name."""

    name: str
    package: str

    @property
    def prefix(self) -> str:
        """The prefix of its environment variables."""
        return self.name.replace("-", "_").upper()

    def ops_port(self, ports: Ports) -> int:
        """Return the port of `/livez`, `/readyz` and `/metrics`."""
        name = "gateway_ops" if self.name == "gateway" else self.name.replace("-", "_")
        return ports.numbered()[name]


GATEWAY = ServiceProgram("gateway", "gateway")
SERVICES = (
    GATEWAY,
    ServiceProgram("stock-data", "stock_data"),
    ServiceProgram("email", "emailer"),
    ServiceProgram("batch-processor", "batch_processor"),
)
NAMES = tuple(service.name for service in SERVICES)


@dataclass(frozen=True, kw_only=True)
class Backing:
    """The servers that the services of one stack use, and the variables that the user set."""

    rabbitmq: RabbitMQ
    postgres: PostgresServer
    memcached: Memcached
    variables: Mapping[str, str] = field(default_factory=dict)

    def program(self, service: ServiceProgram, ports: Ports | None = None) -> Program:
        """Return the program of `service`; with other `ports` than the stack's, of another replica."""
        run, used = self.rabbitmq.run, ports or self.rabbitmq.ports
        port = service.ops_port(used)
        name = service.name if ports is None else f"{service.name}-{port}"
        return Program(
            name=name,
            command=(sys.executable, "-m", service.package),
            environment=self.environment(service, used),
            directory=_REPOSITORY,
            log=run.log(name),
            probe=probes.http(port, "/readyz"),
            stop_timeout_s=25.0,
        )

    def environment(self, service: ServiceProgram, ports: Ports) -> dict[str, str]:
        """Return the environment of `service`: defaults, then the user's variables, then fixed ones."""
        self.write_addresses()
        own = {
            "RABBITMQ_URL_FILE": str(self._address(service, "rabbitmq-url")),
            "POSTGRES_DSN_FILE": str(self._address(service, "postgres-dsn")),
            "MEMCACHED_ADDRESS": self.memcached.address,
            MARKER: str(self.rabbitmq.run.root),
        }
        # A secret that the user has set takes precedence over the generated file.
        defaults = {
            name: value
            for name, value in self._defaults(service).items()
            if name.removesuffix("_FILE") not in self.variables
        }
        if service.name == "gateway":
            own |= {"GATEWAY_PORT": str(ports.gateway), "GATEWAY_OPS_PORT": str(ports.gateway_ops)}
        else:
            own[f"{service.prefix}_PORT"] = str(service.ops_port(ports))
        return defaults | dict(self.variables) | own

    def write_addresses(self) -> None:
        """Write the addresses of the servers, which contain passwords, to files that the services read.

        They are files because a restarted service must see a password that was changed meanwhile.
        """
        for service in SERVICES:
            write_private(self._address(service, "rabbitmq-url"), self.rabbitmq.url_of(service.name))
            write_private(self._address(service, "postgres-dsn"), self.postgres.dsn(service.package))

    def _address(self, service: ServiceProgram, kind: str) -> Path:
        return self.rabbitmq.run.secrets / f"{kind}-{service.name}"

    def _defaults(self, service: ServiceProgram) -> dict[str, str]:
        defaults = {"LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}
        if service.name == "gateway":
            defaults |= self._gateway_secrets()
            # Set whether or not Prometheus runs: without it the status page reports that it is unavailable.
            defaults["GATEWAY_PROMETHEUS_URL"] = f"http://{HOST}:{self.rabbitmq.ports.prometheus}"
            defaults["GATEWAY_EMAIL_URL"] = f"http://{HOST}:{self.rabbitmq.ports.email}"
            # `make demo` has a server there, to which a webhook may send requests.
            receiver = f"{HOST}:{self.rabbitmq.ports.webhook_receiver}"
            defaults["GATEWAY_WEBHOOK_INTERNAL_TARGETS"] = receiver
        if service.name == "stock-data":
            key = self.rabbitmq.run.secrets / "alpaca-secret-key"
            kept(key, "")
            defaults["STOCK_DATA_ALPACA_SECRET_KEY_FILE"] = str(key)
        if service.name == "email":
            defaults |= {"EMAIL_SMTP_HOST": HOST, "EMAIL_SMTP_PORT": str(self.rabbitmq.ports.mailbox_smtp)}
            password = self.rabbitmq.run.secrets / "smtp-password"
            kept(password, "")
            key, previous = (
                self.rabbitmq.run.secrets / f"email-{one}secrets-key" for one in ("", "previous-")
            )
            kept(key, secrets.token_urlsafe(32))
            kept(previous, "")
            defaults |= {
                "EMAIL_BOUNCE_DOMAIN": "bounces.tickwire.example",
                "EMAIL_DOMAIN_LIMITS": "slow.tickwire.example=1/3",
                "EMAIL_SMTP_PASSWORD_FILE": str(password),
                "EMAIL_SECRETS_KEY_FILE": str(key),
                "EMAIL_PREVIOUS_SECRETS_KEY_FILE": str(previous),
            }
        return defaults

    def _gateway_secrets(self) -> dict[str, str]:
        run = self.rabbitmq.run
        pepper, previous = run.secrets / "gateway-pepper", run.secrets / "gateway-previous-pepper"
        kept(pepper, secrets.token_urlsafe(32))
        kept(previous, "")
        kept(run.api_key, make_secrets.new_api_key())
        return {
            "GATEWAY_KEY_PEPPER_FILE": str(pepper),
            "GATEWAY_PREVIOUS_KEY_PEPPER_FILE": str(previous),
            "GATEWAY_BOOTSTRAP_KEY_FILE": str(run.api_key),
        }

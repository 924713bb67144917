"""The whole stack on one machine: servers and services, started together and stopped in order."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from native import supervisor
from native.directories import RunDirectory
from native.mailbox.server import MailboxServer
from native.memcached import Memcached
from native.ports import HOST, Ports
from native.postgres import PostgresServer
from native.postgres_exporter import PostgresExporter
from native.process import Program
from native.prometheus import EVALUATE_EVERY_S, SCRAPE_EVERY_S, PrometheusServer
from native.rabbitmq import RabbitMQ
from native.services import NAMES, SERVICES, Backing, ServiceProgram
from native.supervisor import Keeper, Report, Supervisor, ignore


@dataclass(frozen=True)
class Blueprint:
    """The programs and files of a stack, before anything runs."""

    run: RunDirectory
    ports: Ports
    services: Collection[str] = NAMES
    without: Collection[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    via: Mapping[str, int] = field(default_factory=dict)
    fast: bool = False

    @property
    def rabbitmq(self) -> RabbitMQ:
        """The broker."""
        return RabbitMQ(self.run, self.ports)

    @property
    def postgres(self) -> PostgresServer:
        """The databases."""
        return PostgresServer(self.run, self.ports, self.fast)

    @property
    def memcached(self) -> Memcached:
        """The cache."""
        return Memcached(self.run, self.ports)

    @property
    def mailbox(self) -> MailboxServer:
        """The mailbox that receives the stack's mail."""
        return MailboxServer(self.run, self.ports)

    @property
    def prometheus(self) -> PrometheusServer:
        """The metrics store."""
        intervals_s = (1, 1) if self.fast else (SCRAPE_EVERY_S, EVALUATE_EVERY_S)
        return PrometheusServer(self.run, self.ports, *intervals_s)

    @property
    def postgres_exporter(self) -> PostgresExporter:
        """The exporter of PostgreSQL's metrics."""
        return PostgresExporter(self.run, self.ports)

    @property
    def backing(self) -> Backing:
        """The servers as the services see them: on the ports of `via`, if a test has put a proxy there."""
        seen = replace(self, ports=replace(self.ports, **self.via))
        return Backing(
            rabbitmq=seen.rabbitmq, postgres=seen.postgres, memcached=seen.memcached, variables=self.variables
        )

    def stages(self) -> list[list[Program]]:
        """Return the programs in the order of their start; they stop in the reverse order.

        Services stop first, while everything that they need is still up; the broker's port mapper stops last.
        """
        port_mapper, broker = self.rabbitmq.stages
        servers = [*broker, *self.postgres.stages[0], *self.memcached.stages[0]]
        watchers = self.mailbox.stages[0]
        if "prometheus" not in self.without:
            watchers += [*self.prometheus.stages[0], *self.postgres_exporter.stages[0]]
        services = [self.backing.program(service) for service in SERVICES if service.name in self.services]
        stages = [port_mapper, servers, watchers, services]
        return [[program for program in stage if program.name not in self.without] for stage in stages]


@dataclass(frozen=True)
class Stack:
    """A running stack: its addresses, and control over each of its processes."""

    blueprint: Blueprint
    supervisor: Supervisor

    @property
    def ports(self) -> Ports:
        """Every port of the stack."""
        return self.blueprint.ports

    @property
    def url(self) -> str:
        """The public address of the gateway."""
        return f"http://{HOST}:{self.ports.gateway}"

    @property
    def api_key(self) -> str:
        """The administrator's API key."""
        return self.blueprint.run.api_key.read_text().strip()

    @property
    def pids(self) -> dict[str, int]:
        """The process id of every program that runs or ran."""
        return {name: keeper.process.pid for name, keeper in self.supervisor.keepers.items()}

    @property
    def rabbitmq(self) -> RabbitMQ:
        """The broker: `url`, `control("list_queues")`."""
        return self.blueprint.rabbitmq

    @property
    def postgres(self) -> PostgresServer:
        """The databases: `url` of the superuser, `dsn("gateway")`."""
        return self.blueprint.postgres

    @property
    def memcached(self) -> Memcached:
        """The cache: `address`."""
        return self.blueprint.memcached

    @property
    def mailbox(self) -> MailboxServer:
        """The mailbox: `url`, `smtp`."""
        return self.blueprint.mailbox

    @property
    def prometheus(self) -> PrometheusServer:
        """The metrics store: `url`."""
        return self.blueprint.prometheus

    def ops_url(self, service: str) -> str:
        """Return the address at which a service serves `/livez`, `/readyz` and `/metrics`."""
        return f"http://{HOST}:{_service(service).ops_port(self.ports)}"

    def log(self, name: str) -> str:
        """Return everything that a process has logged."""
        return self.blueprint.run.log(name).read_text(errors="replace")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; if the process ends, it is restarted after a moment."""
        os.kill(self._keeper(name).process.pid, number)

    async def stop(self, name: str) -> None:
        """Stop a process gracefully and keep it stopped."""
        await self._keeper(name).stop()

    async def start(self, name: str) -> None:
        """Start a stopped process and return when it is ready."""
        await self._keeper(name).start()

    async def restart(self, name: str) -> None:
        """Stop a process gracefully, start it again, and return when it is ready."""
        await self.stop(name)
        await self.start(name)

    async def ready(self, name: str, *, timeout_s: float = 60.0) -> None:
        """Wait until a process is ready (again)."""
        await self._keeper(name).ready(timeout_s=timeout_s)

    async def add_replica(self, service: str) -> tuple[str, Ports]:
        """Run one more process of a service on ports of its own; return its name and those ports."""
        fresh = Ports.free()
        used = replace(
            self.ports,
            gateway=fresh.gateway,
            gateway_ops=fresh.gateway_ops,
            stock_data=fresh.stock_data,
            email=fresh.email,
            batch_processor=fresh.batch_processor,
        )
        program = self.blueprint.backing.program(_service(service), used)
        await self.supervisor.add(program).start()
        return program.name, used

    def _keeper(self, name: str) -> Keeper:
        return self.supervisor.keepers[name]


def _service(name: str) -> ServiceProgram:
    return next(service for service in SERVICES if service.name == name)


@asynccontextmanager
async def running(blueprint: Blueprint, *, report: Report = ignore) -> AsyncIterator[Stack]:
    """Run the stack of the blueprint for the length of the block."""
    async with supervisor.running(
        blueprint.run.root, blueprint.stages(), report=report, at_once=blueprint.fast
    ) as started:
        yield Stack(blueprint, started)


@asynccontextmanager
async def start(
    directory: Path,
    *,
    services: Collection[str] = NAMES,
    without: Collection[str] = (),
    ports: Ports | None = None,
    variables: Mapping[str, str] | None = None,
    via: Mapping[str, int] | None = None,
) -> AsyncIterator[Stack]:
    """Run a private stack in `directory` on free ports for the length of the block; leave nothing behind.

    `services` selects services, `without` omits servers (`prometheus`, `mailbox`), `variables` are
    environment variables for all services, and `via` names ports (`rabbitmq`, `postgres`, `memcached`,
    `mailbox_smtp`) that the services use in place of the servers' own, for a proxy in between.
    """
    blueprint = Blueprint(
        RunDirectory.at(directory),
        ports or Ports.free(),
        services,
        without,
        {"PATH": os.environ.get("PATH", ""), **(variables or {})},
        via or {},
        fast=True,
    )
    try:
        async with running(blueprint) as stack:
            yield stack
    finally:
        blueprint.postgres.cluster.remove()

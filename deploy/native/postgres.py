"""PostgreSQL as a private cluster: one database and one role per service, passwords only, loopback only."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import asyncpg

from native import supervisor
from native.cluster import Cluster
from native.directories import RunDirectory, write_private
from native.errors import NotReadyError, SettingError
from native.ports import HOST, Ports
from native.probes import Probe
from native.process import Program

_CONNECT_S = 3
SUPERUSER = "postgres"
METRICS = "metrics"
# The secret in which a rotation writes down the superuser's next password before the server gets it.
NEXT_OF_SUPERUSER = "next-postgres-password"
DATABASES = ("gateway", "stock_data", "emailer", "batch_processor")

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "wal_buffers": "4MB",
    "max_logical_replication_workers": "0",
    # No transaction is SERIALIZABLE: the least room for what these would lock is 2 MiB less.
    "max_pred_locks_per_transaction": "10",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_min_duration_statement": "500",
}
_FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",
}


@dataclass(frozen=True)
class PostgresServer:
    """One cluster; `fast`, for tests, trades durability at power loss for speed."""

    run: RunDirectory
    ports: Ports = field(default_factory=Ports.free)
    fast: bool = False

    @property
    def url(self) -> str:
        """The URL of the superuser, in the database `postgres`."""
        return self._url(SUPERUSER, "postgres")

    def dsn(self, database: str) -> str:
        """Return the URL of a database for the role that owns it; both have the same name."""
        return self._url(database, database)

    @cached_property
    def cluster(self) -> Cluster:
        """The files of the server."""
        return Cluster(self.run, temporary=self.fast)

    @property
    def stages(self) -> list[list[Program]]:
        """The programs to run."""
        return [[self._server()]]

    def settle(self) -> str | None:
        """Have data outside the run directory belong to it, as `Cluster.settle` does, before a start."""
        return self.cluster.settle(is_first=not self._superusers_password.exists())

    async def create_database(self, name: str) -> str:
        """Create a database and the role that owns it, unless they exist; return the URL."""
        if not name.isidentifier():
            raise SettingError(f"{name!r} is not a valid database name: use only letters, digits and _")
        connection = await asyncpg.connect(self.url)
        try:
            await self._create(connection, name)
        finally:
            await connection.close()
        return self.dsn(name)

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}:{self._password(role)}@{HOST}:{self.ports.postgres}/{database}"

    def _password(self, role: str) -> str:
        return self.run.secret(f"postgres-{role}")

    @property
    def _superusers_password(self) -> Path:
        return self.run.secrets / f"postgres-{SUPERUSER}"

    def _server(self) -> Program:
        cluster = self.cluster
        return Program(
            name="postgres",
            command=(str(cluster.binaries / "postgres"), "-D", str(cluster.data)),
            environment=self.run.environment(),
            directory=self.run.root,
            log=self.run.log("postgres"),
            probe=Probe(f"databases {', '.join(DATABASES)} on {HOST}:{self.ports.postgres}", self._provision),
            prepare=self._prepare,
            user=cluster.user,
            # "Fast shutdown": SIGTERM would wait until every client has disconnected.
            stop_signal=signal.SIGINT,
            # "Immediate shutdown": killed, it would leave a piece of shared memory to the machine.
            kill_signal=signal.SIGQUIT,
        )

    async def _prepare(self) -> None:
        settings = _SETTINGS | (_FAST if self.fast else {}) | {"port": str(self.ports.postgres)}
        password = self._password(SUPERUSER)
        await asyncio.to_thread(self.cluster.create, superuser=SUPERUSER, password=password)
        self.cluster.configure(settings)
        self.cluster.drop_stale_lock()

    async def _provision(self) -> None:
        try:
            connection = await self._connect_as_superuser()
        except asyncpg.PostgresError as error:
            raise NotReadyError(str(error)) from error
        try:
            await connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
            for name in DATABASES:
                await self._create(connection, name)
            await self._create_role(connection, METRICS)
            # Role of the exporter, which may only read statistics.
            await connection.execute(f"GRANT pg_monitor TO {METRICS}")
            await connection.execute(f"GRANT CONNECT ON DATABASE postgres TO {METRICS}")
        finally:
            await connection.close()

    async def _connect_as_superuser(self) -> asyncpg.Connection[asyncpg.Record]:
        """Connect with the password of the file; where a rotation was killed before it wrote it, write it."""
        try:
            return await asyncpg.connect(self.url, timeout=_CONNECT_S)
        except asyncpg.InvalidPasswordError:
            pending = self.run.secrets / NEXT_OF_SUPERUSER
            text = pending.read_text().strip() if pending.exists() else ""
            if not text:
                raise
            connection = await asyncpg.connect(self.url, password=text, timeout=_CONNECT_S)
            write_private(self._superusers_password, text)
            return connection

    async def _create_role(self, connection: asyncpg.Connection[asyncpg.Record], name: str) -> None:
        """Create the role if missing, and set its password; names and passwords contain no quotes."""
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
            await connection.execute(f'CREATE ROLE "{name}"')
        await connection.execute(f"ALTER ROLE \"{name}\" LOGIN PASSWORD '{self._password(name)}'")

    async def _create(self, connection: asyncpg.Connection[asyncpg.Record], name: str) -> None:
        """Create the role and its database if missing, and set the password."""
        await self._create_role(connection, name)
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            # By default all pages of the template pass through the server's memory, and stay there: 7 MiB for
            # each database.
            by_files = connection.get_server_version().major >= 15
            strategy = "STRATEGY file_copy" if by_files else ""
            await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}" {strategy}')
        await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')


@asynccontextmanager
async def start(
    directory: Path, ports: Ports | None = None, *, fast: bool = True
) -> AsyncIterator[PostgresServer]:
    """Run a private cluster with its data in `directory` for the length of the block."""
    server = PostgresServer(RunDirectory.at(directory), ports or Ports.free(), fast)
    try:
        async with supervisor.running(server.run.root, server.stages, at_once=fast):
            yield server
    finally:
        if fast:
            server.cluster.remove()

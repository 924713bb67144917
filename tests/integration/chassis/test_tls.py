"""Servers over TLS, as in production: their certificates are verified by the authority of the address."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from native import ports
from native.postgres import PostgresServer
from native.rabbitmq import VHOST, RabbitMQ
from support.bench import Bench
from support.databases import FreshDatabase
from support.waiting import until

_LISTEN = (
    "{{ok, _}} = application:ensure_all_started(ssl), "
    'rabbit_networking:start_ssl_listener({port}, [{{certfile, "{certificate}"}}, {{keyfile, "{key}"}}], 2).'
)


@dataclass(frozen=True)
class Certified:
    """Both servers with a certificate for 127.0.0.1, and the files of its authority and of another one."""

    broker_port: int
    authority: Path
    stranger: Path

    def broker(self, server: RabbitMQ, authority: Path) -> str:
        """Return the address that k8s/README.md names: `amqps://…?cafile=…`."""
        login = server.url.removeprefix("amqp://").partition("@")[0]
        return f"amqps://{login}@127.0.0.1:{self.broker_port}/{VHOST}?cafile={authority}"

    def database(self, dsn: str, authority: Path | None = None) -> str:
        """Return the address with what k8s/README.md adds to it."""
        return f"{dsn}?sslmode=verify-full&sslrootcert={authority or self.authority}"


def certificate(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    """Make a certificate; return its file and that of its key."""
    files = folder / f"{name}.crt", folder / f"{name}.key"
    words = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    made = ("-subj", f"/CN={name}", "-out", str(files[0]), "-keyout", str(files[1]))
    subprocess.run((*words, *made, *options), check=True, capture_output=True)
    return files


def hand_over(home: Path, *files: Path) -> None:
    """Copy the files to where PostgreSQL looks for its own, readable by its user alone."""
    for file in files:
        copied = Path(shutil.copy(file, home))
        copied.chmod(0o600)
        os.chown(copied, home.stat().st_uid, home.stat().st_gid)


@pytest.fixture
async def certified(
    rabbitmq_server: RabbitMQ, postgres_server: PostgresServer, tmp_path: Path
) -> AsyncIterator[Certified]:
    authority, authority_key = certificate(tmp_path, "authority")
    stranger, _ = certificate(tmp_path, "stranger")
    signed = ("-CA", str(authority), "-CAkey", str(authority_key), "-addext", "subjectAltName=IP:127.0.0.1")
    own, key = certificate(tmp_path, "server", *signed)
    port = ports.Ports.free().rabbitmq
    await rabbitmq_server.control("eval", _LISTEN.format(certificate=own, key=key, port=port))
    admin = await asyncpg.connect(postgres_server.url)
    home = Path(await admin.fetchval("SHOW data_directory"))
    hand_over(home, own, key)
    await admin.execute("ALTER SYSTEM SET ssl = on")
    await admin.execute("SELECT pg_reload_conf()")
    yield Certified(port, authority, stranger)
    await admin.execute("ALTER SYSTEM RESET ssl")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.close()
    await rabbitmq_server.control("eval", "rabbit_networking:stop_ranch_listener_of_protocol('amqp/ssl').")


async def test_a_service_works_with_servers_that_it_reaches_over_tls(
    certified: Certified, rabbitmq_server: RabbitMQ, broker_url: str, fresh_database: FreshDatabase
) -> None:
    database = await fresh_database("support.sample_service")
    trusted = certified.broker(rabbitmq_server, certified.authority)
    async with AsyncExitStack() as stack:
        bench = Bench(trusted, fresh_database, stack)
        service = await bench.run(await bench.build("email", dsn=certified.database(database)))
        async with service.postgres.connection() as connection:
            assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    # With a certificate of another authority it takes neither server.
    doubtful = certified.broker(rabbitmq_server, certified.stranger)
    await check_refused(doubtful, certified.database(database), fresh_database)
    await check_refused(trusted, certified.database(database, certified.stranger), fresh_database)


async def check_refused(broker: str, dsn: str, fresh_database: FreshDatabase) -> None:
    service = await Bench(broker, fresh_database, AsyncExitStack()).build("email", dsn=dsn)
    async with service:
        await until(
            lambda: "certificate verify failed" in str(service.health.reasons()),
            what=lambda: str(service.health.reasons()),
        )

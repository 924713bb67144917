"""Existing servers accept what `make-secrets` writes for them, as k8s/README.md says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import aiormq
import asyncpg
import pytest

from containers import make_secrets
from native import postgres, rabbitmq
from native.errors import NativeError

PROGRAM = Path(make_secrets.__file__)


def make(folder: Path, *words: str) -> None:
    """Call the program as a person does."""
    subprocess.run([sys.executable, str(PROGRAM), str(folder), *words], check=True, env=dict(os.environ))


def address(folder: Path, service: str, kind: str) -> str:
    return (folder / service / kind).read_text()


@pytest.mark.timeout(240)
async def test_an_empty_postgresql_gets_a_separate_database_for_each_service(tmp_path: Path) -> None:
    async with postgres.start(tmp_path / "server") as server:
        admin = await asyncpg.connect(server.url)
        for name in postgres.DATABASES:
            await admin.execute(f'DROP DATABASE "{name}"')
            await admin.execute(f'DROP ROLE "{name}"')
        await admin.close()
        folder = tmp_path / "secrets"
        make(folder, "--postgres", f"127.0.0.1:{server.ports.postgres}")
        psql = str(server.cluster.binaries / "psql")
        script = str(folder / "postgres/roles.sql")
        command = (psql, "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--dbname={server.url}", "-f", script)
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        for service, role in make_secrets.ROLES.items():
            dsn = address(folder, service, "postgres-dsn")
            own = await asyncpg.connect(dsn)
            await own.execute("CREATE TABLE kept (n int)")
            await own.close()
            other = next(name for name in postgres.DATABASES if name != role)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(dsn.removesuffix(role) + other)


@pytest.mark.timeout(240)
async def test_a_rabbitmq_gets_users_and_queues(tmp_path: Path) -> None:
    async with rabbitmq.start(tmp_path / "server") as server:
        folder = tmp_path / "secrets"
        make(folder, "--rabbitmq", f"127.0.0.1:{server.ports.rabbitmq}")
        await server.control("import_definitions", str(folder / "rabbitmq/rabbitmq-definitions.json"))
        for service in make_secrets.ROLES:
            connection = await aiormq.connect(address(folder, service, "rabbitmq-url"))
            channel = await connection.channel()
            assert (await channel.queue_declare(f"{service}.parked", passive=True)).message_count == 0
            await connection.close()
        # The password that the server knew before is none any more.
        before = urlsplit(server.url_of("email")).password or ""
        with pytest.raises(NativeError, match="authenticate_user"):
            await server.control("authenticate_user", "email", before)


def test_with_tls_certificates_are_verified(tmp_path: Path) -> None:
    make(tmp_path, "--postgres", "db.example.com:5432", "--rabbitmq", "mq.example.com:5671", "--tls")
    for service in make_secrets.ROLES:
        dsn, url = (urlsplit(address(tmp_path, service, kind)) for kind in ("postgres-dsn", "rabbitmq-url"))
        assert (dsn.hostname, dsn.port, dsn.query) == ("db.example.com", 5432, "sslmode=verify-full")
        assert (url.scheme, url.hostname, url.port) == ("amqps", "mq.example.com", 5671)

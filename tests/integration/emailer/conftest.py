"""A database with the service's tables, emptied for each test, and a scripted relay beside it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.postgres import Postgres
from native.postgres import PostgresServer
from support import databases
from support.doubles import smtp as double
from support.doubles.post_office import OfficeWorkers, PostOffice
from support.mail_stack import MailStack, mail_stack


@pytest.fixture(scope="module")
async def migrated_database(postgres_server: PostgresServer) -> AsyncIterator[str]:
    server = databases.on(postgres_server.url)
    dsn = await server.create("emailer")
    yield dsn
    await server.drop(dsn)


@pytest.fixture(scope="module")
async def postgres(migrated_database: str) -> AsyncIterator[Postgres]:
    """Yield one pool for a file: what a new connection has to learn costs more than most tests do."""
    opened = Postgres(migrated_database)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
async def workers() -> AsyncIterator[OfficeWorkers]:
    """Yield the processes for the tests of a file: each takes half a second to start."""
    made = OfficeWorkers()
    yield made
    await made.close()


@pytest.fixture
async def post_office(
    migrated_database: str, postgres: Postgres, workers: OfficeWorkers
) -> AsyncIterator[PostOffice]:
    async with postgres.connection() as connection:
        await databases.empty(connection)
    async with double.running() as server:
        yield PostOffice(postgres, server, dsn=migrated_database, workers=workers)


@pytest.fixture
async def server() -> AsyncIterator[double.SmtpServer]:
    async with double.running() as running:
        yield running


@pytest.fixture
async def stack(
    broker_url: str, migrated_database: str, server: double.SmtpServer
) -> AsyncIterator[MailStack]:
    async with mail_stack(broker_url, migrated_database, server.port) as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a key and a certificate for localhost in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, found, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-keyout", str(key), "-out", str(found), "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    both.write_text(key.read_text() + found.read_text())
    return both

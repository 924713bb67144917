"""A database with the service's tables, emptied for each test, and a scripted relay beside it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from chassis.postgres import Postgres
from native.postgres import PostgresServer
from support import databases
from support.doubles import smtp as double
from support.doubles.post_office import PostOffice
from support.mail_stack import MailStack, mail_stack

# The tables of recipients, attempts, attachments and events go with that of mails, keys with that of domains.
_TABLES = (
    "domains, templates, uploads, emails, email_counts, email_count_changes, suppressions, address_failures,"
    " domain_charges, outbox, inbox"
)


@pytest.fixture(scope="module")
async def migrated_database(postgres_server: PostgresServer) -> AsyncIterator[str]:
    server = databases.on(postgres_server.url)
    dsn = await server.create("emailer")
    yield dsn
    await server.drop(dsn)


@pytest.fixture
async def post_office(migrated_database: str) -> AsyncIterator[PostOffice]:
    async with AsyncExitStack() as stack:
        postgres = Postgres(migrated_database)
        await postgres.open()
        stack.push_async_callback(postgres.close)
        async with postgres.connection() as connection:
            await connection.execute(f"TRUNCATE {_TABLES} CASCADE")
        server = await stack.enter_async_context(double.running())
        office = PostOffice(postgres, server, dsn=migrated_database)
        stack.push_async_callback(office.renderer.close)
        stack.push_async_callback(office.writer.close)
        stack.push_async_callback(office.bounce_reader.close)
        yield office


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

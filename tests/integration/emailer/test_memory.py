"""The memory of a process depends on the bytes in hand, not on how many mails there are or their size."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import psutil
import pytest

from benchmarks.programs import sink
from native.ports import free_ports
from support.doubles.post_office import PostOffice, mail
from support.waiting import until

_MIB = 1 << 20
_WINDOW_BYTES = 32 << 20


@asynccontextmanager
async def service(broker_url: str, dsn: str, smtp_port: int) -> AsyncIterator[psutil.Process]:
    environment = {
        "PATH": os.environ["PATH"],
        "RABBITMQ_URL": broker_url,
        "POSTGRES_DSN": dsn,
        "LOG_LEVEL": "WARNING",
        "EMAIL_PORT": str(free_ports(1)[0]),
        "EMAIL_SMTP_PORT": str(smtp_port),
        "EMAIL_WINDOW_BYTES": str(_WINDOW_BYTES),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "emailer", env=environment)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


_EMAILS = """
    INSERT INTO emails
    SELECT (jsonb_populate_record(emails, jsonb_build_object(
        'id', gen_random_uuid(), 'attachment_count', CASE WHEN $2 THEN 1 ELSE 0 END
    ))).*
    FROM emails, generate_series(1, $1)
    WHERE emails.id = $3
"""
_RECIPIENTS = """
    INSERT INTO recipients
        (email_id, position, kind, address, status, due_at, size_bytes, expires_at, stream, owner_id,
        domain, ready)
    SELECT id, 0, 'to', 'r@' || number % 20 || '.example', 'queued', accepted_at, $1, expires_at,
        stream, owner_id, number % 20 || '.example', true
    FROM (SELECT *, row_number() OVER () AS number FROM emails) AS numbered
    WHERE NOT EXISTS (SELECT FROM recipients WHERE email_id = numbered.id)
"""
_FIRST_ATTACHMENT = """
    INSERT INTO attachments (email_id, position, filename, content_type, content)
    SELECT id, 0, 'a.bin', 'application/octet-stream', decode(repeat('ab', $1), 'hex')
    FROM emails WHERE attachment_count > 0 LIMIT 1
"""
_OTHER_ATTACHMENTS = """
    INSERT INTO attachments (email_id, position, filename, content_type, content)
    SELECT emails.id, 0, filename, content_type, content
    FROM emails CROSS JOIN attachments
    WHERE attachment_count > 0 AND emails.id <> email_id
"""


async def queue(post_office: PostOffice, count: int, *, attached_bytes: int = 0) -> None:
    """Store `count` mails to one recipient each, at 20 domains, with an attachment each if it has bytes."""
    template = mail(text="Hello,\n\nyour order has been executed at the price that you asked for.\n" * 4)
    await post_office.accept(template)
    connection = await asyncpg.connect(post_office.dsn)
    try:
        await connection.execute("SET session_replication_role = replica")
        # No mail is due before all of them are stored.
        async with connection.transaction():
            copies = (count - 1, attached_bytes > 0, template.email_id)
            await connection.execute(_EMAILS, *copies, timeout=300)
            await connection.execute(_RECIPIENTS, attached_bytes + 800, timeout=300)
            if attached_bytes:
                # The first one is copied as it is stored: to compress each would take longer than to send it.
                await connection.execute(_FIRST_ATTACHMENT, attached_bytes)
                await connection.execute(_OTHER_ATTACHMENTS, timeout=300)
    finally:
        await connection.close()


async def most_memory(post_office: PostOffice, process: psutil.Process) -> float:
    """Return the most MiB that the process takes until everything is delivered."""
    most = 0.0

    async def is_done() -> bool:
        nonlocal most
        most = max(most, process.memory_info().rss / _MIB)
        async with post_office.postgres.connection() as connection:
            found = await connection.fetchval("SELECT count(*) FROM recipients WHERE due_at IS NOT NULL")
        return not found

    await until(is_done, timeout_s=900)
    return most


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("count", "attached_bytes", "most_mib"),
    [
        (2_000, 0, 24),
        pytest.param(100_000, 0, 24, marks=pytest.mark.long),
        (20, 5_000_000, 150),
        pytest.param(1_000, 5_000_000, 150, marks=pytest.mark.long),
        pytest.param(20, 20_000_000, 200, marks=pytest.mark.long),
    ],
)
async def test_memory_is_flat_however_many_and_however_large_mails_are(
    post_office: PostOffice, broker_url: str, count: int, attached_bytes: int, most_mib: int
) -> None:
    async with sink() as port, service(broker_url, post_office.dsn, port) as process:
        await queue(post_office, 500)
        before = await most_memory(post_office, process)
        await queue(post_office, count, attached_bytes=attached_bytes)
        after = await most_memory(post_office, process)
    print(f"{count:,} mails of {attached_bytes:,} bytes: {before:.1f} MiB before, {after:.1f} MiB at most")
    assert after - before < most_mib

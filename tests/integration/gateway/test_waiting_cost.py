"""Queries about mails that waited read a bounded part of them, however many an owner has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from chassis.postgres import Connection
from contracts.emails import EmailFilter
from gateway.emails import repository
from support.databases import FreshDatabase
from support.explained import Explained, buffers

ROWS = 20_000
EXAMINED = 100
LATER = datetime.now(UTC) + timedelta(days=1)
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"tag": "rare"},
    {"to": "nobody@example.com"},
    {"status": ["failed"]},
    {"created_after": LATER},
    {"created_before": LATER - timedelta(days=900)},
)


@pytest.fixture
async def crowded(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Connection]:
    """Store mails of one owner, all of which wait, as many of another one, and acceptances of other work."""
    monkeypatch.setattr(repository, "MOST_EXAMINED", EXAMINED)
    connection = await asyncpg.connect(await fresh_database("gateway"))
    await connection.execute(
        "INSERT INTO acceptances (id, owner_id, kind, accepted_at, status)"
        " SELECT (lpad(to_hex(n), 8, '0') || repeat('0', 24))::uuid, (n % 2)::text, 'email', now(), 'queued'"
        " FROM generate_series(1, $1::int) AS n",
        3 * ROWS,
    )
    await connection.execute(
        "INSERT INTO waiting_mails (email_id, owner_id, subject, tags, recipients)"
        " SELECT id, owner_id, repeat('s', 500), '{news}', '{ann@example.com}' FROM acceptances"
        " ORDER BY id LIMIT $1",
        2 * ROWS,
    )
    await connection.execute(
        "WITH parcel AS (INSERT INTO waiting_parcels (id, owner_id, mail_count, content, size_bytes)"
        " VALUES (gen_random_uuid(), '1', $1, '', 1) RETURNING id)"
        " INSERT INTO waiting_parcel_messages (parcel_id, position, message_id, exchange, routing_key,"
        " message_type, headers, body, messages)"
        " SELECT id, row_number() OVER (), email_id, '', '', '', '{}', '', 1"
        " FROM parcel CROSS JOIN waiting_mails WHERE waiting_mails.owner_id = '1'",
        ROWS,
    )
    for table in ("acceptances", "waiting_mails", "waiting_parcel_messages"):
        await connection.execute(f"VACUUM ANALYZE {table}")
    yield connection
    await connection.close()


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_mails_that_waited_are_listed_counted_and_forgotten_by_index_whatever_the_filter(
    crowded: Connection, plans: str
) -> None:
    await crowded.execute(f"SET plan_cache_mode = {plans}")
    explained: Any = Explained(crowded, package="gateway")
    before = UUID(int=(2 * ROWS - 1000) << 96)
    for fields in FILTERS:
        for waiting in (None, True):
            explained.read.clear()
            wanted = EmailFilter.model_validate(fields)
            page, following = await repository.list_mails(
                explained, "1", wanted, waiting=waiting, before=before, limit=50
            )
            assert bool(page) == (not fields)
            assert following is not None
            # Three each for its acceptance and for its place, and its own.
            assert max(explained.read.values()) < 8 * EXAMINED, (fields, waiting, explained.read)
    assert await repository.count_mails(explained, "1") == ({"queued": EXAMINED}, False)
    assert max(explained.read.values()) < 8 * EXAMINED, explained.read
    ids = [UUID(int=number << 96) for number in range(1, ROWS, ROWS // 60)]
    news = (ids, ["delivered"] * len(ids), [LATER] * len(ids))
    assert await buffers(crowded, "change_statuses", *news, package="gateway") < 20 * len(ids)

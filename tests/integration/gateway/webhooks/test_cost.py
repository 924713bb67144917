"""Statements of webhooks read a bounded part, however many deliveries there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from chassis.postgres import Connection
from gateway.webhooks import delivery_repository, promises
from gateway.webhooks.delivery_repository import ReplayChoice
from gateway.webhooks.events import WebhookEvent
from gateway.webhooks.inputs import DeliveriesQuery
from support.databases import FreshDatabase
from support.explained import buffers

ROWS = 30_000
EXAMINED = 100
WEBHOOK = UUID(int=1)
LATER = datetime.now(UTC) + timedelta(days=1)
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"type": ["email.expired"]},
    {"status": ["failed"]},
    {"status": ["withdrawn", "failed"], "type": ["email.expired"]},
    {"created_after": LATER},
    {"created_before": LATER - timedelta(days=900)},
)
_MAX = UUID(int=2**128 - 1)


@pytest.fixture
async def crowded(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Connection]:
    """Store very many deliveries that succeeded, every tenth of which failed, of each of two webhooks."""
    monkeypatch.setattr(delivery_repository, "MOST_EXAMINED", EXAMINED)
    connection = await asyncpg.connect(await fresh_database("gateway"))
    await connection.executemany(
        "INSERT INTO webhooks (id, owner_id, url, events, description, made_by, maker_scopes, secret,"
        " sealed_with) VALUES ($1, '1', 'https://example.com/', '{email.failed}', '', '', '{}', '', '')",
        [(WEBHOOK,), (UUID(int=2),)],
    )
    await connection.execute(
        "INSERT INTO webhook_deliveries (id, webhook_id, owner_id, type, payload, status, finished_at)"
        " SELECT (lpad(to_hex(n), 8, '0') || repeat('0', 24))::uuid,"
        " ('00000000-0000-0000-0000-00000000000' || 1 + n % 2)::uuid, '1', 'email.failed', repeat('x', 300),"
        " CASE WHEN n % 10 < 2 THEN 'failed' ELSE 'succeeded' END, now()"
        " FROM generate_series(1, $1::int) AS n",
        2 * ROWS,
    )
    await connection.execute("VACUUM ANALYZE webhook_deliveries")
    yield connection
    await connection.close()


@pytest.mark.parametrize("wanted", FILTERS)
async def test_a_page_reads_a_bounded_part_and_pages_have_all_that_match(
    crowded: Connection, wanted: dict[str, Any]
) -> None:
    query = DeliveriesQuery(limit=20, **wanted)
    rows, following = await delivery_repository.page(crowded, WEBHOOK, query)
    is_narrowed = set(wanted) - {"status"}
    most = EXAMINED if is_narrowed else 21
    read = await buffers(
        crowded, "find_matching_deliveries", WEBHOOK, ["failed", "pending", "succeeded", "withdrawn"], _MAX,
        most, query.type, query.created_after, query.created_before, 21, package="gateway",
    )  # fmt: skip
    assert read < 5 * EXAMINED
    assert len(rows) == (0 if is_narrowed else 20)
    assert following is not None


async def test_pages_with_a_filter_have_each_delivery_once(crowded: Connection) -> None:
    await crowded.execute("UPDATE webhook_deliveries SET type = 'email.expired' WHERE id::text LIKE '%77-%'")
    await crowded.execute("DELETE FROM webhook_deliveries WHERE id::text >= '00001000'")
    found: list[str] = []
    query = DeliveriesQuery(limit=20, type=["email.expired"])
    while True:
        rows, following = await delivery_repository.page(crowded, WEBHOOK, query)
        found += [str(row["id"]) for row in rows]
        if following is None:
            break
        query = query.model_copy(update={"cursor": following})
    wanted = await crowded.fetch(
        "SELECT id::text FROM webhook_deliveries WHERE webhook_id = $1 AND type = 'email.expired'"
        " ORDER BY id DESC",
        WEBHOOK,
    )
    assert found == [row["id"] for row in wanted]


async def test_a_bulk_replay_reads_a_bounded_part(crowded: Connection) -> None:
    choice = ReplayChoice(WEBHOOK, ["succeeded", "failed"], ["email.expired"], None, None)
    ids, following = await delivery_repository.find_to_replay(crowded, choice, after=None, most=EXAMINED)
    assert (ids, following is None) == ([], False)
    read = await buffers(
        crowded, "find_deliveries_to_replay", WEBHOOK, ["failed", "succeeded"], UUID(int=0), EXAMINED,
        ["email.expired"], None, None, package="gateway",
    )  # fmt: skip
    assert read < 5 * EXAMINED


async def test_a_look_for_what_is_due_reads_only_webhooks_for_which_something_waits(
    crowded: Connection,
) -> None:
    await crowded.execute("INSERT INTO users (name, email, role) VALUES ('a', 'a@example.com', 'member')")
    await crowded.execute("UPDATE webhooks SET owner_id = (SELECT max(id)::text FROM users)")
    await crowded.execute(
        "INSERT INTO webhooks (id, owner_id, url, events, description, made_by, maker_scopes, secret,"
        " sealed_with) SELECT gen_random_uuid(), owner_id, url, events, '', '', '{}', '', '' FROM webhooks,"
        " generate_series(1, 2000) WHERE id = $1",
        WEBHOOK,
    )
    await crowded.execute(
        "UPDATE webhook_deliveries SET status = 'pending', finished_at = NULL WHERE webhook_id = $1", WEBHOOK
    )
    await crowded.execute("VACUUM ANALYZE webhooks, webhook_deliveries")
    (due,) = await delivery_repository.due(crowded, within_s=10, limit=1000)
    assert due.id == WEBHOOK
    assert await buffers(crowded, "find_due_webhooks", 10.0, 1000, package="gateway") < 100
    claimed = await buffers(crowded, "claim_deliveries", [WEBHOOK], [4], 60.0, package="gateway")
    assert claimed < 200


async def test_the_webhooks_of_one_owner_do_not_hide_one_of_another(crowded: Connection) -> None:
    await crowded.execute(
        "INSERT INTO users (id, name, email, role) OVERRIDING SYSTEM VALUE VALUES"
        " (1, 'One', 'one@example.com', 'member'), (2, 'Two', 'two@example.com', 'member')"
        " ON CONFLICT DO NOTHING"
    )
    await crowded.execute(
        "INSERT INTO webhooks (id, owner_id, url, events, description, made_by, maker_scopes, secret,"
        " sealed_with) VALUES ($1, '2', 'https://example.com/', '{email.failed}', '', '', '{}', '', '')",
        UUID(int=3),
    )
    for number, ago_s in ((1, 90), (2, 60), (3, 30)):
        await crowded.execute(
            "INSERT INTO webhook_deliveries (id, webhook_id, owner_id, type, payload, next_at)"
            " VALUES ($1, $2, '', 'email.failed', '', now() - make_interval(secs => $3))",
            UUID(int=2**127 + number), UUID(int=number), ago_s,
        )  # fmt: skip
    due = await delivery_repository.due(crowded, within_s=10, limit=2)
    assert [(one.id.int, one.owner_id) for one in due] == [(1, "1"), (3, "2")]


async def test_what_waits_for_a_webhook_is_not_counted_again_with_each_event(
    crowded: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []

    def note(query: Any) -> None:
        if "AS pending" in query.query:
            counted.append(query.query)

    crowded.add_query_logger(note)
    event = WebhookEvent("1", "email.failed", datetime.now(UTC), dict)
    promising = promises.Promises(lambda: None)
    for _ in range(5):
        await promising.promise(crowded, [event])
    # Queries are logged in the next pass of the event loop.
    await asyncio.sleep(0)
    assert len(counted) == 1
    monkeypatch.setattr(promises, "COUNTED_FOR_S", 0.0)
    promising = promises.Promises(lambda: None)
    for _ in range(5):
        await promising.promise(crowded, [event])
    await asyncio.sleep(0)
    assert len(counted) == 6


@pytest.fixture
async def full(fresh_database: FreshDatabase, request: pytest.FixtureRequest) -> AsyncIterator[Connection]:
    """Store deliveries of 200 webhooks: a tenth wait for an attempt in an hour, the others have ended."""
    connection = await asyncpg.connect(await fresh_database("gateway"))
    await connection.execute("INSERT INTO users (name, email, role) VALUES ('a', 'a@example.com', 'member')")
    await connection.execute(
        "INSERT INTO webhooks (id, owner_id, url, events, description, made_by, maker_scopes, secret,"
        " sealed_with) SELECT (lpad(to_hex(n), 32, '0'))::uuid, (SELECT max(id)::text FROM users),"
        " 'https://example.com/', '{email.failed}', '', '', '{}', '', '' FROM generate_series(1, 200) AS n"
    )
    await connection.execute(
        "INSERT INTO webhook_deliveries"
        " (id, webhook_id, owner_id, type, payload, status, next_at, finished_at)"
        " SELECT (lpad(to_hex(n), 8, '0') || repeat('0', 24))::uuid,"
        " (lpad(to_hex(1 + n % 200), 32, '0'))::uuid, '1', 'email.failed', '{}',"
        " CASE WHEN n % 2000 < 200 THEN 'pending' ELSE 'succeeded' END,"
        " now() + interval '1 hour', CASE WHEN n % 2000 < 200 THEN NULL ELSE now() END"
        " FROM generate_series(1, $1::int) AS n",
        request.param,
    )
    await connection.execute("VACUUM ANALYZE webhooks, webhook_deliveries")
    yield connection
    await connection.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("full", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)], indirect=True)
async def test_what_is_repeated_reads_as_much_of_a_million_deliveries_as_of_few(full: Connection) -> None:
    async def read(name: str, *arguments: object) -> int:
        return await buffers(full, name, *arguments, package="gateway")

    statuses = ["failed", "pending", "succeeded", "withdrawn"]
    assert await read("find_due_webhooks", 10.0, 1000) < 200 * 6
    assert await read("claim_deliveries", [WEBHOOK], [4], 60.0) < 20
    assert await read("find_matching_deliveries", WEBHOOK, statuses, _MAX, 21, None, None, None, 21) < 100
    assert await read("remove_finished_deliveries", 7, 1000) < 10
    assert await read("remove_deliveries_of_deleted", 1000) < 20
    assert await read("remove_deleted_webhooks") < 20
    await full.execute("UPDATE webhook_deliveries SET next_at = now() WHERE webhook_id = $1", WEBHOOK)
    await full.execute(
        "UPDATE webhook_deliveries SET finished_at = now() - interval '8 days' WHERE id IN"
        " (SELECT id FROM webhook_deliveries WHERE status = 'succeeded' ORDER BY id DESC LIMIT 100)"
    )
    await full.execute("UPDATE webhooks SET status = 'deleted' WHERE id = $1", UUID(int=200))
    assert await read("claim_deliveries", [WEBHOOK], [4], 60.0) < 200
    assert await read("remove_finished_deliveries", 7, 1000) < 100 * 20
    assert await read("remove_deliveries_of_deleted", 100) < 100 * 20
    assert await read("remove_deleted_webhooks") < 20

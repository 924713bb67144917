"""Claims are fair, and cost the same however many mails are queued."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import asyncpg
import pytest

from chassis.broker.envelope import new_id
from chassis.postgres import Connection
from emailer.sending import lanes
from emailer.sending.lanes import Lane, Round
from support.doubles.post_office import PostOffice, Terms, mail
from support.doubles.smtp import SAY_NOTHING, Step
from support.waiting import until

DOMAINS = 200
# Of 8 KiB each. A claim of 100 that looked at all that is queued would read tens of thousands.
MOST_BUFFERS = 3_000


async def queue_bulk(post_office: PostOffice, count: int) -> None:
    """Queue copies of one mail's only recipient, made by SQL: 25,000 to a mail."""
    command = mail(owner_id="flood", stream="bulk", to=["reader@0.example"])
    await post_office.accept(command)
    # So many take longer than a service may wait.
    connection = await asyncpg.connect(post_office.dsn)
    try:
        # Every row's mail is there: looking that up a million times takes a minute.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            """
            INSERT INTO emails SELECT (jsonb_populate_record(emails, jsonb_build_object('id', made.id))).*
            FROM emails, (SELECT gen_random_uuid() AS id FROM generate_series(1, $1)) AS made
            """,
            count // 25_000,
            timeout=200,
        )
        await connection.execute(
            """
            INSERT INTO recipients
                (email_id, position, kind, address, status, due_at, size_bytes, expires_at, stream, owner_id,
                domain, ready)
            SELECT emails.id, number, 'to', 'r@' || number % $2 || '.example', 'queued', accepted_at, 100,
                expires_at, 'bulk', 'flood', number % $2 || '.example', true
            FROM emails, generate_series(1, 25000) AS number
            WHERE emails.id <> $1
            """,
            command.email_id,
            DOMAINS,
            timeout=200,
        )
        await connection.execute("ANALYZE recipients", timeout=200)
    finally:
        await connection.close()


def buffers(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def explained(connection: Connection, query: str, *values: Any) -> int:
    """How many buffers a statement reads."""
    shown = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {lanes.SQL[query]}", *values)
    return buffers(json.loads(shown)[0]["Plan"])


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_a_claim_reads_little_however_much_is_queued(post_office: PostOffice, count: int) -> None:
    await queue_bulk(post_office, count)
    await post_office.accept(mail())
    async with post_office.postgres.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM recipients WHERE ready") > count
        found = await explained(connection, "find_owners", "bulk", "", 20)
        found += await explained(connection, "find_lanes", "bulk", ["flood"], [""], 10)
        taken = await lanes.next_lanes(connection, Round("bulk"))
        assert len(taken) == 10
        columns = [[getattr(lane, name) for lane in taken] for name in ("stream", "owner_id", "domain")]
        claim = [*columns, [10] * 10, 100, new_id(), 60.0, 1 << 20]
        found += await explained(connection, "claim_lanes", *claim)
        found += await explained(connection, "make_ready", 1000)
        assert found < MOST_BUFFERS
        assert await explained(connection, "measure_ready", 10_000) < MOST_BUFFERS
        ready, waits = await lanes.measure(connection)
        assert (ready, set(waits)) == (10_000, {"transactional", "bulk"})
        assert waits["bulk"] > waits["transactional"] > 0
    # Beside all that, a mail that somebody waits for is the next one.
    async with post_office.postgres.connection() as connection:
        (lane,) = await lanes.next_lanes(connection, Round("transactional"))
    assert lane.owner_id != "flood"


async def test_a_round_goes_over_all_owners_and_domains(post_office: PostOffice) -> None:
    commands = [
        mail(owner_id=f"owner-{owner:02}", to=[f"reader@{domain:02}.example"])
        for owner in range(25)
        for domain in range(12)
    ]
    await post_office.accept(*commands)
    turn = Round("transactional")
    seen: Counter[Lane] = Counter()
    async with post_office.postgres.connection() as connection:
        for _ in range(10):
            seen.update(await lanes.next_lanes(connection, turn))
    assert len(seen) == 25 * 12
    assert max(seen.values()) - min(seen.values()) <= 8


def test_owners_share_what_there_is_and_nobody_gets_more_than_is_allowed() -> None:
    big = [Lane("bulk", "big", f"{number}.example") for number in range(9)]
    small = Lane("bulk", "small", "0.example")
    divided = dict(lanes.shares([*big, small], most=90, allowed=lambda lane: 3 if lane == big[0] else 100))
    assert divided == {big[0]: 3, **dict.fromkeys(big[1:], 5), small: 45}
    assert lanes.shares([small], most=90, allowed=lambda _: 0) == []


async def test_mails_of_an_older_release_get_into_line(post_office: PostOffice) -> None:
    command = mail()
    await post_office.accept(command)
    async with post_office.postgres.connection() as connection:
        await connection.execute("UPDATE recipients SET ready = false, owner_id = '', domain = ''")
        assert await lanes.next_lanes(connection, Round("transactional")) == []
        assert await lanes.make_ready(connection, most=10) == 1
        assert await lanes.next_lanes(connection, Round("transactional")) == [
            Lane("transactional", command.owner_id, "example.com")
        ]


async def test_transactional_mail_passes_bulk_mail_and_a_domain_that_never_answers(
    post_office: PostOffice,
) -> None:
    await queue_bulk(post_office, 50_000)
    stuck = [mail(owner_id="flood", to=[f"reader-{number}@tarpit.example"]) for number in range(200)]
    for command in stuck:
        post_office.server.script(command.to[0], Step("rcpt", SAY_NOTHING))
    await post_office.accept(*stuck)
    commands = [mail(owner_id="shop", to=[f"reader-{number}@example.com"]) for number in range(20)]
    terms = Terms(connections=8, window=100, timeout_s=300)
    async with post_office.delivering(terms):
        await until(lambda: any("tarpit" in line for line in post_office.server.commands))
        for command in commands:
            await post_office.accept(command)
            await post_office.reaches(command, "delivered")
        assert not any(
            received.recipient.endswith("tarpit.example") for received in post_office.server.received
        )
        async with post_office.postgres.connection() as connection:
            waiting = await connection.fetchval(
                "SELECT count(*) FROM recipients WHERE owner_id = 'flood' AND status = 'queued'"
            )
    assert waiting > 10_000


async def test_a_paused_mail_keeps_its_place(post_office: PostOffice) -> None:
    await post_office.server.stop()
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(3)]
    await post_office.accept(*commands)
    before = [(await post_office.read(command)).recipients[0].next_attempt_at for command in commands]
    async with post_office.delivering(Terms(pause_s=60)) as dispatcher:
        await until(lambda: dispatcher.is_route_paused)
    await post_office.server.start()
    after = [(await post_office.read(command)).recipients[0].next_attempt_at for command in commands]
    assert after == before


@pytest.mark.parametrize("stream", ["transactional", "bulk"])
async def test_mails_of_both_streams_are_delivered(post_office: PostOffice, stream: str) -> None:
    command = mail(stream=stream)
    await post_office.accept(command)
    async with post_office.delivering():
        email = await post_office.reaches(command, "delivered")
    assert email.stream == stream

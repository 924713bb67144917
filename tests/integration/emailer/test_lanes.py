"""Claims are fair, and cost the same however many mails are queued."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from chassis.broker.envelope import new_id
from chassis.postgres import Connection
from emailer.sending import lanes
from emailer.sending.lanes import MailLane
from emailer.sending.rounds import EPOCH, Round, Rounds
from emailer.sending.waiting_recipients import WaitingRecipients
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import SAY_NOTHING, Step
from support.explained import buffers
from support.flood import copy_recipient
from support.waiting import until

DOMAINS = 200
# Of 8 KiB each. A claim of 100 that looked at all that is queued would read tens of thousands.
MOST_BUFFERS = 3_000


async def queue_bulk(post_office: PostOffice, count: int) -> None:
    """Queue so many copies of the recipient of a bulk mail, made by SQL."""
    command = mail(owner_id="flood", stream="bulk", to=["reader@0.example"])
    await post_office.accept(command)
    await copy_recipient(post_office.dsn, command.email_id, count=count, domains=DOMAINS)


async def explained(connection: Connection, query: str, *values: object) -> int:
    """Return how many buffers a statement reads."""
    return await buffers(connection, query, *values, package="emailer")


async def buffers_of_claim(connection: Connection, rounds: Rounds, *, most: int = 100) -> int:
    """Return how many buffers a claim of bulk mail reads; what it takes is taken back."""
    assert rounds.seen is not None
    found = await explained(connection, "find_arrivals", *rounds.seen, 10_000)
    await rounds.look(connection)
    turn = rounds.streams[1]
    taken = turn.next()
    assert taken
    known = turn.lanes(10_000)
    columns = [[getattr(lane, name) for lane in taken] for name in ("stream", "owner_id", "domain")]
    due_from = [known[lane] for lane in taken]
    shares = [1 << 20] * len(taken)
    claim = [*columns, [10] * len(taken), most, new_id(), 60.0, 1 << 20, due_from, shares]
    return found + await explained(connection, "claim_lanes", *claim)


async def claim_many(connection: Connection, rounds: Rounds, times: int) -> int:
    """Claim and deliver hundreds of bulk mails; return how many."""
    count, turn = 0, rounds.streams[1]
    for _ in range(times):
        await rounds.look(connection)
        divided = dict.fromkeys(turn.next(), 50)
        terms = lanes.Terms(new_id(), 60, 1 << 30)
        rows = await turn.claim(connection, divided, most=500, terms=terms)
        await connection.execute(
            """
            UPDATE recipients SET status = 'delivered', due_at = NULL
            FROM unnest($1::uuid[], $2::smallint[]) AS taken (email_id, position)
            WHERE recipients.email_id = taken.email_id AND recipients.position = taken.position
            """,
            [row["email_id"] for row in rows],
            [row["position"] for row in rows],
        )
        count += len(rows)
    return count


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_a_claim_reads_little_however_much_is_queued(post_office: PostOffice, count: int) -> None:
    await queue_bulk(post_office, count)
    await post_office.accept(mail())
    async with post_office.postgres.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM recipients WHERE ready") > count
        found = await explained(connection, "find_owners", "bulk", "", 20)
        found += await explained(connection, "find_lanes", "bulk", ["flood"], [""], 10)
        rounds = Rounds()
        await rounds.look(connection)
        found += await buffers_of_claim(connection, rounds)
        found += await explained(connection, "make_ready", 1000, EPOCH)
        found += await explained(connection, "look_for_recipients", EPOCH, None, [])
        assert found < MOST_BUFFERS
        while len(rounds.streams[1]) < DOMAINS:
            await rounds.look(connection)
        columns = columns_of(rounds)
        assert await explained(connection, "measure_ready", *columns, 10_000) < MOST_BUFFERS
        ready, waits = await rounds.measure(connection)
        assert (ready, set(waits)) == (10_000, {"transactional", "bulk"})
        assert waits["bulk"] > waits["transactional"] > 0
        # Beside all that, a mail that somebody waits for is the next one.
        (lane,) = rounds.streams[0].next()
    assert lane.owner_id != "flood"


def columns_of(rounds: Rounds) -> list[list[object]]:
    known = rounds.streams[1].lanes(DOMAINS)
    rows = [(lane.stream, lane.owner_id, lane.domain, due_from) for lane, due_from in known.items()]
    return [list(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_nothing_reads_more_while_a_held_snapshot_keeps_the_rows_of_claimed_mails(
    post_office: PostOffice, count: int
) -> None:
    await queue_bulk(post_office, count)
    holder = await asyncpg.connect(post_office.dsn)
    async with holder.transaction(isolation="repeatable_read"):
        await holder.fetchval("SELECT count(*) FROM emails")
        async with post_office.postgres.connection() as connection:
            rounds, waiting = Rounds(), WaitingRecipients()
            await rounds.look(connection)
            await waiting.line_up(connection, most=1000)
            before = await buffers_of_claim(connection, rounds)
            claimed = await claim_many(connection, rounds, 40)
            during = await buffers_of_claim(connection, rounds)
            assert rounds.seen is not None
            looks = {
                "measure_ready": (*columns_of(rounds), 100),
                "oldest_of_lanes": columns_of(rounds),
                "look_for_recipients": (waiting.due_from, *rounds.seen),
            }
            read = {name: await explained(connection, name, *looks[name]) for name in looks}
            everything = await explained(connection, "find_lanes", "bulk", ["flood"], [""], 10)
    await holder.close()
    print(f"a claim: {before} buffers at first, {during} after {claimed:,} mails under a held snapshot")
    print(f"the other looks: {read}; a walk through ten lanes: {everything}")
    assert claimed == 20_000
    # Passing the dead rows of ten lanes would read a thousand more.
    assert during < before + 300
    assert sum(read.values()) < MOST_BUFFERS


async def test_a_mail_that_is_queued_behind_the_scan_position_is_claimed_next(
    post_office: PostOffice,
) -> None:
    await post_office.accept(*(mail() for _ in range(3)))
    rounds = Rounds()
    turn = rounds.streams[0]

    async def claim(connection: Connection, most: int) -> list[Any]:
        await rounds.look(connection)
        terms = lanes.Terms(new_id(), 60, 1 << 20)
        rows = await turn.claim(connection, dict.fromkeys(turn.next(), most), most=10, terms=terms)
        return [row["email_id"] for row in rows]

    async with post_office.postgres.connection() as connection:
        [first] = await claim(connection, 1)
        assert len(await claim(connection, 5)) == 2
        assert await claim(connection, 5) == []
        assert len(turn) == 0
        # Given back, with its old place; and one that is accepted long after it was due.
        await connection.execute(
            "UPDATE recipients SET ready = true, due_at = now() - interval '1 hour' WHERE email_id = $1",
            first,
        )
        late = mail(accepted_at=datetime.now(UTC) - timedelta(hours=2))
        await post_office.accept(late)
        look = await WaitingRecipients().line_up(connection, most=10, seen=rounds.seen)
        assert (look.lined_up, look.has_arrivals) == (0, True)
        assert await claim(connection, 5) == [late.email_id, first]


async def test_mails_of_a_transaction_that_is_open_during_a_claim_are_found_by_the_next(
    post_office: PostOffice,
) -> None:
    await post_office.accept(command := mail())
    rounds = Rounds()
    writer = await asyncpg.connect(post_office.dsn)
    async with post_office.postgres.connection() as connection:
        await connection.execute("UPDATE recipients SET ready = false")
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("UPDATE recipients SET ready = true")
        await rounds.look(connection)
        assert rounds.streams[0].next() == []
        # Transactions that began later have ended meanwhile.
        await connection.execute("UPDATE emails SET subject = 'x'")
        await rounds.look(connection)
        await transaction.commit()
        look = await WaitingRecipients().line_up(connection, most=10, seen=rounds.seen)
        assert (look.lined_up, look.has_arrivals) == (0, True)
        await rounds.look(connection)
        (lane,) = rounds.streams[0].next()
    await writer.close()
    assert lane.owner_id == command.owner_id


async def test_a_round_goes_over_all_owners_and_domains(post_office: PostOffice) -> None:
    commands = [
        mail(owner_id=f"owner-{owner:02}", to=[f"reader@{domain:02}.example"])
        for owner in range(25)
        for domain in range(12)
    ]
    await post_office.accept(*commands)
    turn = Round("transactional")
    seen: Counter[MailLane] = Counter()
    async with post_office.postgres.connection() as connection:
        for _ in range(12):
            await turn.walk(connection)
            seen.update(turn.next())
    assert len(seen) == 25 * 12
    assert max(seen.values()) - min(seen.values()) <= 8


async def test_mails_of_an_older_release_are_queued(post_office: PostOffice) -> None:
    command = mail()
    await post_office.accept(command)
    async with post_office.postgres.connection() as connection:
        await connection.execute("UPDATE recipients SET ready = false, owner_id = '', domain = ''")
        rounds = Rounds()
        await rounds.look(connection)
        assert rounds.streams[0].next() == []
        assert (await WaitingRecipients().line_up(connection, most=10)).lined_up == 1
        await rounds.look(connection)
        assert rounds.streams[0].next() == [MailLane("transactional", command.owner_id, "example.com")]


async def test_transactional_mail_passes_bulk_mail_and_a_domain_that_never_answers(
    post_office: PostOffice,
) -> None:
    await queue_bulk(post_office, 50_000)
    stuck = [mail(owner_id="flood", to=[f"reader-{number}@tarpit.example"]) for number in range(200)]
    for command in stuck:
        post_office.server.script(command.to[0], Step("rcpt", SAY_NOTHING))
    await post_office.accept(*stuck)
    commands = [mail(owner_id="shop", to=[f"reader-{number}@example.com"]) for number in range(20)]
    terms = DispatcherTerms(connections=8, window=100, timeout_s=300)
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
        # Nobody need wait for its answers any more.
        await post_office.server.stop()
    assert waiting > 10_000


async def test_a_paused_mail_keeps_its_place(post_office: PostOffice) -> None:
    await post_office.server.stop()
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(3)]
    await post_office.accept(*commands)
    before = [(await post_office.read(command)).recipients[0].next_attempt_at for command in commands]
    async with post_office.delivering(DispatcherTerms(pause_s=60)) as dispatcher:
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


async def test_an_owner_with_more_domains_than_are_remembered_gets_to_all_of_them(
    post_office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailer.sending.rounds.MOST_OF_OWNER", 5)
    await post_office.accept(*(mail(to=[f"reader@{number:02}.example"]) for number in range(30)))
    rounds = Rounds()
    turn, taken = rounds.streams[0], list[str]()
    async with post_office.postgres.connection() as connection:
        for _ in range(60):
            await rounds.look(connection)
            assert len(turn) <= 5
            terms = lanes.Terms(new_id(), 60, 1 << 20)
            rows = await turn.claim(connection, dict.fromkeys(turn.next(), 2), most=100, terms=terms)
            taken += [row["domain"] for row in rows]
    assert len(taken) == len(set(taken)) == 30


async def test_a_mail_that_becomes_due_after_the_claim_began_is_not_left_behind(
    post_office: PostOffice,
) -> None:
    rounds = Rounds()
    turn, terms = rounds.streams[0], lanes.Terms(new_id(), 60, 1 << 20)
    async with post_office.postgres.transaction() as connection:
        await connection.fetchval("SELECT now()")
        await post_office.accept(command := mail())
        await rounds.look(connection)
        rows = await turn.claim(connection, dict.fromkeys(turn.next(), 5), most=5, terms=terms)
    assert [row["email_id"] for row in rows] == [command.email_id]

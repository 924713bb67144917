"""Who gets a connection: streams in turn, no domain all of them, a slow one its share."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

from contracts.mail import Stream
from emailer.sending.attempts import Job, StoredMail
from emailer.sending.turns import Turns

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def job(domain: str = "example.com", *, owner: str = "o", stream: Stream = "transactional") -> Job:
    mail = StoredMail(uuid4(), owner, None, NOW, None, NOW, 1, None, None)
    return Job(mail, 0, f"reader@{domain}", 0, "queued", stream=stream)


async def taken(turns: Turns) -> list[Job]:
    """Everything that may be begun now."""
    found: list[Job] = []
    while True:
        waiting = asyncio.create_task(turns.take())
        await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            return found
        found.append(waiting.result())


async def test_bulk_mail_leaves_connections_to_transactional_mail() -> None:
    turns = Turns(8)
    for number in range(20):
        turns.put(job(f"{number}.example", stream="bulk"))
    assert len(await taken(turns)) == 6
    turns.put(job())
    turns.put(job("other.example"))
    assert [one.stream for one in await taken(turns)] == ["transactional"] * 2


async def test_no_domain_gets_all_connections_and_a_new_one_half_until_it_has_answered() -> None:
    turns = Turns(8)
    for _ in range(20):
        turns.put(job())
    begun = await taken(turns)
    assert len(begun) == 4
    turns.done(begun[0], took_s=0.1)
    assert len(await taken(turns)) == 3
    turns.put(job("other.example"))
    assert [one.domain for one in await taken(turns)] == ["other.example"]


async def test_a_slow_domain_gets_half_of_the_connections_and_less_while_others_wait() -> None:
    turns = Turns(8)
    turns.put(job("slow.example"))
    turns.done(await turns.take(), took_s=5)
    assert turns.is_slow("slow.example")
    for _ in range(20):
        turns.put(job("slow.example"))
    first = await taken(turns)
    assert len(first) == 4
    for one in first:
        turns.done(one)
    for number in range(7):
        for _ in range(5):
            turns.put(job(f"{number}.example"))
    begun = [(await turns.take()).domain for _ in range(8)]
    assert begun.count("slow.example") == 1


async def test_a_domain_that_never_answers_is_slow_while_it_is_waited_for() -> None:
    now = 0.0
    turns = Turns(8, clock=lambda: now)
    for _ in range(8):
        turns.put(job("tarpit.example"))
    begun = await taken(turns)
    assert len(begun) == 4
    assert not turns.is_slow("tarpit.example")
    now = 2.0
    assert turns.is_slow("tarpit.example")
    turns.put(job("other.example"))
    assert [one.domain for one in await taken(turns)] == ["other.example"]
    for one in begun:
        turns.done(one)
    assert not turns.is_slow("tarpit.example")


async def test_a_domain_that_recovers_is_slow_no_more() -> None:
    turns = Turns(8)
    for took_s in (5, 0.01, 0.01, 0.01, 0.01, 0.01):
        turns.put(job())
        turns.done(await turns.take(), took_s=took_s)
    assert not turns.is_slow("example.com")
    assert turns.is_quick("example.com")
    assert not turns.is_quick("unknown.example")


async def test_owners_and_domains_take_turns() -> None:
    turns = Turns(1)
    for _ in range(3):
        turns.put(job("a.example", owner="big"))
    turns.put(job("b.example", owner="big"))
    turns.put(job("a.example", owner="small"))
    order = []
    for _ in range(5):
        one = await turns.take()
        order.append((one.mail.owner_id, one.domain))
        turns.done(one)
    assert set(order[:3]) == {("big", "a.example"), ("big", "b.example"), ("small", "a.example")}


async def test_waiting_jobs_can_be_given_back() -> None:
    turns = Turns(1)
    jobs = [job(), job("b.example", stream="bulk")]
    for one in jobs:
        turns.put(one)
    assert turns.take_all() == jobs
    assert await taken(turns) == []


async def test_a_free_connection_wakes_who_waits() -> None:
    turns = Turns(1)
    turns.put(job())
    turns.put(job())
    first = await turns.take()
    second = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    assert not second.done()
    turns.done(first)
    await second

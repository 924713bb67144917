"""Connections are shared: streams take turns, no domain gets all of them, a slow one gets its share."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

from contracts.mail import Stream
from contracts.parsed_addresses import ParsedAddress
from emailer.mails.letters import File, FilledTemplate, Letter
from emailer.mails.stored_mail import StoredMail
from emailer.sending.attempts import Job
from emailer.sending.turns import SendingTurns
from support.clocks import Clock

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def job(domain: str = "example.com", *, owner: str = "o", stream: Stream = "transactional") -> Job:
    mail = StoredMail(uuid4(), owner, None, NOW, None, NOW, 1, None, None)
    return Job(mail, 0, f"reader@{domain}", 0, "queued", stream=stream)


def of_template(owner: str = "o", domain: str = "example.com") -> Job:
    letter = Letter(ParsedAddress("", "a@example.com"), "", template=FilledTemplate("welcome", 1, "{}"))
    found = job(domain, owner=owner)
    return replace(found, mail=replace(found.mail, letter=letter))


def with_upload(owner: str = "o", domain: str = "example.com") -> Job:
    files = (File("a.pdf", "application/pdf", b"", upload_id=uuid4()),)
    found = job(domain, owner=owner)
    letter = Letter(ParsedAddress("", "a@example.com"), "Hello", text="Look", files=files)
    return replace(found, mail=replace(found.mail, letter=letter))


async def answered(turns: SendingTurns, clock: Clock, *domains: str, took_s: float = 0.01) -> None:
    """Let an attempt at each of `domains` take the given time."""
    for domain in domains:
        turns.put(job(domain, owner=domain))
        one = await turns.take()
        turns.ready(one)
        clock.now += took_s
        turns.done(one)


async def taken(turns: SendingTurns) -> list[Job]:
    """Return everything that may be begun now."""
    found: list[Job] = []
    while True:
        waiting = asyncio.create_task(turns.take())
        await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            return found
        found.append(waiting.result())


async def test_bulk_mail_leaves_connections_to_transactional_mail() -> None:
    turns = SendingTurns(8, clock=(clock := Clock(0.0)))
    domains = [f"{number}.example" for number in range(20)]
    await answered(turns, clock, "example.com", "other.example", *domains)
    for domain in domains:
        turns.put(job(domain, stream="bulk"))
    assert len(await taken(turns)) == 6
    turns.put(job())
    turns.put(job("other.example"))
    assert [one.stream for one in await taken(turns)] == ["transactional"] * 2


async def test_no_domain_gets_all_connections_and_a_new_one_gets_half_until_it_has_answered() -> None:
    turns = SendingTurns(8, clock=(clock := Clock(0.0)))
    for _ in range(20):
        turns.put(job())
    begun = await taken(turns)
    assert len(begun) == 4
    for one in begun:
        turns.ready(one)
    clock.now = 0.1
    turns.done(begun[0])
    assert len(await taken(turns)) == 3
    turns.put(job("other.example"))
    assert [one.domain for one in await taken(turns)] == ["other.example"]


async def test_a_slow_domain_gets_half_of_the_connections_and_less_while_others_wait() -> None:
    turns = SendingTurns(8, clock=(clock := Clock(0.0)))
    await answered(turns, clock, "slow.example", took_s=5)
    await answered(turns, clock, *(f"{number}.example" for number in range(7)))
    assert turns.is_slow("slow.example")
    for _ in range(20):
        turns.put(job("slow.example"))
    first = await taken(turns)
    assert len(first) == 4
    for one in first:
        turns.done(one)
    for number in range(7):
        for _ in range(5):
            turns.put(job(f"{number}.example", owner=f"{number}"))
    begun = [(await turns.take()).domain for _ in range(8)]
    assert begun.count("slow.example") == 1


async def test_a_domain_that_never_answers_is_slow_while_it_is_waited_for() -> None:
    turns = SendingTurns(8, clock=(clock := Clock(0.0)))
    for _ in range(8):
        turns.put(job("tarpit.example"))
    begun = await taken(turns)
    assert len(begun) == 4
    clock.now = 1.0
    for one in begun:
        turns.ready(one)
    clock.now = 1.5
    assert not turns.is_slow("tarpit.example")
    clock.now = 3.0
    assert turns.is_slow("tarpit.example")
    turns.put(job("other.example", owner="p"))
    assert [one.domain for one in await taken(turns)] == ["other.example"]
    for one in begun:
        turns.done(one)
    assert turns.is_slow("tarpit.example")


async def test_a_domain_that_recovers_is_no_longer_slow() -> None:
    turns = SendingTurns(8, clock=(clock := Clock(0.0)))
    for took_s in (5, 0.01, 0.01, 0.01, 0.01, 0.01):
        await answered(turns, clock, "example.com", took_s=took_s)
    assert not turns.is_slow("example.com")
    assert turns.is_quick("example.com")
    assert not turns.is_quick("unknown.example")


async def test_owners_and_domains_take_turns() -> None:
    turns = SendingTurns(1)
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
    turns = SendingTurns(1)
    jobs = [job(), job("b.example", stream="bulk")]
    for one in jobs:
        turns.put(one)
    assert turns.take_all() == jobs
    assert await taken(turns) == []


async def test_a_free_connection_wakes_a_waiting_job() -> None:
    turns = SendingTurns(1)
    turns.put(job())
    turns.put(job())
    first = await turns.take()
    second = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    assert not second.done()
    turns.done(first)
    await second


async def test_an_owner_gets_more_than_half_of_the_connections_only_while_nobody_else_can_use_them() -> None:
    turns = SendingTurns(8, clock=(clock := Clock(0.0)))
    domains = [f"{number}.example" for number in range(8)]
    await answered(turns, clock, *domains)
    for domain in domains:
        turns.put(job(domain, owner="big"))
    begun = await taken(turns)
    assert len(begun) == 8
    for domain in domains:
        turns.put(job(domain, owner="big"))
        turns.put(job(domain, owner="small"))
    for one in begun[:6]:
        turns.done(one)
    assert [(await turns.take()).mail.owner_id for _ in range(6)].count("small") == 4


async def test_domains_that_do_not_answer_cost_their_owner_half_and_all_owners_not_every_connection() -> None:
    turns = SendingTurns(8, clock=(clock := Clock(0.0)))
    await answered(turns, clock, "example.com")
    for owner in ("one", "two"):
        for number in range(8):
            turns.put(job(f"{owner}-{number}.example", owner=owner))
    begun = [one.mail.owner_id for one in await taken(turns)]
    assert (len(begun), max(map(begun.count, begun))) == (6, 4)
    turns.put(job(owner="third"))
    assert [one.mail.owner_id for one in await taken(turns)] == ["third"]


async def test_one_owner_waits_for_domains_that_do_not_answer_at_half_of_the_connections() -> None:
    turns = SendingTurns(8)
    for number in range(8):
        turns.put(job(f"{number}.example"))
    assert len(await taken(turns)) == 4


async def test_templates_of_an_owner_leave_a_place_to_render_those_of_another() -> None:
    turns = SendingTurns(4, clock=(clock := Clock(0.0)))
    await answered(turns, clock, "example.com")
    for _ in range(3):
        turns.put(of_template("a"))
    rendering = await taken(turns)
    assert len(rendering) == 1
    turns.put(of_template("b"))
    assert [one.mail.owner_id for one in await taken(turns)] == ["b"]


async def test_templates_that_are_rendered_take_two_connections_of_an_owner_and_half_of_all() -> None:
    turns = SendingTurns(8, clock=(clock := Clock(0.0)))
    await answered(turns, clock, "example.com", *"abc")
    for owner in "abc":
        for _ in range(4):
            turns.put(of_template(owner, domain=owner))
    turns.put(job(owner="a"))
    begun = await taken(turns)
    plain = [one for one in begun if not one.needs_rendering]
    rendering = [one for one in begun if one.needs_rendering]
    assert [one.mail.owner_id for one in plain] == ["a"]
    assert {one.mail.owner_id for one in rendering} == set("abc")
    assert len(rendering) == 3
    for one in rendering[1:]:
        turns.ready(one)
    turns.take_all()
    for _ in range(4):
        turns.put(of_template(rendering[0].mail.owner_id, domain="a"))
    assert len(await taken(turns)) == 1


async def test_the_time_that_a_template_takes_is_not_that_of_the_domain() -> None:
    turns = SendingTurns(8, clock=(clock := Clock(0.0)))
    turns.put(of_template())
    one = await turns.take()
    clock.now = 5.0
    assert not turns.is_slow("example.com")
    turns.ready(one)
    clock.now = 5.1
    turns.done(one)
    assert turns.is_quick("example.com")
    turns.put(of_template())
    failed = await turns.take()
    clock.now = 20.0
    turns.done(failed)
    assert turns.is_quick("example.com")


async def test_a_mail_with_uploads_begins_when_there_is_room_and_others_do_not_wait_behind_it() -> None:
    left: list[UUID] = []
    turns = SendingTurns(8, clock=(clock := Clock(0.0)), room_left=left.append)
    await answered(turns, clock, "example.com")
    first, second, plain = with_upload(), with_upload(), job()
    for one in (first, second, plain):
        turns.put(one)
    assert await taken(turns) == [first, plain]
    turns.done(first)
    assert await taken(turns) == [second]
    assert left == [first.mail.id]


async def test_bulk_mail_leaves_some_connections_for_doubtful_domains_to_transactional_mail() -> None:
    turns = SendingTurns(8)
    for number in range(8):
        turns.put(job(f"{number}.example", owner=f"{number}", stream="bulk"))
    assert len(await taken(turns)) == 4
    for number in range(8):
        turns.put(job(f"{number}.test", owner=f"{number}"))
    assert [one.stream for one in await taken(turns)] == ["transactional"] * 2


async def test_no_domain_gets_more_connections_than_its_limit() -> None:
    clock = Clock(0.0)
    limits = {"few.example": 2, "many.example": 100}
    turns = SendingTurns(8, clock=clock, most_of_domain=limits.get)
    await answered(turns, clock, "few.example", "many.example", "other.example")
    for domain in ("few.example", "many.example", "other.example"):
        for number in range(8):
            turns.put(job(domain, owner=f"{domain}-{number}"))
    found = Counter(one.domain for one in await taken(turns))
    # A quarter of the connections is left to others.
    assert found == {"few.example": 2, "many.example": 6, "other.example": 6}


async def test_jobs_that_come_together_are_begun_by_as_many_that_wait() -> None:
    turns = SendingTurns(8)
    waiting = [asyncio.create_task(turns.take()) for _ in range(6)]
    await asyncio.sleep(0)
    for number in range(3):
        turns.put(job(f"{number}.example.com", owner=f"{number}"))
    for _ in range(6):
        await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [True] * 3 + [False] * 3
    for each in waiting[3:]:
        each.cancel()


async def test_a_wait_that_is_cancelled_together_with_its_job_leaves_it_to_the_next() -> None:
    turns = SendingTurns(8)
    first, second = (asyncio.create_task(turns.take()) for _ in range(2))
    await asyncio.sleep(0)
    turns.put(wanted := job())
    first.cancel()
    assert await asyncio.wait_for(second, 5) is wanted
    assert first.cancelled()


async def test_an_owner_that_comes_last_begins_when_no_other_has_mails_waiting_or_under_way() -> None:
    late = {"late"}
    turns = SendingTurns(4, clock=(clock := Clock(0.0)), comes_last=late.__contains__)
    await answered(turns, clock, "a.example", "b.example")
    first, others = job("a.example", owner="late"), [job("b.example", owner="o") for _ in range(2)]
    for one in (first, *others):
        turns.put(one)
    assert await taken(turns) == others
    turns.done(others[0])
    assert await taken(turns) == []
    turns.done(others[1])
    assert await taken(turns) == [first]


async def test_an_owner_that_comes_last_is_served_when_the_others_are_as_late_or_it_is_late_no_more() -> None:
    late = {"late", "later"}
    turns = SendingTurns(4, clock=(clock := Clock(0.0)), comes_last=late.__contains__)
    await answered(turns, clock, "a.example", "b.example")
    waiting = [job("a.example", owner="late"), job("b.example", owner="later")]
    for one in waiting:
        turns.put(one)
    assert await taken(turns) == waiting
    busy = job("b.example", owner="o")
    turns.put(busy)
    assert await taken(turns) == [busy]
    again = job("a.example", owner="late")
    turns.put(again)
    assert await taken(turns) == []
    late.clear()
    turns.done(waiting[0])
    assert await taken(turns) == [again]

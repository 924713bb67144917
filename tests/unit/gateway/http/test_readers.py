"""When all room is taken, a slow or greedy reader gives way to an owner that has no answer on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from chassis.http1.refusals import AnswerCut
from gateway.http import sending
from gateway.http.readers import BYTES_A_SECOND, GRACE_S
from gateway.http.replies import NDJSON, HttpReply
from gateway.http.sending import Sending
from support.answers import PAGE, AnswerReader, begun, stream
from support.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rooms(clock: Clock) -> Sending:
    return Sending(clock=clock)


def of_nine_owners(rooms: Sending) -> list[AnswerReader]:
    """Return clients that read nothing, of nine owners that take all streams."""
    owners = [str(1 + number % 9) for number in range(sending.MOST_STREAMS - 6)]
    # The last places are for owners that have none.
    return [AnswerReader(rooms, stream(), owner) for owner in (*owners, *"abcdef")]


async def finish(*clients: AnswerReader) -> list[BaseException | None]:
    for client in clients:
        client.is_reading.set()
    return await asyncio.gather(*(client.task for client in clients), return_exceptions=True)


async def test_owners_that_read_at_the_least_rate_do_not_shut_out_another_one(
    rooms: Sending, clock: Clock
) -> None:
    clients = of_nine_owners(rooms)
    assert set(await begun(*clients)) == {200}
    early = AnswerReader(rooms, stream(), "early")
    assert await begun(early) == [503], "each answer has its first seconds"
    clock.now += GRACE_S + 1
    late = AnswerReader(rooms, stream(), "late")
    assert await begun(late) == [200]
    assert await finish(early, late) == [None, None]
    ends = await finish(*clients)
    cut = [end for end in ends if end is not None]
    assert [type(end) for end in cut] == [AnswerCut], "one gives way to one"


async def test_the_client_that_is_most_seconds_late_gives_way(rooms: Sending, clock: Clock) -> None:
    slow = AnswerReader(rooms, HttpReply(PAGE, 200), "slow")
    assert await begun(slow) == [200]
    clock.now += 10
    pages = sending.MOST_BYTES // len(PAGE) - 1
    others = [AnswerReader(rooms, HttpReply(PAGE, 200), str(number)) for number in range(pages)]
    assert set(await begun(*others)) == {200}
    clock.now += GRACE_S + len(PAGE) / BYTES_A_SECOND
    next_one = AnswerReader(rooms, HttpReply(PAGE, 200), "next")
    assert await begun(next_one) == [200]
    ends = await finish(slow, *others, next_one)
    assert isinstance(ends[0], AnswerCut)
    assert set(ends[1:]) == {None}


async def test_an_answer_that_needs_much_room_gets_that_of_several(rooms: Sending, clock: Clock) -> None:
    others = [
        AnswerReader(rooms, HttpReply(PAGE, 200), str(number))
        for number in range(sending.MOST_BYTES // len(PAGE))
    ]
    assert set(await begun(*others)) == {200}
    clock.now += 2 * GRACE_S
    large = AnswerReader(rooms, HttpReply(3 * PAGE, 200), "large")
    assert await begun(large) == [200]
    cut = [end for end in await finish(*others, large) if end is not None]
    assert [type(end) for end in cut] == [AnswerCut] * 3


async def test_time_in_which_an_answer_is_made_is_not_the_clients(rooms: Sending, clock: Clock) -> None:
    goes_on = asyncio.Event()

    async def made_slowly() -> AsyncIterator[bytes]:
        yield b"1\n"
        await goes_on.wait()
        yield b"2\n"

    clients = [
        AnswerReader(rooms, HttpReply(made_slowly(), 200, NDJSON), str(n))
        for n in range(sending.MOST_STREAMS)
    ]
    for client in clients:
        client.is_reading.set()
    assert set(await begun(*clients)) == {200}
    clock.now += 100 * GRACE_S
    refused = AnswerReader(rooms, stream(), "late")
    assert await begun(refused) == [503]
    goes_on.set()
    assert set(await finish(*clients, refused)) == {None}


async def test_an_owner_with_several_answers_gives_way_however_fast_it_reads(
    rooms: Sending, clock: Clock
) -> None:
    goes_on = asyncio.Event()

    async def without_end() -> AsyncIterator[bytes]:
        yield b"1\n"
        await goes_on.wait()

    owners = ["greedy"] * 2 + [str(number) for number in range(sending.MOST_STREAMS - 2)]
    clients = [AnswerReader(rooms, HttpReply(without_end(), 200, NDJSON), owner) for owner in owners]
    for client in clients:
        client.is_reading.set()
    assert set(await begun(*clients)) == {200}
    clock.now += GRACE_S + 1
    first, second = AnswerReader(rooms, stream(), "first"), AnswerReader(rooms, stream(), "second")
    assert await begun(first, second) == [200, 503], "an owner keeps one answer that it reads well"
    goes_on.set()
    ends = await finish(*clients, first, second)
    assert sorted(isinstance(end, AnswerCut) for end in ends[:2]) == [False, True]
    assert set(ends[2:]) == {None}

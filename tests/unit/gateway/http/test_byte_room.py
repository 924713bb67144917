"""Room for large bodies: shared by owners, given back, and waited for in order."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prometheus_client import REGISTRY

from chassis import shares, threads
from chassis.errors import Overloaded, TooManyAtOnce
from gateway.http.byte_room import ByteRoom
from gateway.http.shared_bytes import SharedBytes


class Holder:
    """A body of an owner, held until `end`."""

    def __init__(self, room: ByteRoom, owner_id: str, size: int, within_s: float = 20) -> None:
        self.has_room = asyncio.Event()
        self._is_over = asyncio.Event()
        self.task = asyncio.create_task(self._hold(room, owner_id, size, within_s))

    async def _hold(self, room: ByteRoom, owner_id: str, size: int, within_s: float) -> None:
        async with room.hold(owner_id, size, within_s=within_s):
            self.has_room.set()
            await self._is_over.wait()

    async def end(self) -> None:
        self._is_over.set()
        await self.task


async def settled(*holders: Holder) -> list[bool]:
    """Return the requests that have room, once the loop has run."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [holder.has_room.is_set() for holder in holders]


async def test_an_owner_has_its_share_and_the_rest_is_there_for_others() -> None:
    room = ByteRoom("large bodies", most=100, of_owner=30)
    mine = [Holder(room, "1", 10) for _ in range(5)]
    theirs = Holder(room, "2", 20)
    assert await settled(*mine, theirs) == [True, True, True, False, False, True]
    await mine[0].end()
    assert await settled(*mine[1:]) == [True, True, True, False]
    for holder in (*mine[1:], theirs):
        await holder.end()


async def test_owners_that_hold_all_they_get_leave_room_for_the_next_one() -> None:
    room = ByteRoom("large bodies", most=100, of_owner=30)
    greedy = [Holder(room, owner, 5) for owner in "1234" for _ in range(6)]
    held = await settled(*greedy)
    assert [sum(held[start : start + 6]) for start in range(0, 24, 6)] == [6, 5, 3, 1]
    fifth, sixth = Holder(room, "5", 20), Holder(room, "6", 5)
    assert await settled(fifth, sixth) == [True, True]
    for holder in (*greedy, fifth, sixth):
        await holder.end()


async def test_all_owners_together_have_no_more_than_there_is() -> None:
    room = ByteRoom("large bodies", most=50, of_owner=30)
    first, second, third = (Holder(room, owner, 25) for owner in "123")
    assert await settled(first, second, third) == [True, True, False]
    await second.end()
    assert await settled(third) == [True]
    await first.end()
    await third.end()


async def test_heavy_bodies_of_two_owners_leave_room_for_light_ones_of_others() -> None:
    room = ByteRoom("documents", most=640, of_owner=320, reserve=80)
    first, second = Holder(room, "1", 320), Holder(room, "2", 310)
    light = [Holder(room, owner, 10) for owner in "3456789"]
    assert await settled(first, second, *light) == [True, False, *[True] * 7]
    await first.end()
    assert await settled(second) == [True]
    for holder in (second, *light):
        await holder.end()


async def test_a_request_without_room_in_time_is_refused_and_a_cancelled_one_frees_its_room() -> None:
    room = ByteRoom("large bodies", most=100, of_owner=30)
    holder = Holder(room, "1", 30)
    await settled(holder)
    with pytest.raises(TooManyAtOnce):
        async with room.hold("1", 10, within_s=0.01):
            raise AssertionError("there is no room")
    async with room.hold("2", 30, within_s=0.01), room.hold("3", 30, within_s=0.01):
        with pytest.raises(Overloaded):
            async with room.hold("4", 20, within_s=0.01):
                raise AssertionError("there is no room")
    gone = Holder(room, "1", 10)
    await settled(gone)
    gone.task.cancel()
    # It goes away at the moment at which it gets its room.
    late = Holder(room, "1", 10)
    await settled(late)
    ending = asyncio.create_task(holder.end())
    await asyncio.sleep(0)
    late.task.cancel()
    await ending
    # All that it does not hold is there for another, and afterwards all there is.
    async with room.hold("1", 30, within_s=0.01), room.hold("2", 70, within_s=0.01):
        pass
    async with room.hold("3", 100, within_s=0.01):
        pass


async def test_a_body_that_is_larger_than_the_share_has_it_alone() -> None:
    room = ByteRoom("large bodies", most=100, of_owner=30)
    large, next_one = Holder(room, "1", 200), Holder(room, "1", 1)
    assert await settled(large, next_one) == [True, False]
    await large.end()
    assert await settled(next_one) == [True]
    await next_one.end()


async def test_a_body_that_nobody_waits_for_keeps_its_room_until_the_thread_has_left_it() -> None:
    room, begun, end = ByteRoom("large bodies", most=100, of_owner=30), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        loop.call_soon_threadsafe(begun.set)
        assert end.wait(30)

    async def hold() -> None:
        async with room.hold("1", 20, within_s=20):
            await threads.run(read, owner_id="1")

    task = asyncio.create_task(hold())
    try:
        async with asyncio.timeout(20):
            await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        later = Holder(room, "1", 20)
        assert await settled(later) == [False]
    finally:
        end.set()
    async with asyncio.timeout(20):
        await later.has_room.wait()
    await later.end()


async def test_of_a_crowd_that_waits_only_the_first_of_each_owner_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []

    def has_room(own: int, **more: int) -> bool:
        looked.append(own)
        return False

    monkeypatch.setattr(shares, "has_room", has_room)
    room = ByteRoom("large bodies", most=1000, of_owner=1000)
    first = [Holder(room, owner, 10) for owner in ("1", "2", "3")]
    crowd = [Holder(room, owner, 10) for owner in ("1", "2", "3") for _ in range(100)]
    assert sum(await settled(*first, *crowd)) == 3
    looked.clear()
    await first.pop().end()
    assert len(looked) == 3
    for holder in (*first, *crowd):
        holder.task.cancel()
    await asyncio.gather(*(holder.task for holder in (*first, *crowd)), return_exceptions=True)


async def test_rooms_that_share_bytes_have_their_parts_and_no_more_than_there_is_together() -> None:
    shared = SharedBytes(100)
    bodies, answers = (
        ByteRoom(what, most=200, of_owner=200, part=20, shared=shared) for what in ("bodies", "answers")
    )
    holders = [Holder(bodies, str(number), 30) for number in range(6)]
    assert await settled(*holders) == [True] * 4 + [False] * 2
    # The part of the other kind is left, and nothing more.
    light, next_one = Holder(answers, "7", 20), Holder(answers, "8", 5)
    assert await settled(light, next_one) == [True, False]
    with pytest.raises(Overloaded), answers.hold_now("9", 30):
        pass
    # What becomes free is there for both, and each is the first in turn.
    await holders[1].end()
    assert await settled(*holders[4:], next_one) == [True, False, False]
    await holders[2].end()
    assert await settled(*holders[4:], next_one) == [True, False, True]
    await holders[3].end()
    assert await settled(*holders[4:]) == [True, True]
    for holder in (holders[0], *holders[4:], light, next_one):
        await holder.end()


async def test_an_owner_leaves_half_of_the_shared_bytes_in_all_rooms_together() -> None:
    shared = SharedBytes(800)
    rooms = [ByteRoom("bodies", most=800, of_owner=800, part=50, shared=shared) for _ in range(2)]
    mine = [Holder(room, "1", 50) for room in rooms for _ in range(8)]
    assert sum(await settled(*mine)) == 2 + 350 // 50
    theirs = [Holder(room, "2", 50) for room in rooms]
    assert await settled(*theirs) == [True, True]
    for holder in theirs:
        await holder.end()
    for holder in mine:
        await holder.end()


async def test_a_body_that_leaves_while_it_waits_takes_no_shared_bytes() -> None:
    shared = SharedBytes(50)
    room = ByteRoom("bodies", most=100, of_owner=100, part=0, shared=shared)
    first, second = Holder(room, "1", 40), Holder(room, "2", 40)
    assert await settled(first, second) == [True, False]
    second.task.cancel()
    await settled()
    await first.end()
    assert shared.take("3", 50)
    shared.give_back("3", 50)


async def test_what_a_room_holds_shows_in_the_metrics() -> None:
    room = ByteRoom("test bodies", most=100, of_owner=100)
    with room.hold_now("1", 40):
        assert REGISTRY.get_sample_value("tickwire_http_held_bytes", {"kind": "test bodies"}) == 40
    assert REGISTRY.get_sample_value("tickwire_http_held_bytes", {"kind": "test bodies"}) == 0

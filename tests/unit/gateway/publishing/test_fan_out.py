"""A channel with many listeners serves them in turns of their owners, each in order and exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chassis.loop_turns import MOST_IN_PASS, LoopTurns
from gateway.publishing.fan_out import MOST_WAITING, MOST_WAITING_OF_FEW
from gateway.publishing.hub import FEW_LISTENERS, Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.publishing.signals import FellBehind, MembersLeft, Signal
from gateway.realtime.channels import MOST_RECOVERED

MANY = 2500


def news(offset: int, channel: str = "chat:a") -> Publication:
    return Publication(channel, ChannelPosition("e", offset), {"n": offset})


class ListenerCrowd:
    """Many listeners of one owner, and what each has heard."""

    def __init__(self, hub: Hub, owner: str, number: int = MANY, channel: str = "chat:a") -> None:
        self.heard: list[list[int]] = [[] for _ in range(number)]
        self.skipped: list[int] = []
        self.signals: list[Signal] = []
        self.stops = [
            hub.listen(channel, self._hear(offsets), owner=owner, on_signal=self._leave(index))
            for index, offsets in enumerate(self.heard)
        ]

    def _leave(self, index: int) -> Callable[[Signal], None]:
        def leave(signal: Signal) -> None:
            self.signals.append(signal)
            self.stops[index]()

        return leave

    def _hear(self, offsets: list[int]) -> Callable[[Publication], None]:
        def hear(publication: Publication) -> None:
            offsets.append(publication.position.offset)
            self.skipped.append(publication.skipped)

        return hear

    @property
    def count(self) -> int:
        """The number of publications that they have heard together."""
        return sum(map(len, self.heard))


async def all_handed(hub: Hub, channel: str = "chat:a") -> None:
    """Wait until nothing waits for a listener."""
    async with asyncio.timeout(60):
        while hub.is_under_way(channel):
            await asyncio.sleep(0)


async def test_a_pass_of_the_loop_hands_a_publication_to_some_listeners_only() -> None:
    hub = Hub()
    crowd = ListenerCrowd(hub, "a")
    hub.publish(news(1), is_ordered=True)
    counts = [crowd.count]
    while hub.is_under_way("chat:a"):
        await asyncio.sleep(0)
        counts.append(crowd.count)
    shares = [after - before for before, after in zip([0, *counts], counts, strict=False)]
    assert max(shares) <= 2 * MOST_IN_PASS
    assert crowd.heard == [[1]] * MANY


async def test_the_listeners_of_one_owner_do_not_delay_those_of_another() -> None:
    hub = Hub()
    crowd, neighbour = ListenerCrowd(hub, "a"), ListenerCrowd(hub, "b", 1)
    for offset in range(1, 21):
        hub.publish(news(offset), is_ordered=True)
    for _ in range(25):
        await asyncio.sleep(0)
    assert neighbour.heard == [[*range(1, 21)]]
    assert crowd.count < 10 * MANY
    await all_handed(hub)
    assert crowd.heard == [[*range(1, 21)]] * MANY


async def test_whoever_comes_or_goes_meanwhile_hears_what_is_published_in_its_time() -> None:
    hub = Hub()
    crowd = ListenerCrowd(hub, "a")
    hub.publish(news(1), is_ordered=True)
    late = ListenerCrowd(hub, "a", 1)
    hub.publish(news(2), is_ordered=True)
    crowd.stops[-1]()
    await all_handed(hub)
    assert (late.heard, crowd.heard[0], crowd.heard[-1]) == ([[2]], [1, 2], [])


async def test_the_order_is_kept_when_a_crowd_has_become_small() -> None:
    hub = Hub()
    crowd = ListenerCrowd(hub, "a")
    hub.publish(news(1), is_ordered=True)
    for stop in crowd.stops[: MANY - FEW_LISTENERS // 2]:
        stop()
    hub.publish(news(2), is_ordered=True)
    await all_handed(hub)
    assert crowd.heard[-1] == [1, 2]
    hub.publish(news(3), is_ordered=True)
    assert crowd.heard[-1] == [1, 2, 3]


async def test_an_owner_that_cannot_keep_up_is_told_so_and_hears_nothing_after_a_gap() -> None:
    hub = Hub(turns=LoopTurns(most=50))
    crowd, neighbour = ListenerCrowd(hub, "a"), ListenerCrowd(hub, "b", 1)
    for offset in range(1, MOST_WAITING + 100):
        hub.publish(news(offset), is_ordered=True)
        while len(neighbour.heard[0]) < offset:
            await asyncio.sleep(0)
    await all_handed(hub)
    assert neighbour.heard == [[*range(1, MOST_WAITING + 100)]]
    assert neighbour.signals == []
    assert crowd.signals == [FellBehind("chat:a")] * MANY
    assert 0 < crowd.count < 100 * MANY
    assert all(one == [*range(1, len(one) + 1)] for one in crowd.heard)


def test_whoever_fell_behind_can_recover_and_something_more_that_is_published_meanwhile() -> None:
    assert MOST_WAITING <= MOST_RECOVERED - 100


async def test_of_a_channel_without_an_order_the_newest_replaces_what_waits() -> None:
    hub = Hub()
    crowd = ListenerCrowd(hub, "a", channel="quotes:A")
    for offset in range(1, 101):
        hub.publish(news(offset, "quotes:A"))
    await all_handed(hub, "quotes:A")
    assert crowd.heard == [[1, 100]] * MANY
    assert crowd.skipped == [0] * MANY + [98] * MANY


@pytest.mark.parametrize("number", [1, FEW_LISTENERS])
async def test_few_listeners_are_served_at_once(number: int) -> None:
    hub = Hub()
    crowd = ListenerCrowd(hub, "a", number)
    hub.publish(news(1), is_ordered=True)
    assert crowd.heard == [[1]] * number


async def test_a_channel_is_behind_only_if_it_is_so_for_every_owner() -> None:
    hub = Hub()
    ListenerCrowd(hub, "a")
    hub.publish(news(1), is_ordered=True)
    assert hub.is_behind("chat:a")
    await all_handed(hub)
    neighbour = ListenerCrowd(hub, "b", 1)
    hub.publish(news(2), is_ordered=True)
    while not neighbour.count:
        await asyncio.sleep(0)
    assert hub.is_under_way("chat:a")
    assert not hub.is_behind("chat:a")


@pytest.mark.parametrize("is_ordered", [True, False])
async def test_many_channels_of_few_listeners_are_served_a_part_in_each_pass(is_ordered: bool) -> None:
    hub = Hub()
    names = [f"chat:s{number}" for number in range(100)]
    crowds = [ListenerCrowd(hub, "a", FEW_LISTENERS - 1, channel=name) for name in names]
    neighbours = [ListenerCrowd(hub, "b", 1, channel=name) for name in names]
    for name in names:
        hub.publish(news(1, name), is_ordered=is_ordered)
    counts = [sum(crowd.count for crowd in crowds)]
    while any(hub.is_under_way(name) for name in names):
        await asyncio.sleep(0)
        counts.append(sum(crowd.count for crowd in crowds))
    shares = [after - before for before, after in zip([0, *counts], counts, strict=False)]
    assert max(shares) <= 2 * MOST_IN_PASS
    assert all(neighbour.heard == [[1]] for neighbour in neighbours)
    assert all(crowd.heard == [[1]] * (FEW_LISTENERS - 1) for crowd in crowds)


async def test_few_listeners_get_all_of_an_ordered_channel_however_much_comes_at_once() -> None:
    hub = Hub()
    one = ListenerCrowd(hub, "a", 1)
    for offset in range(1, MOST_WAITING_OF_FEW):
        hub.publish(news(offset), is_ordered=True)
    await all_handed(hub)
    assert (one.heard, one.signals) == ([[*range(1, MOST_WAITING_OF_FEW)]], [])


async def test_a_small_room_does_not_wait_for_the_many_rooms_of_another_owner() -> None:
    hub = Hub()
    rooms = [ListenerCrowd(hub, "a", 1, channel=f"chat:s{number}") for number in range(5_000)]
    neighbour = ListenerCrowd(hub, "b", 1, channel="chat:mine")
    for number in range(5_000):
        hub.publish(news(1, f"chat:s{number}"), is_ordered=True)
    hub.publish(news(1, "chat:mine"), is_ordered=True)
    passes = 0
    while not neighbour.count:
        await asyncio.sleep(0)
        passes += 1
    assert passes <= 3
    assert sum(room.count for room in rooms) <= 4 * MOST_IN_PASS


async def test_the_subscriptions_of_a_former_member_end_in_turns_and_nobody_else_is_told() -> None:
    hub = Hub()
    crowd, neighbour = ListenerCrowd(hub, "a"), ListenerCrowd(hub, "b")
    hub.signal(MembersLeft("chat:a", frozenset({"a"})))
    counts = [len(crowd.signals)]
    while counts[-1] < MANY:
        await asyncio.sleep(0)
        counts.append(len(crowd.signals))
    assert max(after - before for before, after in zip([0, *counts], counts, strict=False)) <= MOST_IN_PASS
    assert neighbour.signals == []
    assert hub.counts() == {"chat:a": MANY}

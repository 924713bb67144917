"""Listeners of newest values end with the newest one, whatever the order of publications and turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.loop_turns import LoopTurns
from gateway.publishing.fan_out import MOST_WAITING
from gateway.publishing.hub import FEW_LISTENERS, Hub
from gateway.publishing.positions import ChannelPosition, Handover
from gateway.publishing.publications import Publication

CHANNEL = "email:x"
CROWD = FEW_LISTENERS + 10


class Published(NamedTuple):
    """A publication: epochs are numbered, as those of feeds, and a state has the position of another one."""

    epoch: int
    offset: int
    is_state: bool

    def publication(self) -> Publication:
        position = ChannelPosition(str(self.epoch), self.offset)
        return Publication(CHANNEL, position, {}, is_state=self.is_state)


class Subscriber:
    """A listener that passes on what its handover lets through, and what has come meanwhile."""

    def __init__(self, hub: Hub, owner: str) -> None:
        self.expected: list[tuple[int, int]] = []
        self.got: list[tuple[int, int]] = []
        self._handover: Handover[Publication] = Handover(is_ordered=False)
        self._handover.begin(ChannelPosition("1", 0))
        hub.listen(CHANNEL, self._hear, owner=owner)

    def _hear(self, publication: Publication) -> None:
        offer = self._handover.renew if publication.is_state else self._handover.offer
        if offer(publication):
            self.got.append((int(publication.position.epoch), publication.position.offset))


PUBLISHED = st.builds(Published, st.integers(1, 2), st.integers(1, 5), st.booleans())
PASS, COMES = "a pass of the loop", "another subscriber comes"
STEPS = st.lists(st.one_of(PUBLISHED, st.sampled_from([PASS, COMES])), max_size=25)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_the_last_that_a_subscriber_gets_is_the_newest_of_its_time(steps: Sequence[Published | str]) -> None:
    async def run() -> list[Subscriber]:
        hub = Hub(turns=LoopTurns(most=10))
        subscribers = [Subscriber(hub, "a") for _ in range(CROWD)] + [Subscriber(hub, "b")]
        for step in steps:
            if step == PASS:
                await asyncio.sleep(0)
            elif step == COMES:
                subscribers.append(Subscriber(hub, "a"))
            elif isinstance(step, Published):
                for one in subscribers:
                    one.expected.append((step.epoch, step.offset))
                hub.publish(step.publication())
        async with asyncio.timeout(60):
            while hub.is_under_way(CHANNEL):
                await asyncio.sleep(0)
        return subscribers

    published = {(step.epoch, step.offset) for step in steps if isinstance(step, Published)}
    for subscriber in asyncio.run(run()):
        assert subscriber.got == sorted(subscriber.got)
        assert {*subscriber.got} <= published
        if subscriber.expected:
            # Whoever comes late may get one of before its time that is newer than those that follow it.
            assert subscriber.got[-1] >= max(subscriber.expected)


async def test_what_replaces_nothing_waits_in_a_bounded_line_of_which_the_newest_are_kept() -> None:
    hub, heard = Hub(turns=LoopTurns(most=10)), list[int]()
    for _ in range(CROWD):
        hub.listen("bars:A", lambda publication: heard.append(publication.position.offset), owner="a")
    most = 2 * MOST_WAITING
    for offset in range(1, most + 1):
        bar = Publication("bars:A", ChannelPosition("1", offset), {}, replaces=f"minute {offset}")
        hub.publish(bar)
    async with asyncio.timeout(60):
        while hub.is_under_way("bars:A"):
            await asyncio.sleep(0)
    assert heard == [n for n in [1, *range(most - MOST_WAITING + 2, most + 1)] for _ in range(CROWD)]

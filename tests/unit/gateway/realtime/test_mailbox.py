"""What waits for one connection: chat in order and whole, quotes conflated, never too much of either."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.realtime.mailbox import Mailbox

LIMIT = 1000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def take_now(mailbox: Mailbox) -> list[Any]:
    """What can be taken without waiting, decoded."""
    task = asyncio.create_task(mailbox.take())
    for _ in range(3):
        await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return []
    return [orjson.loads(frame) for frame in task.result()]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mailbox(clock: Clock) -> Mailbox:
    return Mailbox(LIMIT, clock)


async def test_ordered_frames_come_out_as_they_went_in(mailbox: Mailbox) -> None:
    for number in range(5):
        mailbox.put(b"%d" % number)
    assert await take_now(mailbox) == [0, 1, 2, 3, 4]
    assert await take_now(mailbox) == []


async def test_a_newer_quote_replaces_the_one_that_waits_and_says_how_many(mailbox: Mailbox) -> None:
    for offset in range(1, 5):
        mailbox.put_latest("quotes:A", {"offset": offset}, interval_s=0)
    mailbox.put_latest("quotes:B", {"offset": 9}, interval_s=0)
    assert await take_now(mailbox) == [
        {"push": {"offset": 4, "skipped": 3}},
        {"push": {"offset": 9}},
    ]


async def test_the_count_of_the_skipped_starts_again_after_each_push(mailbox: Mailbox) -> None:
    for offsets in ((1, 2), (3,), (4, 5, 6)):
        for offset in offsets:
            mailbox.put_latest("q", {"offset": offset}, interval_s=0)
        [frame] = await take_now(mailbox)
        assert frame["push"].get("skipped", 0) == len(offsets) - 1


async def test_an_interval_keeps_quotes_back_until_it_is_over(mailbox: Mailbox, clock: Clock) -> None:
    mailbox.put_latest("q", {"offset": 1}, interval_s=2)
    assert await take_now(mailbox) == [{"push": {"offset": 1}}]
    mailbox.put_latest("q", {"offset": 2}, interval_s=2)
    mailbox.put_latest("q", {"offset": 3}, interval_s=2)
    clock.now += 1.9
    assert await take_now(mailbox) == []
    clock.now += 0.1
    assert await take_now(mailbox) == [{"push": {"offset": 3, "skipped": 1}}]


async def test_chat_does_not_wait_for_the_interval_of_a_quote(mailbox: Mailbox) -> None:
    mailbox.put_latest("q", {"offset": 1}, interval_s=5)
    await take_now(mailbox)
    mailbox.put_latest("q", {"offset": 2}, interval_s=5)
    mailbox.put(b'"chat"')
    assert await take_now(mailbox) == ["chat"]


async def test_who_waits_is_woken_by_a_frame(mailbox: Mailbox) -> None:
    waiting = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    mailbox.put(b"1")
    assert await asyncio.wait_for(waiting, 5) == [b"1"]


async def test_who_waits_is_woken_when_a_quote_is_due() -> None:
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(LIMIT, loop.time)
    mailbox.put_latest("q", {"offset": 1}, interval_s=0.02)
    await mailbox.take()
    mailbox.put_latest("q", {"offset": 2}, interval_s=0.02)
    assert await asyncio.wait_for(mailbox.take(), 5) == [b'{"push":{"offset":2}}']


async def test_more_than_the_limit_overflows_and_nothing_comes_out_any_more(mailbox: Mailbox) -> None:
    mailbox.put(b"x" * 600)
    mailbox.put(b"x" * 401)
    assert mailbox.overflowed
    await asyncio.wait_for(mailbox.wait_overflow(), 5)
    assert await mailbox.take() == []
    mailbox.put(b"1")
    assert await mailbox.take() == []


async def test_what_was_taken_makes_room(mailbox: Mailbox) -> None:
    for _ in range(10):
        mailbox.put(b'"%s"' % (b"x" * 600))
        await mailbox.take()
    assert not mailbox.overflowed


async def test_quotes_never_overflow(mailbox: Mailbox) -> None:
    for offset in range(10_000):
        mailbox.put_latest("q", {"offset": offset, "filler": "x" * 100}, interval_s=0)
    assert not mailbox.overflowed


async def test_what_waits_of_a_forgotten_channel_does_not_come(mailbox: Mailbox) -> None:
    mailbox.put_latest("q", {"offset": 1}, interval_s=9)
    await take_now(mailbox)
    mailbox.put_latest("q", {"offset": 2}, interval_s=9)
    mailbox.forget("q")
    assert await take_now(mailbox) == []
    mailbox.put_latest("q", {"offset": 3}, interval_s=9)
    assert await take_now(mailbox) == [{"push": {"offset": 3}}]


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Against a model: number and size of the ordered frames; of each channel the newest, count, due time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.mailbox = Mailbox(LIMIT, self.clock)
        self.ordered: list[tuple[int, int]] = []
        self.latest: dict[str, tuple[int, int, float]] = {}
        self.sent_at: dict[str, float] = {}
        self.number = 0

    def teardown(self) -> None:
        self.loop.close()

    @rule(size=st.integers(1, 200))
    def say(self, size: int) -> None:
        if self.mailbox.overflowed:
            return
        self.number += 1
        frame = orjson.dumps([self.number, "x" * size])
        waiting = sum(size for _, size in self.ordered)
        self.mailbox.put(frame)
        if waiting + len(frame) > LIMIT:
            assert self.mailbox.overflowed
        else:
            self.ordered.append((self.number, len(frame)))

    @rule(channel=st.sampled_from("ab"), interval_s=st.sampled_from([0.0, 1.0, 3.0]))
    def tick(self, channel: str, interval_s: float) -> None:
        self.number += 1
        self.mailbox.put_latest(channel, {"channel": channel, "offset": self.number}, interval_s=interval_s)
        if channel in self.latest:
            _, skipped, due_at = self.latest[channel]
            self.latest[channel] = (self.number, skipped + 1, due_at)
        else:
            due_at = max(self.clock.now, self.sent_at.get(channel, 0) + interval_s)
            self.latest[channel] = (self.number, 0, due_at)

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(channel=st.sampled_from("ab"))
    def forget(self, channel: str) -> None:
        self.mailbox.forget(channel)
        self.latest.pop(channel, None)
        self.sent_at.pop(channel, None)

    @rule()
    def take(self) -> None:
        frames = self.loop.run_until_complete(take_now(self.mailbox))
        if self.mailbox.overflowed:
            assert frames == []
            return
        said = [frame[0] for frame in frames if isinstance(frame, list)]
        assert said == [number for number, _ in self.ordered]
        self.ordered.clear()
        pushed = {frame["push"]["channel"]: frame["push"] for frame in frames if isinstance(frame, dict)}
        due = {channel for channel, (_, _, due_at) in self.latest.items() if due_at <= self.clock.now}
        assert pushed.keys() == due
        for channel in due:
            number, skipped, _ = self.latest.pop(channel)
            assert (pushed[channel]["offset"], pushed[channel].get("skipped", 0)) == (number, skipped)
            self.sent_at[channel] = self.clock.now

    @invariant()
    def is_bounded(self) -> None:
        assert sum(size for _, size in self.ordered) <= LIMIT


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

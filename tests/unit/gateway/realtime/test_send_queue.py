"""The queue of one connection: chat in order and whole, quotes conflated, and a bound on both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client import REGISTRY

from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.realtime.send_queue import PIECE_BYTES, SendQueue
from support.doubles.realtime import payload

LIMIT = 1000


class Timer:
    """A loop of nothing but a clock and the calls that wait for it."""

    def __init__(self) -> None:
        self.now = 100.0
        self._calls: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        self._calls.append((when, callback))
        return self

    def cancel(self) -> None:
        self._calls.clear()

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        while due := [call for call in self._calls if call[0] <= self.now]:
            self._calls.remove(due[0])
            due[0][1]()


class Peer:
    """A queue, its clock, and the written frames: offsets of pushes, and ordered frames unchanged."""

    def __init__(self) -> None:
        self.timer = Timer()
        self.written: list[Any] = []
        self.overflows = 0
        self.is_stale = False
        self.is_closed_by_write = False
        self.data: Any = None
        self.queue = SendQueue(
            self._write,
            limit_bytes=LIMIT,
            on_overflow=self._overflow,
            refresh=self._refresh,
            loop=cast(asyncio.AbstractEventLoop, self.timer),
        )

    def _write(self, frame: bytes) -> None:
        if frame[:1] != b"\x81":
            self.written.append(frame)
            return
        push = orjson.loads(payload(frame))["push"]
        skipped = int(push["pub"].get("tags", {}).get("skipped", 0))
        self.written.append((push["channel"], push["pub"]["offset"], skipped))
        self.data = push["pub"]["data"]
        if self.is_closed_by_write:
            self.queue.close()

    def _refresh(self, publication: Publication) -> Publication:
        data = {"stale": True} if self.is_stale else publication.data
        return Publication(publication.channel, publication.position, data)

    def _overflow(self) -> None:
        self.overflows += 1

    def tick(self, offset: int, *, interval_s: float = 0, channel: str = "q") -> None:
        publication = Publication(channel, ChannelPosition("e", offset), {}, time_ms=0)
        self.queue.put_latest(publication, interval_s=interval_s)

    def take(self) -> list[Any]:
        taken, self.written = self.written, []
        return taken


@pytest.fixture
def peer() -> Peer:
    return Peer()


def waiting_bytes() -> float:
    return REGISTRY.get_sample_value("tickwire_realtime_queued_bytes") or 0.0


def test_while_the_peer_reads_everything_is_written_at_once(peer: Peer) -> None:
    peer.queue.put(b"one")
    peer.tick(1)
    peer.queue.put(b"two")
    peer.tick(2)
    assert peer.take() == [b"one", ("q", 1, 0), b"two", ("q", 2, 0)]


def test_a_peer_that_does_not_read_gets_all_chat_and_the_newest_quotes_later(peer: Peer) -> None:
    peer.queue.pause()
    for offset in range(1, 5):
        peer.queue.put(b"%d" % offset)
        peer.tick(offset)
    peer.tick(9, channel="r")
    assert peer.take() == []
    peer.queue.resume()
    assert peer.take() == [b"1234", ("q", 4, 3), ("r", 9, 0)]


def test_very_many_frames_that_have_waited_are_written_in_few_pieces() -> None:
    written: list[bytes] = []
    timer = cast(asyncio.AbstractEventLoop, Timer())
    queue = SendQueue(written.append, limit_bytes=10 * PIECE_BYTES, on_overflow=lambda: None, loop=timer)
    frames = [b"%4d" % number * 40 for number in range(1_000)]
    queue.pause()
    for frame in frames:
        queue.put(frame)
    queue.resume()
    assert b"".join(written) == b"".join(frames)
    assert len(written) <= sum(map(len, frames)) // PIECE_BYTES + 1


def test_the_count_of_the_skipped_starts_again_after_each_push(peer: Peer) -> None:
    for offsets in ((1, 2), (3,), (4, 5, 6)):
        peer.queue.pause()
        for offset in offsets:
            peer.tick(offset)
        peer.queue.resume()
        assert peer.take() == [("q", offsets[-1], len(offsets) - 1)]


def test_an_interval_keeps_quotes_back_until_it_is_over(peer: Peer) -> None:
    peer.tick(1, interval_s=2)
    assert peer.take() == [("q", 1, 0)]
    peer.tick(2, interval_s=2)
    peer.tick(3, interval_s=2)
    peer.timer.pass_by(1.9)
    assert peer.take() == []
    peer.timer.pass_by(0.2)
    assert peer.take() == [("q", 3, 1)]


def test_chat_does_not_wait_for_the_interval_of_a_quote(peer: Peer) -> None:
    peer.tick(1, interval_s=5)
    peer.tick(2, interval_s=5)
    peer.queue.put(b"chat")
    assert peer.take() == [("q", 1, 0), b"chat"]


def test_a_queue_over_its_limit_overflows_once_and_sends_nothing_more(peer: Peer) -> None:
    peer.queue.pause()
    peer.queue.put(b"x" * 600)
    peer.queue.put(b"x" * 401)
    peer.queue.put(b"x")
    peer.tick(1)
    peer.queue.resume()
    assert (peer.overflows, peer.take()) == (1, [])


def test_quotes_never_overflow(peer: Peer) -> None:
    peer.queue.pause()
    for offset in range(10_000):
        peer.tick(offset)
    assert peer.overflows == 0


def test_a_forgotten_channel_sends_nothing_more(peer: Peer) -> None:
    peer.tick(1, interval_s=9)
    peer.tick(2, interval_s=9)
    peer.queue.forget("q")
    peer.timer.pass_by(10)
    assert peer.take() == [("q", 1, 0)]


def test_a_queue_that_its_own_write_closes_sends_nothing_more(peer: Peer) -> None:
    peer.queue.pause()
    peer.tick(1, channel="a")
    peer.tick(2, channel="b")
    peer.is_closed_by_write = True
    peer.queue.resume()
    assert peer.take() == [("a", 1, 0)]


def test_a_quote_that_has_waited_is_sent_with_its_present_freshness(peer: Peer) -> None:
    peer.queue.pause()
    peer.tick(1)
    peer.is_stale = True
    peer.queue.resume()
    assert (peer.take(), peer.data) == ([("q", 1, 0)], {"stale": True})


def test_bytes_are_counted_while_they_wait_and_no_longer(peer: Peer) -> None:
    before = waiting_bytes()
    peer.queue.pause()
    peer.queue.put(b"x" * 300)
    assert waiting_bytes() - before == 300
    seconds = REGISTRY.get_sample_value("tickwire_realtime_queue_seconds_sum") or 0.0
    peer.timer.now += 2.5
    peer.queue.resume()
    assert waiting_bytes() == before
    assert REGISTRY.get_sample_value("tickwire_realtime_queue_seconds_sum") == pytest.approx(seconds + 2.5)
    peer.queue.pause()
    peer.queue.put(b"x" * 300)
    peer.queue.close()
    peer.queue.put(b"x" * 10)
    assert waiting_bytes() == before


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Against a model: the ordered frames that wait; of each channel the newest, count and due time."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = Peer()
        self.is_paused = False
        self.ordered: list[bytes] = []
        self.latest: dict[str, tuple[int, int, float]] = {}
        self.sent_at: dict[str, float] = {}
        self.number = 0

    @rule(size=st.integers(1, 200))
    def say(self, size: int) -> None:
        self.number += 1
        frame = b"%d" % self.number + b"x" * size
        is_over = self.is_paused and sum(map(len, self.ordered)) + len(frame) > LIMIT
        self.peer.queue.put(frame)
        if is_over:
            assert self.peer.overflows == 1
            self.__init__()  # type: ignore[misc]
        elif self.is_paused:
            self.ordered.append(frame)
        else:
            assert self.peer.take() == [frame]

    @rule(channel=st.sampled_from("ab"))
    def tick(self, channel: str) -> None:
        self.number += 1
        interval_s = 2.0 if channel == "a" else 0.0
        self.peer.tick(self.number, channel=channel, interval_s=interval_s)
        if channel in self.latest:
            _, skipped, due_at = self.latest[channel]
            self.latest[channel] = (self.number, skipped + 1, due_at)
        else:
            due_at = self.sent_at.get(channel, 0.0) + interval_s
            self.latest[channel] = (self.number, 0, due_at)
        self.compare()

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.peer.timer.pass_by(seconds)
        self.compare()

    @rule()
    def pause(self) -> None:
        self.peer.queue.pause()
        self.is_paused = True

    @rule()
    def resume(self) -> None:
        self.peer.queue.resume()
        self.is_paused = False
        said = [one for one in self.peer.written if isinstance(one, bytes)]
        assert b"".join(said) == b"".join(self.ordered)
        self.peer.written = self.peer.written[len(said) :]
        self.ordered = []
        self.compare()

    def compare(self) -> None:
        """Assert that everything due was written, if the peer reads."""
        taken = {channel: (offset, skipped) for channel, offset, skipped in self.peer.take()}
        now = self.peer.timer.now
        due = {} if self.is_paused else {c: one for c, one in self.latest.items() if one[2] <= now}
        assert taken == {channel: (number, skipped) for channel, (number, skipped, _) in due.items()}
        for channel in due:
            del self.latest[channel]
            self.sent_at[channel] = now

    @invariant()
    def is_bounded(self) -> None:
        assert sum(map(len, self.ordered)) <= LIMIT


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

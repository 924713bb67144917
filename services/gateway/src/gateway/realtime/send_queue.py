"""The frames that wait for one connection: bounded, ordered, and conflated where a channel allows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from chassis import metrics
from gateway.publishing.publications import Publication

_MOST_PLACES = 10
# Of frames that have waited, written in one piece: each write is a call of the system.
PIECE_BYTES = 32 * 1024


@dataclass(slots=True)
class _Latest:
    """The newest publication of a conflated channel, or of a part of it, and how many it replaced."""

    publication: Publication
    skipped: int
    due_at: float


class SendQueue:
    """Writes frames at once while the client reads, and queues them while it does not.

    Ordered frames (replies, chat) are never dropped: when more than `limit_bytes` of them wait,
    `on_overflow` is called and further frames are ignored. A conflated channel has one place; a newer
    publication takes it, with the number of replaced ones in its tags, so ticks never displace chat. If the
    newer publication does not replace the older one (a bar of the next minute), both wait in order; beyond
    `_MOST_PLACES` the oldest is dropped.

    `on_size` is called with the number of bytes of ordered frames that wait, whenever it has changed.
    """

    __slots__ = (
        "_bytes",
        "_change",
        "_is_closed",
        "_is_paused",
        "_latest",
        "_limit_bytes",
        "_loop",
        "_on_overflow",
        "_ordered",
        "_refresh",
        "_sent_at",
        "_timer",
        "_waiting_since",
        "_write",
        "on_size",
    )

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        limit_bytes: int,
        on_overflow: Callable[[], None],
        refresh: Callable[[Publication], Publication] = lambda publication: publication,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._write = write
        self._limit_bytes = limit_bytes
        self._on_overflow = on_overflow
        # A publication may become stale while it waits, so its freshness is computed when it is sent.
        self._refresh = refresh
        self._loop = loop or asyncio.get_running_loop()
        self.on_size: Callable[[int], None] = lambda _: None
        self._is_paused = False
        self._is_closed = False
        self._ordered: deque[bytes] = deque()
        self._bytes = 0
        self._waiting_since = 0.0
        self._latest: dict[str, deque[_Latest]] = {}
        self._sent_at: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        # For those who wait until more fits.
        self._change: asyncio.Future[None] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether the client has not read everything that was sent."""
        return self._is_paused

    async def until_fits(self, size: int) -> None:
        """Wait until `size` more bytes fit, nothing waits any more, or the queue is closed."""
        while self._is_paused and not self._is_closed and self._bytes + size > self._limit_bytes:
            if self._change is None:
                self._change = self._loop.create_future()
            await asyncio.shield(self._change)

    def put(self, frame: bytes) -> None:
        """Send an ordered frame after those that wait."""
        if not self._is_paused and not self._ordered:
            if not self._is_closed:
                self._write(frame)
            return
        if self._is_closed:
            return
        if self._bytes + len(frame) > self._limit_bytes:
            self.close()
            self._on_overflow()
            return
        if not self._ordered:
            self._waiting_since = self._loop.time()
        self._ordered.append(frame)
        self._bytes += len(frame)
        metrics.QUEUED_BYTES.inc(len(frame))
        self.on_size(self._bytes)

    def put_latest(self, publication: Publication, *, interval_s: float) -> None:
        """Send the newest publication of a conflated channel, at most one every `interval_s` seconds."""
        if self._is_closed:
            return
        channel = publication.channel
        waiting = self._latest.get(channel)
        if waiting:
            newest = waiting[-1]
            if newest.publication.replaces == publication.replaces:
                newest.publication = publication
                newest.skipped += 1 + publication.skipped
                metrics.CONFLATED.inc()
                return
            waiting.append(_Latest(publication, publication.skipped, newest.due_at))
            if len(waiting) > _MOST_PLACES:
                given_up = waiting.popleft()
                waiting[0].skipped += given_up.skipped + 1
                metrics.CONFLATED.inc()
            return
        now = self._loop.time() if interval_s else 0.0
        due_at = self._sent_at.get(channel, 0.0) + interval_s if interval_s else 0.0
        if due_at <= now and not self._is_paused:
            if interval_s:
                self._sent_at[channel] = now
            self._write(publication.frame())
            return
        self._latest[channel] = deque([_Latest(publication, publication.skipped, due_at)])
        self._schedule()

    def pause(self) -> None:
        """Queue further frames: the client reads more slowly than the gateway writes."""
        self._is_paused = True

    def resume(self) -> None:
        """Send the queued frames: the client reads again."""
        self._is_paused = False
        if self._ordered:
            metrics.QUEUE_SECONDS.observe(max(0.0, self._loop.time() - self._waiting_since))
        while self._ordered and not self._is_paused:
            piece = bytearray()
            while self._ordered and len(piece) < PIECE_BYTES:
                piece += self._ordered.popleft()
            self._bytes -= len(piece)
            metrics.QUEUED_BYTES.dec(len(piece))
            self._write(bytes(piece))
        self.on_size(self._bytes)
        self._tell_change()
        self._send_due()

    def forget(self, channel: str) -> None:
        """Drop the queued publications of a conflated channel."""
        self._latest.pop(channel, None)
        self._sent_at.pop(channel, None)

    def close(self) -> None:
        """Accept no more frames and drop the queued ones: the connection has ended."""
        self._is_closed = True
        self._ordered.clear()
        metrics.QUEUED_BYTES.dec(self._bytes)
        self._bytes = 0
        self.on_size(0)
        self._tell_change()
        self._latest.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell_change(self) -> None:
        if self._change is not None:
            self._change.set_result(None)
            self._change = None

    def _schedule(self) -> None:
        if self._timer is not None or self._is_paused or not self._latest:
            return
        next_due = min(waiting[0].due_at for waiting in self._latest.values())
        self._timer = self._loop.call_at(next_due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._send_due()

    def _send_due(self) -> None:
        now = self._loop.time()
        due = [channel for channel, waiting in self._latest.items() if waiting[0].due_at <= now]
        for channel in due:
            waiting = self._latest[channel]
            while waiting:
                if self._is_paused or self._is_closed:
                    return
                latest = waiting.popleft()
                self._write(self._refresh(latest.publication).frame_after(latest.skipped))
            if self._is_closed:
                # By its own write: everything that waited was dropped.
                return
            del self._latest[channel]
            self._sent_at[channel] = now
        self._schedule()

"""What waits to be sent to one connection: bounded, in order, with the newest value of each quote only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from chassis import metrics


@dataclass(slots=True)
class _Latest:
    """The newest publication of a conflated channel, and how many it replaced."""

    frame: dict[str, Any]
    skipped: int
    due_at: float


class Mailbox:
    """Frames for one connection.

    Ordered frames (replies, chat) are never dropped: when more than `limit_bytes` of them wait, the
    mailbox overflows and the connection must be closed. Conflated frames take one place per channel; a
    newer one overwrites, and says in `skipped` how many it replaced.
    """

    def __init__(self, limit_bytes: int, clock: Callable[[], float]) -> None:
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._ordered: deque[bytes] = deque()
        self._bytes = 0
        self._waiting_since = 0.0
        self._latest: dict[str, _Latest] = {}
        self._sent_at: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._overflow = asyncio.Event()

    @property
    def overflowed(self) -> bool:
        """Whether a frame had no place: from then on nothing comes out any more."""
        return self._overflow.is_set()

    async def wait_overflow(self) -> None:
        """Wait until a frame has no place."""
        await self._overflow.wait()

    def put(self, frame: bytes) -> None:
        """Add an ordered frame."""
        if self.overflowed or self._bytes + len(frame) > self._limit_bytes:
            self.close()
        else:
            if not self._ordered:
                self._waiting_since = self._clock()
            self._ordered.append(frame)
            self._bytes += len(frame)
            metrics.QUEUED_BYTES.inc(len(frame))
        self._wake.set()

    def put_latest(self, channel: str, frame: dict[str, Any], *, interval_s: float) -> None:
        """Set the newest frame of `channel`, sent at most every `interval_s` seconds."""
        waiting = self._latest.get(channel)
        if waiting is None:
            due_at = max(self._clock(), self._sent_at.get(channel, 0.0) + interval_s)
            self._latest[channel] = _Latest(frame, 0, due_at)
        else:
            waiting.frame = frame
            waiting.skipped += 1
            metrics.CONFLATED.inc()
        self._wake.set()

    def close(self) -> None:
        """Take nothing any more and drop what waits in order: the connection is at its end."""
        self._overflow.set()
        self._clear()

    def _clear(self) -> None:
        self._ordered.clear()
        metrics.QUEUED_BYTES.dec(self._bytes)
        self._bytes = 0

    def forget(self, channel: str) -> None:
        """Drop what waits of a conflated channel."""
        self._latest.pop(channel, None)
        self._sent_at.pop(channel, None)

    async def take(self) -> list[bytes]:
        """Wait until something may be sent and take it all; nothing once it has overflowed."""
        while not self.overflowed:
            self._wake.clear()
            frames = self._take_ordered() + self._take_due()
            if frames:
                return frames
            await self._wait()
        return []

    def _take_ordered(self) -> list[bytes]:
        if not self._ordered:
            return []
        frames = list(self._ordered)
        metrics.QUEUE_SECONDS.observe(max(0.0, self._clock() - self._waiting_since))
        self._clear()
        return frames

    def _take_due(self) -> list[bytes]:
        now = self._clock()
        due = [channel for channel, latest in self._latest.items() if latest.due_at <= now]
        frames = []
        for channel in due:
            latest = self._latest.pop(channel)
            self._sent_at[channel] = now
            frame = {**latest.frame, "skipped": latest.skipped} if latest.skipped else latest.frame
            frames.append(orjson.dumps({"push": frame}))
        return frames

    async def _wait(self) -> None:
        next_due = min((latest.due_at for latest in self._latest.values()), default=None)
        timeout = None if next_due is None else max(0.0, next_due - self._clock())
        try:
            await asyncio.wait_for(self._wake.wait(), timeout)
        except TimeoutError:
            return

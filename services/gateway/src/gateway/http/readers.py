"""Clients that read their answers: which one gives way when an owner that has none finds no room."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from chassis.errors import Overloaded
from chassis.http1.refusals import AnswerCut

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

# What a client may take for an answer: so long, and in addition its size at this rate, as for an upload.
GRACE_S = 30.0
BYTES_A_SECOND = 300 * 1024


class Reader:
    """The client of one answer, and how much of it the client has taken in how much time.

    Only time in which the gateway waits for the client counts, not that in which the answer is made.
    """

    def __init__(
        self, owner_id: str, send: Send, *, clock: Callable[[], float], cut: asyncio.Timeout
    ) -> None:
        self.owner_id = owner_id
        self.room = ExitStack()
        self.began = clock()
        self._send = send
        self._clock = clock
        self._cut = cut
        self._sent = 0
        self._waited_s = 0.0
        self._waits_since: float | None = None

    async def send(self, message: Message) -> None:
        """Send a part of the answer, and note how long the client takes."""
        self._waits_since = self._clock()
        try:
            await self._send(message)
        finally:
            self._waited_s += self._clock() - self._waits_since
            self._waits_since = None
        self._sent += len(message.get("body", b""))

    @property
    def waited_s(self) -> float:
        """The seconds for which the gateway has waited for the client."""
        waits_s = 0.0 if self._waits_since is None else self._clock() - self._waits_since
        return self._waited_s + waits_s

    @property
    def late_s(self) -> float:
        """The seconds by which the client is late; negative while it is fast enough."""
        return self.waited_s - GRACE_S - self._sent / BYTES_A_SECOND

    def give_way(self) -> None:
        """Leave the room at once, and end the answer."""
        self.room.close()
        self._cut.reschedule(0)


class Readers:
    """The clients that share one kind of room.

    An owner that has no answer on its way and finds no room gets that of another answer: of the one that is
    most seconds late; if none is late, of one that has lasted for `GRACE_S`, of the owner with the most.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._readers: set[Reader] = set()

    @contextlib.asynccontextmanager
    async def reading(
        self, owner_id: str, send: Send, hold: Callable[[], AbstractContextManager[None]]
    ) -> AsyncIterator[Send]:
        """Hold room while the block sends an answer with the function that it gets.

        Raise what `hold` raises when there is no room, and `AnswerCut` when the answer has to give way.
        """
        try:
            async with asyncio.timeout(None) as cut:
                reader = Reader(owner_id, send, clock=self._clock, cut=cut)
                with reader.room:
                    self._admit(reader, hold)
                    yield reader.send
        except TimeoutError:
            if not cut.expired():
                raise
            raise AnswerCut(
                "slow_reader",
                f"The answer gave way to another owner's after {reader.waited_s:.0f} s of waiting for its"
                " client; read faster, or read fewer answers at once.",
                retry_after_s=1,
            ) from None

    def _admit(self, reader: Reader, hold: Callable[[], AbstractContextManager[None]]) -> None:
        while True:
            try:
                reader.room.enter_context(hold())
            except Overloaded:
                if not self.evict_one():
                    raise
            else:
                self._readers.add(reader)
                reader.room.callback(self._readers.discard, reader)
                return

    def evict_one(self) -> bool:
        """End the answer that has to give way; return whether there is one."""
        counts = Counter(reader.owner_id for reader in self._readers)
        late = [reader for reader in self._readers if reader.late_s > 0]
        old = [reader for reader in self._readers if self._clock() - reader.began > GRACE_S]
        several = [reader for reader in old if counts[reader.owner_id] > 1]
        if late:
            last = max(late, key=lambda reader: reader.late_s)
        elif several:
            last = max(several, key=lambda reader: (counts[reader.owner_id], reader.late_s))
        else:
            return False
        last.give_way()
        return True

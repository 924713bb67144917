"""Server-sent events of channels: the newest publication of each channel, as fast as the client reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from chassis import metrics
from chassis.loop_turns import USUAL_WEIGHT, LoopTurns
from chassis.waits import until_set
from gateway.publishing.hub import Hub
from gateway.publishing.positions import Handover
from gateway.publishing.publications import Publication, event_id
from gateway.realtime.access import Access
from gateway.realtime.channels import Channel
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.connections import Connections

SILENCE_S = 15.0
# The state may have changed between the first read and the first push.
FIRST_SILENCE_S = 0.5
_COMMENT = b": still here\n\n"

Look = Callable[[], Awaitable[Sequence[Publication]]]


class EventStream:
    """One reader of `channels`, from their state until a publication `is_last` or a right is lost.

    `look` reads the state at the beginning, and `look_again` after a silence.
    """

    def __init__(
        self,
        access: Access,
        channels: Sequence[Channel],
        look: Look,
        *,
        name: str,
        last_event_id: str | None = None,
        look_again: Look | None = None,
        is_last: Callable[[Any], bool] = lambda _: False,
    ) -> None:
        self.access: Access | None = access
        self._owner = access.principal.owner_id
        self._channels = channels
        self._look = look
        self._name = name
        self._last_event_id = last_event_id
        self._look_again = look_again
        self._is_last = is_last
        self._handovers: dict[str, Handover[Publication]] = {}
        self._waiting: dict[str, Publication] = {}
        self._is_filled = asyncio.Event()
        self._turns: LoopTurns | None = None
        # Whether a turn in which this stream wakes is on its way.
        self._is_due = False
        self._is_over = False

    def tick(self, now: float) -> None:  # noqa: ARG002 - the protocol of `Connections`
        """End the stream when its token has expired."""
        if self.access is not None and self.access.expires_at is not None:
            self._is_over = self._is_over or time.time() >= self.access.expires_at
            if self._is_over:
                self._is_filled.set()

    def change_access(self, access: Access | None) -> None:
        """Apply the current rights; if a required one is missing, end the stream."""
        self.access = access
        if access is None or not all(access.may(one.kind.read, str(one)) for one in self._channels):
            self._is_over = True
            self._is_filled.set()

    async def events(
        self, hub: Hub, connections: Connections, limit: ConnectionLimit
    ) -> AsyncGenerator[bytes, None]:
        """Yield an empty part once the stream has a place among the connections, and then its events.

        The id of an event is its position, `<epoch>:<offset>`; the last seen event is omitted. Pushes are
        transient, so the stored state is read again after a silence. Raise in the first step `TooManyAtOnce`
        or `Overloaded` if there is no place for it or for its subscriptions, and what `look` raises. The
        streams of an owner take its turns at the event loop.
        """
        self._turns = hub.turns
        async with AsyncExitStack() as stack:
            stack.callback(limit.take(self._owner))
            metrics.SOCKETS.labels("sse").inc()
            stack.callback(metrics.SOCKETS.labels("sse").dec)
            connections.add(self)
            stack.callback(connections.remove, self)
            await hub.turns.take(self._owner, weight=USUAL_WEIGHT + len(self._channels))
            for channel in map(str, self._channels):
                self._handovers[channel] = Handover(is_ordered=False)
                stack.callback(hub.listen(channel, self._offer, owner=self._owner))
            newest: dict[str, Publication] = {}
            for publication in await self._look():
                held = self._handovers[publication.channel].begin(publication.position)
                newest[publication.channel] = held[-1] if held else publication
            yield b""
            pending, silence_s = list(newest.values()), FIRST_SILENCE_S
            while not self._is_over:
                # A state with the offset 0 has no place among the publications: it may be new to the reader.
                unseen = [
                    one
                    for one in pending
                    if not one.position.offset or event_id(one.position) != self._last_event_id
                ]
                for publication in unseen:
                    yield publication.event(self._name)
                if any(self._is_last(publication.data) for publication in pending):
                    return
                self._last_event_id = None
                # Very many streams of one owner may fall silent together, or have readers that read on.
                was_filled = self._is_filled.is_set()
                if was_filled or not await until_set(self._is_filled, silence_s):
                    await hub.turns.take(self._owner, weight=self._weight)
                self._is_filled.clear()
                pending, self._waiting = list(self._waiting.values()), {}
                if not pending:
                    yield _COMMENT
                    again = await self._look_again() if self._look_again else []
                    pending = [one for one in again if self._handovers[one.channel].renew(one)]
                silence_s = SILENCE_S

    def _offer(self, publication: Publication) -> None:
        handover = self._handovers[publication.channel]
        if handover.renew(publication) if publication.is_state else handover.offer(publication):
            self._waiting[publication.channel] = publication
            # Waking takes longer than all of this, and very many streams may have something to send at once.
            if self._turns is not None and not self._is_due and not self._is_filled.is_set():
                self._is_due = True
                self._turns.run(self._owner, self._wake, weight=self._weight)

    def _wake(self) -> None:
        self._is_due = False
        # Unless a silence was over first, and what waited has been sent.
        if self._waiting:
            self._is_filled.set()

    @property
    def _weight(self) -> int:
        return USUAL_WEIGHT + 2 * len(self._waiting)

"""Settling of messages: acknowledged, acknowledged after their copy is confirmed, or returned."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from aiormq.channel import Channel
from prometheus_client import Counter

from chassis import logging, metrics, redaction
from chassis.broker import bundles
from chassis.broker.envelope import Outgoing
from chassis.broker.incoming import Incoming
from chassis.broker.publisher import Publisher
from chassis.broker.rabbitmq import AWAY, Link
from chassis.errors import Unavailable
from chassis.waits import until_set

log = logging.get(__name__)

# With a dead connection the short write queue fills up and is never emptied.
_ACK_TIMEOUT_S = 5
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0


class Settler:
    """Settles the messages of one queue over its current channel.

    A message whose copy the broker does not confirm stays unacknowledged until it does. If it were returned,
    the broker would redeliver it at once, and park it after too many deliveries. `types` are the message
    types that may be labels of metrics.
    """

    def __init__(self, queue: str, publisher: Publisher, *, service: str, types: Collection[str]) -> None:
        self._queue = queue
        self._service = service
        self._publisher = publisher
        self._types = {*types, bundles.MESSAGE_TYPE}
        self._link: Link | None = None
        self._channel: Channel | None = None
        self._moving: set[asyncio.Task[None]] = set()
        self._attempts = metrics.MESSAGE_ATTEMPTS.labels(queue)
        self._counters: dict[tuple[str, str], Counter] = {}
        self._stopping = asyncio.Event()

    def attach(self, link: Link, channel: Channel) -> None:
        """Settle over a new channel from now on."""
        self._link, self._channel = link, channel

    def lost(self) -> None:
        """Forget the channel: messages that came over it can no longer be settled."""
        self._channel = None

    @property
    def is_idle(self) -> bool:
        """Return whether no copy is waiting for its confirm."""
        return not self._moving

    def stop(self) -> None:
        """Stop waiting for confirms: messages without a confirmed copy go back to their queue."""
        self._stopping.set()

    async def open(self, incoming: Incoming, *, is_again: bool) -> list[Incoming]:
        """Return the messages to handle: the parts of a bundle, or the message itself.

        One part of a redelivered bundle may have crashed the process: replace the bundle by its parts, each
        alone, and return none. Raise `Undecodable` for a bundle that cannot be read.
        """
        parts = incoming.parts()
        if parts == [incoming] or not is_again:
            return parts
        copies = [part.alone(self._service, self._queue) for part in parts]
        await self.move(incoming, copies, "separate")
        return []

    async def acknowledge(
        self, incoming: Incoming, outcome: str = "ack", *, types: Mapping[str, int] | None = None
    ) -> None:
        """Acknowledge the message: it is handled. `types` counts its parts of each type, if any."""
        try:
            await self._settle(incoming)
        except AWAY as error:
            # The broker will deliver it again, and the inbox will drop it.
            log.debug(
                "message could not be acknowledged", queue=self._queue, reason=redaction.safe_message(error)
            )
            outcome = "lost-channel"
            self._break(incoming)
        for message_type, count in (types or {incoming.message_type: 1}).items():
            self._count(message_type, outcome, count)
        if outcome in ("ack", "park"):
            self._attempts.observe(incoming.attempt)

    async def move(self, incoming: Incoming, copies: Sequence[Outgoing], outcome: str) -> None:
        """Acknowledge once the broker has confirmed `copies`; return without waiting if that takes longer."""
        if await self._is_published(copies):
            await self.acknowledge(incoming, outcome)
            return

        def moved(task: asyncio.Task[None]) -> None:
            self._moving.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                log.error("message could not be settled", queue=self._queue, exc_info=error)
                if self._link is not None:
                    self._link.interrupt()

        # In the background, so that the worker's other messages need not wait.
        task = asyncio.create_task(self._move_later(incoming, copies, outcome))
        self._moving.add(task)
        task.add_done_callback(moved)

    async def move_together(self, parts: Sequence[Incoming], queue: str, outcome: str) -> bool:
        """Acknowledge `parts` of one message once the broker has confirmed their copy in `queue`.

        Return whether it has: otherwise they are not settled.
        """
        copy = bundles.wrap([part.alone(self._service, queue) for part in parts])
        if not await self._is_published([copy]):
            return False
        for part in parts:
            await self.acknowledge(part, outcome)
        return True

    async def move_whole(
        self, bundle: Incoming, queue: str, outcome: str, *, types: Mapping[str, int]
    ) -> bool:
        """Acknowledge a bundle with so many parts of each type once the broker has confirmed it in `queue`.

        Return whether it has: otherwise it is not settled.
        """
        if not await self._is_published([bundle.alone(self._service, queue)]):
            return False
        await self.acknowledge(bundle, outcome, types=types)
        return True

    async def give_back(self, incoming: Incoming, *, has_failed: bool = False) -> None:
        """Return the message to its queue; the broker parks one that `has_failed` after some redeliveries."""
        try:
            await self._settle(incoming, comes_again=True, has_failed=has_failed)
        except AWAY as error:
            log.debug(
                "message could not be returned to its queue",
                queue=self._queue,
                reason=redaction.safe_message(error),
            )
            self._break(incoming)
        self._count(incoming.message_type, "requeue")

    async def _move_later(self, incoming: Incoming, copies: Sequence[Outgoing], outcome: str) -> None:
        pause_s = _FIRST_PAUSE_S
        while incoming.channel is self._channel:
            if await until_set(self._stopping, pause_s) or incoming.channel is not self._channel:
                break
            if await self._is_published(copies):
                await self.acknowledge(incoming, outcome)
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        if incoming.channel is self._channel:
            await self.give_back(incoming)
        else:
            # The broker has taken it back with its channel.
            self._count(incoming.message_type, "lost-channel")

    async def _settle(
        self, incoming: Incoming, *, comes_again: bool = False, has_failed: bool = False
    ) -> None:
        """Settle the message at the broker, or its bundle once the last part is settled.

        When one part must be redelivered, all are: the inbox drops those that were handled.
        """
        if incoming.bundled is not None:
            bundled = incoming.bundled
            bundled.unsettled -= 1
            bundled.comes_again |= comes_again
            bundled.has_failed |= has_failed
            if bundled.unsettled:
                return
            comes_again, has_failed = bundled.comes_again, bundled.has_failed
        async with asyncio.timeout(_ACK_TIMEOUT_S):
            if has_failed:
                await incoming.channel.basic_reject(incoming.tag, requeue=True, wait=False)
            elif comes_again:
                await incoming.channel.basic_nack(incoming.tag, requeue=True, wait=False)
            else:
                await incoming.channel.basic_ack(incoming.tag, wait=False)

    async def _is_published(self, copies: Sequence[Outgoing]) -> bool:
        try:
            for copy in copies:
                await self._publisher.publish(copy)
        except Unavailable as error:
            log.warning(
                "copy not confirmed, message stays unacknowledged", queue=self._queue, reason=error.detail
            )
            return False
        return True

    def _count(self, message_type: str, outcome: str, count: int = 1) -> None:
        known = message_type if message_type in self._types else "unknown"
        counter = self._counters.get((known, outcome))
        if counter is None:
            # `labels` takes longer than the counting.
            counter = metrics.CONSUMED.labels(self._queue, known, outcome)
            self._counters[known, outcome] = counter
        counter.inc(count)

    def _break(self, incoming: Incoming) -> None:
        """Reconnect when a message of the current channel cannot be settled, since it would stay there."""
        if self._link is not None and incoming.channel is self._channel:
            self._link.interrupt()

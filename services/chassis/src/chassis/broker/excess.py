"""What an owner has too much of in one queue, and the queue to which it goes on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from chassis.broker import bundles
from chassis.broker.arrivals import Arrivals, owner_of
from chassis.broker.bundles import BrokenBundle
from chassis.broker.incoming import Incoming
from chassis.waits import until_set
from contracts.message import Command, Message

# Some are always on their way while an owner sends more than is handled; only of masses this many are.
_MANY = 500


class WholeExcess(NamedTuple):
    """A bundle that is nothing but excess: the queue to which it goes on, and how many parts of each type."""

    queue: str
    types: Counter[str]


class ExcessTraffic:
    """The messages of a process that are on their way to an excess queue.

    While they are many, its consumers handle only what an owner has few of: the commands of others are behind
    these messages in the queue, and come the sooner the more of the processor is left for moving.
    """

    def __init__(self, *, longest_wait_s: float = 1.0) -> None:
        self._longest_wait_s = longest_wait_s
        self._count = 0
        self._changed = asyncio.Event()

    @contextmanager
    def moving(self, count: int) -> Iterator[None]:
        """Count the messages that the block moves."""
        self._count += count
        try:
            yield
        finally:
            self._count -= count
            self.notice()

    def notice(self) -> None:
        """Let those who wait see whether they still have to."""
        self._changed.set()

    async def wait(self, *, is_urgent: Callable[[], bool]) -> None:
        """Wait until few messages are on their way or `is_urgent`, but not for long.

        If more and more came without end, all would be handled, however slowly.
        """
        end = time.monotonic() + self._longest_wait_s
        while self._count >= _MANY and not is_urgent() and (left_s := end - time.monotonic()) > 0:
            self._changed.clear()
            await until_set(self._changed, left_s)


class Excess:
    """Says what goes on to another queue, because `most` messages of its owner have `arrived` and wait.

    `contracts` are those of the types of messages that are handled. If `most` is None, everything stays.
    """

    def __init__(
        self, arrived: Arrivals, contracts: Mapping[str, type[Message]], *, most: int | None
    ) -> None:
        self._arrived = arrived
        self._queues = {
            message_type: contract.excess_queue
            for message_type, contract in contracts.items()
            if most is not None and issubclass(contract, Command)
        }
        self._most = most

    def queue_of(self, message_type: str, owner_id: str) -> str | None:
        """Return the queue to which a message goes on; None if it stays."""
        queue = self._queues.get(message_type)
        has_room = self._most is None or self._arrived.count_of(owner_id) < self._most
        return None if has_room else queue

    def is_urgent(self) -> bool:
        """Return whether an owner waits here who is far from having too much."""
        most = self._most
        return most is not None and any(
            self._arrived.count_of(owner_id) < most / 2 for owner_id in self._arrived.owners
        )

    def of_all(self, incoming: Incoming) -> WholeExcess | None:
        """Return where a bundle goes on as it is, if each part of it goes there.

        Only the descriptions of the parts are read: while masses arrive, the commands of others come as fast
        as these go on.
        """
        if not self._queues or incoming.message_type != bundles.MESSAGE_TYPE:
            return None
        try:
            parts = bundles.contents(incoming.body)
        except BrokenBundle:
            return None
        kinds = {(part.message_type, owner_of(part.headers)) for part in parts}
        queue, *others = {self.queue_of(*kind) for kind in kinds}
        if queue is None or others:
            return None
        return WholeExcess(queue, Counter(part.message_type for part in parts))

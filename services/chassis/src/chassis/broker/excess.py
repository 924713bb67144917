"""What an owner has too much of in one queue, and the queue to which it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from chassis.broker import bundles
from chassis.broker.arrivals import Arrivals, owner_of
from chassis.broker.bundles import BrokenBundle
from chassis.broker.incoming import Incoming
from contracts.message import Command, Message


class WholeExcess(NamedTuple):
    """A bundle that is nothing but excess: the queue to which it goes on, and the types of its parts."""

    queue: str
    types: list[str]


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
        self._most = most or 0

    def queue_of(self, message_type: str, owner_id: str) -> str | None:
        """Return the queue to which a message goes on; None if it stays."""
        queue = self._queues.get(message_type)
        return queue if queue and self._arrived.count_of(owner_id) >= self._most else None

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
        return WholeExcess(queue, [part.message_type for part in parts])

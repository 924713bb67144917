"""Messages that have arrived and wait to be handled."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from chassis.broker.envelope import text
from chassis.broker.incoming import Incoming
from contracts import headers as names


class Arrivals(asyncio.Queue[Incoming]):
    """A queue in which owners take turns, a message each; those of one owner keep their order.

    What is prefetched of one owner may take long to handle: the others' messages come between.
    """

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - it has no limit: the broker counts what it sends
        # The owner whose turn is next comes first. Messages without an owner are those of the services.
        self._owners: OrderedDict[str, deque[Incoming]] = OrderedDict()

    def _put(self, item: Incoming) -> None:
        self._owners.setdefault(text(item.headers, names.TENANT) or "", deque()).append(item)

    def _get(self) -> Incoming:
        owner_id, own = next(iter(self._owners.items()))
        item = own.popleft()
        if own:
            self._owners.move_to_end(owner_id)
        else:
            del self._owners[owner_id]
        return item

    def count_of(self, item: Incoming) -> int:
        """Return how many messages of the owner of `item` wait."""
        return len(self._owners.get(text(item.headers, names.TENANT) or "", ()))

    def qsize(self) -> int:
        """Return the number of messages."""
        return sum(map(len, self._owners.values()))

    def empty(self) -> bool:
        """Return whether there are no messages."""
        return not self._owners

"""Messages that have arrived and wait to be handled."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any

from chassis.broker.envelope import text
from chassis.broker.incoming import Incoming
from contracts import headers as names


def owner_of(headers: Mapping[str, Any]) -> str:
    """Return the owner of a message with these headers; empty for messages of the services."""
    return text(headers, names.TENANT) or ""


class Arrivals(asyncio.Queue[Incoming]):
    """A queue in which owners take turns, a message each; those of one owner keep their order.

    What is prefetched of one owner may take long to handle: the others' messages come between.
    """

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - it has no limit: the broker counts what it sends
        # The owner whose turn is next comes first.
        self._owners: OrderedDict[str, deque[Incoming]] = OrderedDict()

    def _put(self, item: Incoming) -> None:
        self._owners.setdefault(owner_of(item.headers), deque()).append(item)

    def _get(self) -> Incoming:
        owner_id, own = next(iter(self._owners.items()))
        item = own.popleft()
        if own:
            self._owners.move_to_end(owner_id)
        else:
            del self._owners[owner_id]
        return item

    @property
    def owners(self) -> Iterable[str]:
        """The owners of whom messages wait."""
        return self._owners

    def count_of(self, owner_id: str) -> int:
        """Return how many messages of an owner wait."""
        return len(self._owners.get(owner_id, ()))

    def qsize(self) -> int:
        """Return the number of messages."""
        return sum(map(len, self._owners.values()))

    def empty(self) -> bool:
        """Return whether there are no messages."""
        return not self._owners

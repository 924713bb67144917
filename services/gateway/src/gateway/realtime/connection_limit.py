"""How many WebSocket and SSE connections there may be: in all, of one owner, and of strangers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from chassis import metrics
from chassis.errors import Overloaded

_RETRY_AFTER_S = 5.0


@dataclass(frozen=True)
class Bounds:
    """The most connections: `total` of known callers, of which one owner may have `per_owner`.

    Strangers, who have not said who they are, have a pool of their own, of which one address may have
    `strangers_per_address`: they take no place of a known caller.
    """

    total: int
    per_owner: int
    strangers: int
    strangers_per_address: int

    @classmethod
    def of(cls, total: int, strangers: int) -> Bounds:
        """Return the bounds with the shares of one owner and of one address."""
        return cls(total, max(1, total // 2), strangers, max(1, strangers // 8))


class Place:
    """The place of one connection; it starts among the strangers and is given back once."""

    def __init__(self, limit: ConnectionLimit, address: str, transport: str) -> None:
        self._limit = limit
        self._address = address
        self._transport = transport
        self._owner: str | None = None
        self._is_held = True

    def admit(self, owner: str) -> None:
        """Move to the places of known callers. Raises `Overloaded` when there is none."""
        if self._owner is None and self._is_held:
            self._limit.require_room(owner)
            self._limit.owners[owner] += 1
            _count_down(self._limit.strangers, self._address)
            self._owner = owner

    def give_back(self) -> None:
        """Leave; doing it again changes nothing."""
        if not self._is_held:
            return
        self._is_held = False
        if self._owner is None:
            _count_down(self._limit.strangers, self._address)
        else:
            _count_down(self._limit.owners, self._owner)
        metrics.SOCKETS.labels(self._transport).dec()


class ConnectionLimit:
    """Counts connections and lets no more in than the bounds allow."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.owners: Counter[str] = Counter()
        self.strangers: Counter[str] = Counter()

    def enter(self, address: str, transport: str) -> Place:
        """Take a place among the strangers. Raises `Overloaded` when there is none."""
        bounds = self._bounds
        if self.strangers.total() >= bounds.strangers:
            raise Overloaded(
                "Too many connections have not said who they are; try again.", retry_after_s=_RETRY_AFTER_S
            )
        if self.strangers[address] >= bounds.strangers_per_address:
            raise Overloaded(
                "Too many connections from this address have not said who they are; send the key with the "
                "upgrade, or connect at once.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.strangers[address] += 1
        metrics.SOCKETS.labels(transport).inc()
        return Place(self, address, transport)

    def take(self, owner: str, transport: str) -> Callable[[], None]:
        """Take a place for a known caller; return the function that gives it back. Raises `Overloaded`."""
        self.require_room(owner)
        self.owners[owner] += 1
        metrics.SOCKETS.labels(transport).inc()

        def give_back() -> None:
            _count_down(self.owners, owner)
            metrics.SOCKETS.labels(transport).dec()

        return give_back

    def require_room(self, owner: str) -> None:
        """Raise `Overloaded` when there is no place for another connection of `owner`."""
        if self.owners.total() >= self._bounds.total:
            raise Overloaded(
                "This gateway holds as many connections as it can; try another.",
                retry_after_s=_RETRY_AFTER_S,
            )
        if self.owners[owner] >= self._bounds.per_owner:
            raise Overloaded(
                f"One owner may hold {self._bounds.per_owner} connections to a gateway; close one.",
                retry_after_s=_RETRY_AFTER_S,
            )


def _count_down(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]

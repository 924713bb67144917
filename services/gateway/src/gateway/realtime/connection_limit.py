"""The limit on the WebSocket and SSE connections of authenticated callers: in total, and per owner.

Connections that are not authenticated yet count towards the server's unauthenticated ones instead; see
`chassis.http1.admission`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from chassis import shares
from chassis.errors import Overloaded, TooManyAtOnce

_RETRY_AFTER_S = 5.0
# The memory of an event stream that waits, with its subscription and its request; a WebSocket takes less.
SOCKET_BYTES = 40 * 1024
# An owner may have this many times the places that it leaves free; and, while one is free, one place in this
# many of all.
_WEIGHT = 2
_FEW = 128


class ConnectionLimit:
    """Counts the connections of each owner and admits at most `total`, and `per_owner` of each.

    An owner has no more than twice what it leaves free; the last eighth is for owners with few.
    """

    def __init__(self, *, total: int, per_owner: int) -> None:
        self._total = total
        self._per_owner = per_owner
        self._taken = 0
        self.owners: Counter[str] = Counter()

    def take(self, owner: str) -> Callable[[], None]:
        """Take a place; return the function that releases it. Raise `TooManyAtOnce`, `Overloaded`."""
        self.require_room(owner)
        self.owners[owner] += 1
        self._taken += 1

        def give_back() -> None:
            self._taken -= 1
            self.owners[owner] -= 1
            if not self.owners[owner]:
                del self.owners[owner]

        return give_back

    def require_room(self, owner: str) -> None:
        """Raise an error if there is no place for another connection of `owner`.

        `TooManyAtOnce` if the owner has its share, whether or not others are free: what it refuses is no
        failure of the gateway. `Overloaded` if all are taken, and the owner has few.
        """
        own, few = self.owners[owner], max(1, self._total // _FEW)
        if own >= self._per_owner:
            raise TooManyAtOnce(
                f"One owner may have {self._per_owner} connections to a gateway; close one.",
                retry_after_s=_RETRY_AFTER_S,
            )
        if shares.has_room(own, held=self._taken, most=self._total, few=few, weight=_WEIGHT):
            return
        if own >= few:
            raise TooManyAtOnce(
                f"You have {own} connections to this gateway, and the other places are for other owners;"
                " close one, or try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        raise Overloaded(
            "This gateway is at its limit of connections; try again later.", retry_after_s=_RETRY_AFTER_S
        )

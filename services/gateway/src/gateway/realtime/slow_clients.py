"""The bytes that wait for slow clients, to them and from them, over all WebSockets of this gateway."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

MOST_BYTES = 22 * 1024 * 1024


class WaitingBytes:
    """The bytes that wait for one connection of `owner`.

    They are in its send queue, in its transport, or in messages of the client that are not handled yet.
    """

    __slots__ = ("_clients", "_in_queue", "_in_transport", "_received", "cut_off", "owner")

    def __init__(self, slow_clients: SlowClients, *, cut_off: Callable[[], None]) -> None:
        self.owner = ""
        self.cut_off = cut_off
        self._clients = slow_clients
        self._in_queue = 0
        self._in_transport = 0
        self._received = 0

    @property
    def size(self) -> int:
        """The number of bytes that wait."""
        return self._in_queue + self._in_transport + self._received

    def in_queue(self, size: int) -> None:
        """Note that `size` bytes wait in the send queue now."""
        before, self._in_queue = self._in_queue, size
        self._clients.change(self, size - before)

    def in_transport(self, size: int) -> None:
        """Note that `size` bytes wait in the transport now."""
        before, self._in_transport = self._in_transport, size
        self._clients.change(self, size - before)

    def received(self, size: int) -> None:
        """Note that `size` bytes of messages are incomplete or not handled now."""
        before, self._received = self._received, size
        self._clients.change(self, size - before)


class SlowClients:
    """Bounds the bytes that wait for all connections together.

    Over `most_bytes`, connections are cut off until an eighth is free: those of the owner for whom the most
    bytes wait, the one with the most first. An owner with few loses nothing to others.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._total = 0
        self._waiting: set[WaitingBytes] = set()

    @property
    def total(self) -> int:
        """The number of bytes that wait now."""
        return self._total

    def change(self, waiting: WaitingBytes, by: int) -> None:
        """Note that `by` more bytes wait for a connection, or fewer if it is negative."""
        self._total += by
        if waiting.size:
            self._waiting.add(waiting)
        else:
            self._waiting.discard(waiting)
        if by > 0 and self._total > self.most_bytes:
            self._make_room()

    def _make_room(self) -> None:
        owners: Counter[str] = Counter()
        of_owner: dict[str, list[WaitingBytes]] = defaultdict(list)
        for one in sorted(self._waiting, key=lambda one: one.size):
            owners[one.owner] += one.size
            of_owner[one.owner].append(one)
        while self._total > self.most_bytes * 7 // 8:
            [(owner, _)] = owners.most_common(1)
            largest = of_owner[owner].pop()
            owners[owner] -= largest.size
            largest.cut_off()
            # Its transport says so itself only later.
            largest.in_transport(0)
            largest.received(0)

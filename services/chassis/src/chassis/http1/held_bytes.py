"""The bytes that connections hold, over all of them: unread parts of requests, unsent parts of answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from operator import itemgetter
from typing import Protocol


class ByteHolder(Protocol):
    """A connection that holds bytes."""

    @property
    def payer(self) -> str:
        """The owner of its key, or the address of a client without one."""

    def let_go(self) -> None:
        """Give up all bytes that are held; the request that holds them is refused, or its connection ends."""


class HeldBytes:
    """Bounds the bytes of all holders together.

    Over `most`, holders let go until an eighth is free: those of the payer with the most bytes, the one with
    the most first. A payer loses nothing while another one has more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sizes: dict[ByteHolder, int] = {}
        self.total = 0

    def hold(self, holder: ByteHolder, size: int) -> None:
        """Note that a connection holds `size` bytes now."""
        before = self._sizes.pop(holder, 0)
        if size == before == 0:
            return
        if size:
            self._sizes[holder] = size
        self.total += size - before
        if self.total > self._most and size > before:
            self._make_room()

    def _make_room(self) -> None:
        payers: Counter[str] = Counter()
        holders: defaultdict[str, list[ByteHolder]] = defaultdict(list)
        for holder, size in sorted(self._sizes.items(), key=itemgetter(1)):
            payers[holder.payer] += size
            holders[holder.payer].append(holder)
        while self.total > self._most * 7 // 8:
            [(payer, _)] = payers.most_common(1)
            largest = holders[payer].pop()
            payers[payer] -= self._sizes[largest]
            self.hold(largest, 0)
            largest.let_go()

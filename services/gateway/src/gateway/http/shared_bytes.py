"""The memory that requests and answers of all kinds share, beside the part of each kind."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from chassis import shares

# In all kinds together, beyond their parts: whatever comes at once, the process stays within its container.
MOST_SHARED_BYTES = 28 * 1024 * 1024


class SharedBytes:
    """Bytes for rooms whose own part is full. An owner that has some leaves as many for others.

    Each room joins with a function, which is called when bytes become free.
    """

    def __init__(self, most: int = MOST_SHARED_BYTES) -> None:
        self._most = most
        self._total = 0
        self._taken: Counter[str] = Counter()
        self._wakes: deque[Callable[[], None]] = deque()

    @property
    def taken(self) -> int:
        """The number of bytes that are taken now."""
        return self._total

    def join(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever bytes become free."""
        self._wakes.append(wake)

    def take(self, owner_id: str, size: int) -> bool:
        """Take `size` bytes of the owner; return False if there is no room for them."""
        own = self._taken[owner_id]
        if not shares.has_room_for(size, own=own, held=self._total, most=self._most):
            return False
        self._taken[owner_id] += size
        self._total += size
        return True

    def give_back(self, owner_id: str, size: int) -> None:
        """Give back bytes of the owner, and let others have them."""
        self._taken[owner_id] -= size
        self._total -= size
        if not self._taken[owner_id]:
            del self._taken[owner_id]
        for wake in tuple(self._wakes):
            wake()
        # Another one is the first next time.
        self._wakes.rotate()

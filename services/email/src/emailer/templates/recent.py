"""Counts of recent events by key, bounded in number and in age."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class RecentCounts:
    """Counts events by key. A key is forgotten `age_s` after its last event, or as the oldest of `most`."""

    def __init__(self, *, most: int, age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._age_s = age_s
        self._clock = clock
        # The key whose last event was the longest ago comes first.
        self._counts: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        self._forget_old()
        return len(self._counts)

    def count(self, key: bytes) -> int:
        """Return the number of remembered events of `key`."""
        self._forget_old()
        return self._counts.get(key, (0, 0.0))[0]

    def note(self, key: bytes) -> int:
        """Count another event of `key`; return the new number."""
        count = self.count(key) + 1
        self._counts[key] = count, self._clock()
        self._counts.move_to_end(key)
        if len(self._counts) > self._most:
            self._counts.popitem(last=False)
        return count

    def forget(self, key: bytes) -> None:
        """Reset the count of `key`."""
        self._counts.pop(key, None)

    def _forget_old(self) -> None:
        end = self._clock() - self._age_s
        while self._counts and next(iter(self._counts.values()))[1] <= end:
            self._counts.popitem(last=False)

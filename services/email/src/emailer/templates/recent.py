"""Counts of recent events by owner and key, bounded in number and in age."""

from __future__ import annotations

import time
from collections.abc import Callable

from chassis.owner_cache import OwnerCache


class RecentCounts:
    """Counts events by owner and key, `of_owner` keys of each owner and `most` of all.

    A key is forgotten `age_s` after its last event, or as the oldest one of too many.
    """

    def __init__(
        self, *, most: int, of_owner: int, age_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._age_s = age_s
        self._clock = clock
        self._counts = OwnerCache[bytes, tuple[int, float]](most=most, of_owner=of_owner)

    def __len__(self) -> int:
        self._forget_old()
        return len(self._counts)

    def count(self, key: bytes, *, owner_id: str) -> int:
        """Return the number of remembered events of `key`."""
        self._forget_old()
        count, _ = self._counts.get(owner_id, key) or (0, 0.0)
        return count

    def note(self, key: bytes, *, owner_id: str) -> int:
        """Count another event of `key`; return the new number."""
        count = self.count(key, owner_id=owner_id) + 1
        self._counts.store(owner_id, key, (count, self._clock()))
        return count

    def forget(self, key: bytes, *, owner_id: str) -> None:
        """Reset the count of `key`."""
        self._counts.forget(owner_id, key)

    def _forget_old(self) -> None:
        end = self._clock() - self._age_s
        while (oldest := self._counts.oldest) is not None:
            owner_id, key, (_, at) = oldest
            if at > end:
                return
            self._counts.forget(owner_id, key)

"""The custom ids of uploads under way: each once, in few bytes, and no more than a bound in all."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chassis.errors import Overloaded
from contracts.items import MOST_ITEMS

# At most 16 bytes an id: 84 MiB for all uploads. One owner may have one upload of the greatest length, and
# leaves room to others.
MOST_IDS_OF_OWNER = MOST_ITEMS
MOST_IDS = MOST_ITEMS + MOST_ITEMS // 10
_STEP = 1000
_RETRY_AFTER_S = 10.0
# Each grows by itself: moving the ids of one of them takes a few milliseconds.
_SEGMENTS = 256
_FIRST_SLOTS = 8
_WORD = 2**64 - 1


class CustomIds:
    """The ids of one upload, as hashes of 64 bits in open tables: 12 to 18 bytes each.

    A `set` of them takes 80 bytes an id, and keeps the loop busy for a second when it grows.
    """

    def __init__(self, budget: IdBudget, owner_id: str) -> None:
        self._budget = budget
        self._owner_id = owner_id
        self._segments: list[array[int]] = []
        self._counts = [0] * _SEGMENTS
        self._left = 0
        self.taken = 0

    def add(self, custom_id: str) -> bool:
        """Remember an id; return whether it is new. Raises `Overloaded`."""
        if not self._left:
            self._budget.take(self._owner_id, _STEP)
            self._left = _STEP
            self.taken += _STEP
            if not self._segments:
                self._segments = [array("Q", bytes(8 * _FIRST_SLOTS)) for _ in range(_SEGMENTS)]
        # 0 stands for an empty slot.
        word = hash(custom_id) & _WORD or 1
        segment = self._segments[word % _SEGMENTS]
        if not _put(segment, word):
            return False
        self._left -= 1
        self._counts[word % _SEGMENTS] += 1
        if self._counts[word % _SEGMENTS] * 3 > len(segment) * 2:
            self._segments[word % _SEGMENTS] = _grown(segment)
        return True


class IdBudget:
    """How many ids the uploads under way may hold, in all and those of each owner."""

    def __init__(self, *, total: int = MOST_IDS, per_owner: int = MOST_IDS_OF_OWNER) -> None:
        self._total = total
        self._per_owner = per_owner
        self.held: Counter[str] = Counter()

    @contextmanager
    def upload(self, owner_id: str) -> Iterator[CustomIds]:
        """Remember the ids of an upload for the length of the block."""
        ids = CustomIds(self, owner_id)
        try:
            yield ids
        finally:
            self.held[owner_id] -= ids.taken
            if not self.held[owner_id]:
                del self.held[owner_id]

    def take(self, owner_id: str, count: int) -> None:
        """Count `count` more ids of an owner. Raises `Overloaded`."""
        if self.held[owner_id] + count > self._per_owner or self.held.total() + count > self._total:
            raise Overloaded(
                "The uploads under way have as many custom ids as can be remembered; send this one later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.held[owner_id] += count


def _put(segment: array[int], word: int) -> bool:
    """Put `word` into its slot; return whether it was not there."""
    slots = len(segment)
    at = (word >> 8) % slots
    while found := segment[at]:
        if found == word:
            return False
        at = at + 1 if at + 1 < slots else 0
    segment[at] = word
    return True


def _grown(segment: array[int]) -> array[int]:
    """Return a table of half as many slots again with the same words."""
    larger = array("Q", bytes(8 * (len(segment) * 3 // 2)))
    for word in segment:
        if word:
            _put(larger, word)
    return larger

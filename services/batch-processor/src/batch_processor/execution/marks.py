"""Marks of an item process for the service that watches it, in shared memory, which outlives the process."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Sequence

# More than a chunk may have, whatever the setting says.
MOST_ITEMS = 8_192 - 8

_AT_WORK, _ENDED = 1, 2
_DUE_BYTES = 8


class Marks:
    """One byte per item (begun, ended), and the time by which its process must have made progress.

    `due` is in seconds of the monotonic clock, which the processes of a machine share.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _DUE_BYTES + MOST_ITEMS)
        # Written atomically, where `struct` would show a zero in between.
        self._due = memoryview(self._memory)[:_DUE_BYTES].cast("d")
        self._states = memoryview(self._memory)[_DUE_BYTES:]

    @property
    def due(self) -> float:
        """Return the time by which the process must have made progress."""
        return self._due[0]

    @due.setter
    def due(self, value: float) -> None:
        self._due[0] = value

    def clear(self, items: int) -> None:
        """Forget the marks of the first `items`."""
        self._states[:items] = bytes(items)

    def begin(self, indexes: Sequence[int]) -> None:
        """Mark items as running."""
        self._mark(indexes, _AT_WORK)

    def end(self, indexes: Sequence[int]) -> None:
        """Mark items as ended."""
        self._mark(indexes, _ENDED)

    def at_work(self, items: int) -> list[int]:
        """Return which of the first `items` have begun and not ended."""
        return [index for index in range(items) if self._states[index] == _AT_WORK]

    def _mark(self, indexes: Sequence[int], state: int) -> None:
        if len(indexes) > 1 and list(indexes) == list(range(indexes[0], indexes[0] + len(indexes))):
            # Those of a whole chunk, in one step.
            self._states[indexes[0] : indexes[0] + len(indexes)] = bytes((state,)) * len(indexes)
            return
        for index in indexes:
            self._states[index] = state

    def close(self) -> None:
        """Release the memory."""
        self._due.release()
        self._states.release()
        self._memory.close()


def create() -> tuple[Marks, int]:
    """Return new marks of an idle process, and the descriptor that opens them in that process."""
    with tempfile.TemporaryFile() as file:
        file.truncate(_DUE_BYTES + MOST_ITEMS)
        marks = Marks(file.fileno())
        marks.due = math.inf
        return marks, os.dup(file.fileno())

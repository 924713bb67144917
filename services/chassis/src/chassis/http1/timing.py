"""Least rates in both directions, looked at from time to time."""

from __future__ import annotations

import math


class WriteStall:
    """Notices a client that takes nothing of what is written to it."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._ends = math.inf
        self._unwritten = 0

    def is_over(self, now: float, unwritten: int) -> bool:
        """Return whether `unwritten` bytes, which are more than none, have not become fewer for too long."""
        if unwritten == 0:
            self._ends = math.inf
        elif unwritten < self._unwritten or self._ends == math.inf:
            self._ends = now + self._patience_s
        self._unwritten = unwritten
        return now >= self._ends


class BodyRate:
    """Notices a body that comes too slowly while the application waits for it."""

    def __init__(self, *, window_s: float, least_rate: int) -> None:
        self._window_s = window_s
        self._least_bytes = window_s * least_rate
        self._ends = math.inf
        self._received = 0

    def is_too_slow(self, now: float, received: int, *, is_awaited: bool) -> bool:
        """Return whether a window has ended with too few bytes; `received` counts all from the beginning.

        A window counts only while the application has nothing else to do than to wait.
        """
        if not is_awaited:
            self._ends = math.inf
            return False
        if now < self._ends != math.inf:
            return False
        is_slow = self._ends != math.inf and received - self._received < self._least_bytes
        self._ends, self._received = now + self._window_s, received
        return is_slow

"""Minimum rates in both directions, checked periodically."""

from __future__ import annotations

import math


class WriteStall:
    """Notices a client that does not read what is written to it."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._ends = math.inf
        self._unwritten = 0

    def is_over(self, now: float, unwritten: int) -> bool:
        """Return whether `unwritten` bytes, if there are any, have not decreased for too long."""
        if unwritten == 0:
            self._ends = math.inf
        elif unwritten < self._unwritten or self._ends == math.inf:
            self._ends = now + self._patience_s
        self._unwritten = unwritten
        return now >= self._ends


class BodyRate:
    """Notices a body that arrives too slowly while the application waits for it.

    A window is `window_s` seconds in which the application only waited for the body. Its waits are added
    up: a client that keeps the application busy with tiny parts does not restart the window.
    """

    def __init__(self, *, window_s: float, least_rate: int) -> None:
        self._window_s = window_s
        self._least_bytes = window_s * least_rate
        self._looked_at: float | None = None
        self._waited_s = 0.0
        self._received = 0

    def begin(self, received: int) -> None:
        """Begin a body, and its first window, after the `received` bytes of its connection."""
        self._looked_at = None
        self._waited_s = 0.0
        self._received = received

    def is_too_slow(self, now: float, received: int, *, is_awaited: bool) -> bool:
        """Return whether a window ended with too few bytes; `received` counts those of the connection."""
        if is_awaited and self._looked_at is not None:
            self._waited_s += now - self._looked_at
        self._looked_at = now
        if self._waited_s < self._window_s:
            return False
        is_slow = received - self._received < self._least_bytes
        self._waited_s, self._received = 0.0, received
        return is_slow

"""Deadlines: the time until which a caller waits, carried from the HTTP edge to the last query."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on this machine's monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def from_epoch_ms(cls, epoch_ms: int) -> Deadline:
        """Return the deadline that a message names in milliseconds since 1970."""
        return cls.after(epoch_ms / 1000 - time.time())

    def remaining_s(self) -> float:
        """Return the seconds left, never below 0."""
        return max(0.0, self.at - time.monotonic())

    def epoch_ms(self) -> int:
        """Return the same moment in milliseconds since 1970, for another process."""
        return int((time.time() + self.remaining_s()) * 1000)

"""A clock that a test moves."""

from __future__ import annotations


class Clock:
    """A clock that returns `now`: called as a function, or in place of the module `time`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

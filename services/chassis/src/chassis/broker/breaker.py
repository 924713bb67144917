"""A circuit breaker: after several consecutive failures, calls fail at once, except for probes."""

from __future__ import annotations

import time


class Breaker:
    """Opens after `threshold` consecutive failures; then one call may probe every `pause_s` seconds."""

    def __init__(self, *, threshold: int = 10, pause_s: float = 2) -> None:
        self._threshold = threshold
        self._pause_s = pause_s
        self._failures = 0
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Return whether calls fail at once now."""
        return self._failures >= self._threshold

    def allows(self) -> bool:
        """Return whether a call may be made now; an open breaker allows one probe each pause."""
        if not self.is_open:
            return True
        now = time.monotonic()
        if now < self._probe_at:
            return False
        self._probe_at = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """Note a call that was answered."""
        self._failures = 0

    def failed(self) -> None:
        """Note a call that was not answered in time."""
        self._failures += 1
        if self._failures == self._threshold:
            self._probe_at = time.monotonic() + self._pause_s

"""The pings to one client, and the time that it has for each answer."""

from __future__ import annotations

import random

PING_S = 25
_PONG_WITHIN_S = 10.0
# The clock looks every second. After a longer time the process itself has stood still, and has read nothing.
_STOOD_STILL_S = 5.0


class Heartbeat:
    """Decides when a ping is due, and whether its answer is overdue.

    Only time in which the gateway could have read an answer counts: what waits behind a command is not late.
    """

    __slots__ = ("_looked_at", "_ping_at", "_pinged_at")

    def __init__(self, now: float) -> None:
        # Spreads the pings of connections that were opened at the same time.
        self._ping_at = now + random.uniform(PING_S / 3, PING_S)  # noqa: S311 - not a secret
        self._pinged_at: float | None = None
        self._looked_at = now

    def take_pong(self) -> bool:
        """Note an answer; return whether it answers a ping."""
        is_awaited = self._pinged_at is not None
        self._pinged_at = None
        return is_awaited

    def has_stood_still(self, now: float) -> bool:
        """Return whether the process itself has not run since the last look."""
        before, self._looked_at = self._looked_at, now
        return now - before > _STOOD_STILL_S

    def is_overdue(self, now: float, *, is_held_up: bool) -> bool:
        """Return whether the answer to a ping is late; it cannot be while the client's frames are held up."""
        if self._pinged_at is None:
            return False
        if is_held_up:
            self._pinged_at = now
        return now - self._pinged_at > _PONG_WITHIN_S

    def is_due(self, now: float) -> bool:
        """Return whether a ping must be sent now, and note that it is."""
        if now < self._ping_at or self._pinged_at is not None:
            return False
        self._ping_at = now + PING_S
        self._pinged_at = now
        return True

"""A circuit breaker: after several calls without an answer, calls fail at once, except for probes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable


class Breaker:
    """Opens for an owner after `threshold` of its calls in a row were not answered; any answer closes it.

    When calls of `owners` owners were not answered, and `threshold` in all, one call without an answer is
    enough. A call that several owners share is one call of each, and one in all. A call never fails at once
    because of other owners' calls alone: slow requests of a few do not show that the service is down. An
    owner whose calls fail at once may probe every `pause_s` seconds.
    """

    def __init__(
        self,
        *,
        threshold: int = 10,
        owners: int = 3,
        pause_s: float = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = threshold
        self._owners = owners
        self._pause_s = pause_s
        self._clock = clock
        # Since the last answer.
        self._unanswered: Counter[str] = Counter()
        self._calls = 0
        self._probe_at: dict[str, float] = {}

    @property
    def is_open(self) -> bool:
        """Return whether calls of an owner fail at once now."""
        return bool(self._probe_at)

    def allows(self, owner_id: str) -> bool:
        """Return whether a call of the owner may be made now; an open breaker allows a probe each pause."""
        if not self._is_open_for(owner_id):
            return True
        now = self._clock()
        if now < self._probe_at.get(owner_id, now):
            return False
        self._probe_at[owner_id] = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """Note a call that was answered."""
        self._unanswered.clear()
        self._calls = 0
        self._probe_at.clear()

    def failed(self, *owner_ids: str) -> None:
        """Note a call of these owners that was not answered in time."""
        self._calls += 1
        self._unanswered.update(owner_ids)
        for owner_id in filter(self._is_open_for, owner_ids):
            self._probe_at.setdefault(owner_id, self._clock() + self._pause_s)

    def _is_open_for(self, owner_id: str) -> bool:
        own = self._unanswered[owner_id]
        if not own or own >= self._threshold:
            return own > 0
        return len(self._unanswered) >= self._owners and self._calls >= self._threshold

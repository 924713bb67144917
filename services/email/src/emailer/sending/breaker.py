"""A circuit breaker for a relay that refuses all mails: a wrong setting must not fail a million of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

# Only refusals within this time are counted together.
_SPAN_S = 60.0
# This share of the answers must be refusals: of a list with bad addresses, some mails are accepted.
_SHARE = 0.9
# After a pause, this many refusals, again to different domains, cause the next one.
_MOST_AFTER_PAUSE = 3


class RefusalBreaker:
    """Counts refusals by one relay, and detects when it refuses mails to many domains and accepts hardly any.

    Refusals because an address does not exist do not count. After a burst the relay is distrusted until
    it accepts a mail: until then no refusal is final.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._answers: deque[tuple[float, str | None]] = deque(maxlen=4 * most)
        self.is_tripped = False

    def note_taken(self) -> None:
        """Note that the relay accepted a mail."""
        if self.is_tripped:
            self._answers.clear()
            self.is_tripped = False
        self._answers.append((self._clock(), None))

    def note_refused(self, domain: str) -> bool:
        """Note a refused mail to `domain`; return whether sending to the relay should pause."""
        now = self._clock()
        self._answers.append((now, domain))
        while self._answers[0][0] < now - _SPAN_S:
            self._answers.popleft()
        most = min(_MOST_AFTER_PAUSE, self._most) if self.is_tripped else self._most
        refused = [domain for _, domain in self._answers if domain is not None]
        is_burst = len(refused) >= most and len(refused) >= _SHARE * len(self._answers)
        if not is_burst or len(set(refused)) < max(2, most // 2):
            return False
        self._answers.clear()
        self.is_tripped = True
        return True

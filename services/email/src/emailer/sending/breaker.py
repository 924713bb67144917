"""A circuit breaker for a relay that refuses all mails: a wrong setting must not fail a million of them.

What one owner sends may be refused, too, whatever the settings: this must not pause the mail of others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Literal

# Only refusals within this time are counted together.
_SPAN_S = 60.0
# This share of the answers must be refusals: of a list with bad addresses, some mails are accepted.
_SHARE = 0.9
# After a pause, this many refusals, again to different domains, cause the next one.
_MOST_AFTER_PAUSE = 3


class RefusalBreaker:
    """Counts refusals by one relay, and detects when it refuses mails to many domains and accepts hardly any.

    Refusals because an address does not exist do not count. After a burst over mails of several owners the
    relay is distrusted until it accepts a mail: until then no refusal is final.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        # The time of an answer, the owner of the mail, and its domain if it was refused.
        self._answers: deque[tuple[float, str, str | None]] = deque(maxlen=4 * most)
        # Two are enough to know that nobody is alone here.
        self._owners: set[str] = set()
        self.is_tripped = False

    def note_taken(self, owner_id: str) -> None:
        """Note that the relay accepted a mail."""
        if self.is_tripped:
            self._answers.clear()
            self.is_tripped = False
        self._note(owner_id, None)

    def note_refused(self, owner_id: str, domain: str) -> Literal["route", "owner"] | None:
        """Note a refused mail to `domain`; return what should pause: the route, this owner's mails, or None.

        A burst that consists of one owner's mails is that owner's, unless no other has sent any mail.
        """
        self._note(owner_id, domain)
        while self._answers[0][0] < self._clock() - _SPAN_S:
            self._answers.popleft()
        most = min(_MOST_AFTER_PAUSE, self._most) if self.is_tripped else self._most
        refused = [(owner, domain) for _, owner, domain in self._answers if domain is not None]
        is_burst = len(refused) >= most and len(refused) >= _SHARE * len(self._answers)
        if not is_burst or len({domain for _, domain in refused}) < max(2, most // 2):
            return None
        self._answers.clear()
        if len({owner for owner, _ in refused}) < len(self._owners):
            return "owner"
        self.is_tripped = True
        return "route"

    def _note(self, owner_id: str, domain: str | None) -> None:
        self._answers.append((self._clock(), owner_id, domain))
        if len(self._owners) < 2:
            self._owners.add(owner_id)

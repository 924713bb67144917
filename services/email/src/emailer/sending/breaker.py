"""A circuit breaker for a relay that refuses all mails: a wrong setting must not fail a million of them.

What an owner sends may be refused, too, whatever the settings: this must not pause the mail of others.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

# Only answers within this time are counted together.
_SPAN_S = 60.0
# Of the owners that sent within this time, this share must have no mail accepted any more.
_SHARE = 0.9
# This many owners at least must have refusals before the route is paused.
_LEAST_OWNERS = 3
# Owners that are remembered because of a pause.
_MOST_BLAMED = 10_000
# Of a relay that is distrusted, this many refusals, again to different domains, are enough.
_MOST_WHEN_DISTRUSTED = 3


@dataclass(slots=True)
class _Refusal:
    at: float
    domain: str


@dataclass(slots=True)
class _Owner:
    """The time of an owner's last answer, and its refusals since a mail of it was accepted."""

    at: float
    refusals: deque[_Refusal]


class RefusalBreaker:
    """Counts refusals of mails to many domains by owner, to pause no more mails than the refusals justify.

    Refusals because an address does not exist do not count. While the relay has accepted nobody's mail since
    a burst of refusals began, it is distrusted: no refusal is final.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        # Owners that had an answer within `_SPAN_S`, the last one at the end.
        self._owners: OrderedDict[str, _Owner] = OrderedDict()
        # Refusals since the relay accepted any mail.
        self._refusals: deque[_Refusal] = deque(maxlen=most)
        self._was_paused = False
        self.is_distrusted = False
        # Owners whose mails paused the route since the relay accepted any mail.
        self._blamed: OrderedDict[str, None] = OrderedDict()

    def note_taken(self, owner_id: str) -> None:
        """Note that the relay accepted a mail."""
        self._note(owner_id).refusals.clear()
        self._refusals.clear()
        self._blamed.clear()
        self._was_paused = self.is_distrusted = False

    def note_pause(self, owner_id: str) -> None:
        """Note that the reply to a mail of this owner paused the route, or made it skip a relay."""
        self._blamed[owner_id] = None
        if len(self._blamed) > _MOST_BLAMED:
            self._blamed.popitem(last=False)

    def is_blamed(self, owner_id: str) -> bool:
        """Return whether a mail of this owner paused the route, and none was accepted since."""
        return owner_id in self._blamed

    def note_refused(self, owner_id: str, domain: str) -> Literal["route", "owner"] | None:
        """Note a refused mail to `domain`; return what should pause: the route, this owner's mails, or None.

        The route pauses only for refusals of several owners, each with a third of them at most, when hardly
        any other owner's last mail was accepted.
        """
        owner, refusal = self._note(owner_id), _Refusal(self._clock(), domain)
        owner.refusals.append(refusal)
        self._refusals.append(refusal)
        self.is_distrusted = self.is_distrusted or self._is_burst(self._refusals, self._most)
        few = min(_MOST_WHEN_DISTRUSTED, self._most)
        most = few if self._was_paused else self._most
        refused = [each.refusals for each in self._owners.values() if each.refusals]
        if len(refused) >= max(_LEAST_OWNERS, _SHARE * len(self._owners)):
            share = math.ceil(most / _LEAST_OWNERS)
            if self._is_burst([each for refusals in refused for each in list(refusals)[-share:]], most):
                self._owners.clear()
                self._was_paused = self.is_distrusted = True
                return "route"
        own_most = few if self.is_distrusted else self._most
        return "owner" if self._is_burst(owner.refusals, own_most) else None

    def has_taken_of_others(self, owner_id: str) -> bool:
        """Return whether another owner's last answer, within `_SPAN_S`, was that its mail was accepted."""
        since = self._clock() - _SPAN_S
        return any(
            other != owner_id and owner.at >= since and not owner.refusals
            for other, owner in self._owners.items()
        )

    def _note(self, owner_id: str) -> _Owner:
        """Return the record of an owner that has an answer now; forget owners without one of late."""
        now = self._clock()
        owner = self._owners.setdefault(owner_id, _Owner(now, deque(maxlen=self._most)))
        owner.at = now
        self._owners.move_to_end(owner_id)
        while next(iter(self._owners.values())).at < now - _SPAN_S:
            self._owners.popitem(last=False)
        return owner

    def _is_burst(self, refusals: Iterable[_Refusal], most: int) -> bool:
        """Return whether `most` of `refusals` or more are recent, and to many domains."""
        since = self._clock() - _SPAN_S
        domains = [refusal.domain for refusal in refusals if refusal.at >= since]
        return len(domains) >= most and len(set(domains)) >= max(2, most // 2)

"""Senders whose mails the relay refused or limited: they wait together, until one of them is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from chassis import logging, metrics
from emailer.sending import outcomes

log = logging.get(__name__)

# `policy`: a sender that the relay does not accept; `limited`: it may send no more for now; `refusals`: mail
# after mail of it was refused.
Reason = Literal["policy", "limited", "refusals"]
# The owner of a mail, and the domain of its sender.
Sender = tuple[str, str]

# Senders that are remembered, in all and of one owner.
MOST = 10_000
MOST_OF_OWNER = 500


@dataclass(frozen=True, slots=True)
class Refusal:
    """The relay's reply about a sender, the number of such refusals, and how long the sender's mails wait."""

    words: str
    count: int
    until: float


class RefusedSenders:
    """Remembers until when a sender's mails are not tried; each refusal lengthens the wait, by the schedule.

    After that time the next mails are tried. The state is lost when the process ends.
    """

    def __init__(self, reason: Reason, *, scale: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._reason = reason
        self._scale = scale
        self._clock = clock
        # The sender refused the longest ago comes first, here and among those of each owner.
        self._refusals: dict[Sender, Refusal] = {}
        self._of_owner: dict[str, dict[Sender, None]] = {}
        # From zero: the first of a series that appears is no increase.
        metrics.EMAIL_OWNER_PAUSES.labels(reason)
        self.measure()

    def of(self, sender: Sender) -> tuple[float, str] | None:
        """Return for how many seconds mails of `sender` wait, and the reason; None when they may be tried."""
        known = self._refusals.get(sender)
        left_s = known.until - self._clock() if known else 0
        return (left_s, known.words) if known and left_s > 0 else None

    def note_refused(self, sender: Sender, words: str, *, is_longer: bool = True) -> float:
        """Note that the relay refused `sender`; return the seconds to wait: longer each time, or as at first.

        Many refusals at the same time count once.
        """
        if (waiting := self.of(sender)) is not None:
            return waiting[0]
        known = self._forget(sender)
        count = known.count + 1 if known and is_longer else 1
        wait_s = outcomes.wait_s(count, scale=self._scale)
        self._refusals[sender] = Refusal(words, count, self._clock() + wait_s)
        own = self._of_owner.setdefault(sender[0], {})
        own[sender] = None
        # A sender that is forgotten is tried again. However many an owner has, those of others stay known.
        if len(own) > MOST_OF_OWNER:
            self._forget(next(iter(own)))
        if len(self._refusals) > MOST:
            self._forget(next(iter(self._refusals)))
        metrics.EMAIL_OWNER_PAUSES.labels(self._reason).inc()
        log.warning(
            "mail of an owner paused",
            owner_id=sender[0],
            sender_domain=sender[1],
            reason=self._reason,
            detail=words,
            seconds=wait_s,
        )
        return wait_s

    def measure(self) -> None:
        """Update the gauge of owners whose mails wait."""
        now = self._clock()
        waiting = {owner for (owner, _), refusal in self._refusals.items() if refusal.until > now}
        metrics.EMAIL_PAUSED_OWNERS.labels(self._reason).set(len(waiting))

    def note_taken(self, sender: Sender) -> None:
        """Note that the relay accepts mails of `sender`."""
        self._forget(sender)

    def _forget(self, sender: Sender) -> Refusal | None:
        known = self._refusals.pop(sender, None)
        if known is not None:
            own = self._of_owner[sender[0]]
            del own[sender]
            if not own:
                del self._of_owner[sender[0]]
        return known

"""Senders whom the relay refused by policy: their mails wait together, and one of them asks again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from emailer.sending import outcomes

# The owner of a mail, and the domain of its sender.
Sender = tuple[str, str]

MOST = 10_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """The relay's words about a sender, how often it has said such, and how long its mails wait."""

    words: str
    count: int
    until: float


class RefusedSenders:
    """Knows until when mails of a sender need not be tried; each refusal makes that later, by the schedule.

    When the time is over the next mails ask again. What is known ends with the process.
    """

    def __init__(self, *, scale: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._scale = scale
        self._clock = clock
        self._refusals: dict[Sender, Refusal] = {}

    def of(self, sender: Sender) -> tuple[float, str] | None:
        """Return for how many seconds mails of `sender` wait, and why; None when they may be tried."""
        known = self._refusals.get(sender)
        left_s = known.until - self._clock() if known else 0
        return (left_s, known.words) if known and left_s > 0 else None

    def note_refused(self, sender: Sender, words: str) -> float:
        """Note that the relay refused `sender`; return the seconds to wait.

        Many refusals at the same time count once.
        """
        if (waiting := self.of(sender)) is not None:
            return waiting[0]
        known = self._refusals.pop(sender, None)
        count = known.count + 1 if known else 1
        wait_s = outcomes.wait_s(count, scale=self._scale)
        self._refusals[sender] = Refusal(words, count, self._clock() + wait_s)
        if len(self._refusals) > MOST:
            # The one whose last refusal is longest ago asks again.
            del self._refusals[next(iter(self._refusals))]
        return wait_s

    def note_taken(self, sender: Sender) -> None:
        """Note that the relay takes mails of `sender`."""
        self._refusals.pop(sender, None)

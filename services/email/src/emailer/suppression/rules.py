"""The rules by which failures suppress an address, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from contracts.mail import Stream
from contracts.suppressions import MOST_REASON
from emailer.suppression.faults import Fault

# An address is suppressed after this many mails were refused permanently.
HARD_FAILURES = 2

FailureOrigin = Literal["reply", "bounce"]


class Target(NamedTuple):
    """A normalized address, for the mails of one owner in one stream. A tuple, because it is hashed often."""

    owner_id: str
    stream: Stream
    address: str

    @property
    def columns(self) -> tuple[str, str, str]:
        """The target as parameters of statements."""
        return self.owner_id, self.stream, self.address


@dataclass(frozen=True, slots=True)
class AddressFailure:
    """A mail that did not reach its address, and what the server said."""

    target: Target
    email_id: UUID
    fault: Fault
    origin: FailureOrigin
    text: str


@dataclass(frozen=True, slots=True)
class FailureCounts:
    """The numbers of failed mails to an address, within the time for which each kind counts."""

    hard: int = 0
    soft: int = 0


@dataclass(frozen=True, slots=True)
class SuppressionTerms:
    """The settings of suppression: how long it lasts and failures count, and how many an owner may have.

    An address is also suppressed after `soft_failures` within `soft_days`.
    """

    days: float = 90
    soft_failures: int = 5
    soft_days: float = 7
    most_of_owner: int = 100_000

    def suppresses(self, failure: AddressFailure, counts: FailureCounts) -> bool:
        """Return whether `failure`, which `counts` includes, suppresses its address."""
        if failure.fault == "gone":
            return True
        if failure.fault == "hard":
            return counts.hard >= HARD_FAILURES
        return failure.fault == "soft" and counts.soft >= self.soft_failures

    def ends_at(self, now: datetime) -> datetime:
        """Return the end of a suppression that begins at `now`."""
        return now + timedelta(days=self.days)


def reason_of(failure: AddressFailure) -> str:
    """Return the reason for a suppression, as its owner sees it."""
    return " ".join(failure.text.split())[:MOST_REASON]

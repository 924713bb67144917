"""The next step of a recipient or a mail, and its deadline: a promise, and its breaches are measured."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from contracts.emails import RecipientStatus
from contracts.message import Next

# The longest that an attempt may wait for its turn; the alert on overdue mails uses the same.
LATEST = timedelta(seconds=300)

_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth"),
    *("sixth", "seventh", "eighth", "ninth", "tenth"),
)


def of_recipient(
    status: RecipientStatus,
    *,
    due_at: datetime | None,
    tries: int,
    expires_at: datetime,
    is_rated: bool = False,
) -> Next | None:
    """Return the next step of a recipient; None when there is none.

    `due_at` is the time of the next attempt, or, while it is being sent, the end of the lease. `is_rated`
    says that its domain has a rate limit: it may have to wait for its turn until it expires.
    """
    if status == "held":
        return Next(what="your decision: retry or cancel it", by=None)
    if due_at is None:
        return None
    if status == "sending":
        return Next(what="the relay's answer", by=due_at + LATEST)
    if due_at >= expires_at:
        return Next(what="the end: it expires", by=expires_at)
    which = f"{_ORDINALS[tries]} attempt" if tries < len(_ORDINALS) else f"attempt {tries + 1}"
    if is_rated:
        return Next(what=f"{which}, when the rate of its domain allows it", by=expires_at)
    return Next(what=which, by=min(due_at + LATEST, expires_at))


def of_mail(recipients: Iterable[Next | None]) -> Next | None:
    """Return the earliest next step of a mail's recipients; decisions come last."""
    open_ones = [found for found in recipients if found is not None]
    dated = [(found.by, found) for found in open_ones if found.by is not None]
    if dated:
        return min(dated, key=lambda pair: pair[0])[1]
    return open_ones[0] if open_ones else None

"""The timeline of a mail: what happened to it, in order, from the records of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from chassis.postgres import Row
from contracts.emails import Recipient, TimelineEvent

# A mail to fifty recipients that is deferred for days has thousands.
MOST_EVENTS = 500


def of(
    accepted_at: datetime, recipients: Sequence[Recipient], happened: Iterable[Row]
) -> list[TimelineEvent]:
    """Return the events of a mail, oldest first: the acceptance and the newest 499 of the others."""
    events = [
        TimelineEvent(
            at=attempt.at,
            kind="attempt",
            recipient=recipient.address,
            detail=f"{attempt.outcome}: "
            + (f"{attempt.smtp_code} " if attempt.smtp_code else "")
            + attempt.smtp_reply,
        )
        for recipient in recipients
        for attempt in recipient.attempts
    ]
    events += [
        TimelineEvent(
            at=row["at"],
            kind=row["kind"],
            recipient=None if row["position"] is None else recipients[row["position"]].address,
            detail=row["detail"],
        )
        for row in happened
    ]
    events.sort(key=lambda event: event.at)
    return [TimelineEvent(at=accepted_at, kind="accepted"), *events[-(MOST_EVENTS - 1) :]]

"""The timeline of a mail: what happened to it, in order, from the records of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from chassis.postgres import Row
from contracts.emails import Recipient, TimelineEvent

# A mail to fifty recipients that is deferred for days has thousands.
MOST_EVENTS = 500
# In UTF-8, of the replies of all attempts that are shown, and of all details of a timeline: an answer fits
# into one message.
MOST_REPLY_BYTES = 64 * 1024


def of(
    accepted_at: datetime, recipients: Sequence[Recipient], happened: Iterable[Row]
) -> list[TimelineEvent]:
    """Return the events of a mail, oldest first: the acceptance and the newest 499 of the others.

    Long details are cut when they are too long together.
    """
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
    shown = events[-(MOST_EVENTS - 1) :]
    details = shortened([event.detail for event in shown])
    shown = [
        event.model_copy(update={"detail": detail}) for event, detail in zip(shown, details, strict=True)
    ]
    return [TimelineEvent(at=accepted_at, kind="accepted"), *shown]


def shortened(texts: Sequence[str]) -> list[str]:
    """Return `texts` with at most `MOST_REPLY_BYTES` together: the longest are cut, all at one length."""
    octets = [text.encode() for text in texts]
    most, left = MOST_REPLY_BYTES, MOST_REPLY_BYTES
    for place, size in enumerate(sorted(map(len, octets))):
        # What the shorter ones need less is left for the others.
        most = left // (len(octets) - place)
        if size > most:
            break
        left -= size
    else:
        return list(texts)
    end = "…"
    return [
        text if len(one) <= most else one[: most - len(end.encode())].decode(errors="ignore") + end
        for text, one in zip(texts, octets, strict=True)
    ]

"""A mail as the gateway knows it by itself, before email has stored it, or while email cannot be reached."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.acceptance.repository import Acceptance

# The reason of a mail that was cancelled here.
CANCELLED = "cancelled before it reached the email service"
# The time within which email stores a command; the alert on late messages uses the same.
_TAKEN_WITHIN = timedelta(minutes=5)
_BEFORE_REPORTS = {"queued": 1, "parked": 3}


def message_id_like(other: str | None, email_id: UUID, *, domain: str) -> str:
    """Return a Message-ID for a mail that repeats another: of the same domain, or `domain` without one."""
    return f"<{email_id}@{(other or '').rpartition('@')[2].rstrip('>') or domain}>"


def taken_over(*, since: datetime) -> dict[str, Any]:
    """Return the next step of a mail that was promised to email at `since`, as plain data."""
    return {"what": "acceptance by the email service", "by": since + _TAKEN_WITHIN}


def offset(changed_at: datetime) -> int:
    """Return the offset of a change of a mail's status: the microseconds of its time."""
    return int(changed_at.timestamp() * 1_000_000)


def revision(accepted: Acceptance, *, status: str) -> int:
    """Return the offset of a mail's state with `status`: that of the last change that email has reported.

    Before the first one it is small: the clocks of two services may differ. If email has a newer status, it
    is behind the last change, and before the one that will be reported.
    """
    known = _BEFORE_REPORTS.get(accepted.status) or offset(accepted.changed_at or accepted.accepted_at)
    return known + (status != accepted.status)


def shown(accepted: Acceptance) -> dict[str, Any]:
    """Return a mail with the fields that are known without email."""
    following = None
    if accepted.status == "queued":
        following = taken_over(since=accepted.accepted_at)
    elif accepted.status == "parked":
        following = {"what": "an administrator's decision about its parked command", "by": None}
    shown: dict[str, Any] = {
        "id": str(accepted.id),
        "status": accepted.status,
        "accepted_at": accepted.accepted_at,
        "recipients": [],
        "next": following,
    }
    if accepted.reason:
        shown["reason"] = accepted.reason
    if accepted.reason == CANCELLED:
        shown["timeline"] = [
            {"at": accepted.accepted_at, "kind": "accepted", "recipient": None, "detail": ""},
            {"at": accepted.changed_at, "kind": "cancelled", "recipient": None, "detail": CANCELLED},
        ]
    return shown

"""A mail as the gateway knows it by itself, before email has stored it, or while email cannot be reached."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from gateway.acceptance.repository import Acceptance

# The reason of a mail that was cancelled here.
CANCELLED = "cancelled before it reached the email service"
# The time within which email stores a command; the alert on late messages uses the same.
_TAKEN_WITHIN = timedelta(minutes=5)


def message_id_like(other: str | None, email_id: UUID, *, domain: str) -> str:
    """Return a Message-ID for a mail that repeats another: of the same domain, or `domain` without one."""
    return f"<{email_id}@{(other or '').rpartition('@')[2].rstrip('>') or domain}>"


def shown(accepted: Acceptance) -> dict[str, Any]:
    """Return a mail with the fields that are known without email."""
    what = {
        "queued": "acceptance by the email service",
        "parked": "an administrator's decision about its parked command",
    }
    by = accepted.accepted_at + _TAKEN_WITHIN if accepted.status == "queued" else None
    shown: dict[str, Any] = {
        "id": str(accepted.id),
        "status": accepted.status,
        "accepted_at": accepted.accepted_at,
        "recipients": [],
        "next": {"what": what[accepted.status], "by": by} if accepted.status in what else None,
    }
    if accepted.reason:
        shown["reason"] = accepted.reason
    if accepted.reason == CANCELLED:
        shown["timeline"] = [
            {"at": accepted.accepted_at, "kind": "accepted", "recipient": None, "detail": ""},
            {"at": accepted.changed_at, "kind": "cancelled", "recipient": None, "detail": CANCELLED},
        ]
    return shown

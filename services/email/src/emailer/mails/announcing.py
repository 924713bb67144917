"""Announcements of a mail's status to the other services, in the transaction that changes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from chassis import outbox, tracing
from chassis.broker import envelope
from chassis.postgres import Connection
from contracts.emails import EmailStatus, EmailStatusChanged


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A mail's new status, and the trace of the request that brought the mail."""

    email_id: UUID
    owner_id: str
    status: EmailStatus
    traceparent: str | None
    request_id: str | None


async def announce(connection: Connection, changes: Sequence[StatusChange]) -> None:
    """Write an `EmailStatusChanged` for each change into the outbox; the caller wakes its relay."""
    if not changes:
        return
    now = datetime.now(UTC)
    events = []
    for change in changes:
        event = EmailStatusChanged(
            email_id=change.email_id, owner_id=change.owner_id, status=change.status, at=now
        )
        with tracing.during(change.traceparent, change.request_id):
            events.append(envelope.event(event, tenant=change.owner_id))
    await outbox.add(connection, events)

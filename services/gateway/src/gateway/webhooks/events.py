"""The events that webhooks receive, their types, and the scope that is needed for each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

from contracts import batches, emails
from contracts.alerts import AlertFired
from contracts.batches import BatchFinished, Kind
from contracts.emails import EmailStatusChanged
from contracts.scopes import Scope

TEST = "webhook.test"
_FIRED = "alert.fired"
TYPES: tuple[str, ...] = (
    # Nothing has happened yet to a mail that is queued.
    *(f"email.{status}" for status in emails.STORED_STATUSES if status != "queued"),
    *(f"{kind}.{status}" for kind in get_args(Kind) for status in sorted(batches.FINISHED)),
    _FIRED,
)

# The scope that reads the objects of which events tell, by the first word of their types.
_SCOPES: Mapping[str, Scope] = {
    "email": Scope.EMAILS_READ,
    "batch": Scope.BATCHES_READ,
    "task": Scope.BATCHES_READ,
    "alert": Scope.ALERTS_READ,
    "webhook": Scope.WEBHOOKS_WRITE,
}


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """Something that happened to an object of an owner.

    `data` describes it, without contents of mails; it is called only if a webhook listens. Webhooks
    of the owner that are `named` get it, whatever they listen to.
    """

    owner_id: str
    type: str
    at: datetime
    data: Callable[[], Mapping[str, Any]]
    named: Collection[UUID] = frozenset()


def scope_of(event_type: str) -> Scope:
    """Return the scope that is needed to learn of events of this type."""
    return _SCOPES[event_type.partition(".")[0]]


def of_mail(changed: EmailStatusChanged) -> WebhookEvent | None:
    """Return the event of a mail's new state; None for one of which webhooks do not tell."""
    event_type = f"email.{changed.status}"
    if event_type not in TYPES:
        return None
    return WebhookEvent(
        changed.owner_id,
        event_type,
        changed.at,
        lambda: {"id": changed.email_id, "status": changed.status},
    )


def of_batch(finished: BatchFinished, *, now: datetime) -> WebhookEvent:
    """Return the event of the end of a batch or task; its results are read with its id."""
    batch = finished.batch
    shown = {"id", "status", "operation", "counts", "errors", "metadata", "finished_at"}
    return WebhookEvent(
        finished.owner_id,
        f"{batch.kind}.{batch.status}",
        batch.finished_at or now,
        lambda: batch.model_dump(mode="json", include=shown),
    )


def of_firing(fired: AlertFired, *, named: Collection[UUID]) -> WebhookEvent:
    """Return the event that an alert has fired, for the webhooks that listen and those that are named."""
    firing = fired.firing
    return WebhookEvent(
        fired.owner_id, _FIRED, firing.as_of, lambda: firing.model_dump(mode="json"), named=named
    )

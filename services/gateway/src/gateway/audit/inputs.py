"""The entries of the audit trail, and the query that lists them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from gateway.http.filters import CreatedWithin, PageById, Several
from gateway.http.strict_json import MOST_ID


class Action(StrEnum):
    """A kind of change that is recorded."""

    USER_CREATED = "user.created"
    USER_CHANGED = "user.changed"
    USER_LINKED = "user.linked"
    KEY_CREATED = "key.created"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    DOMAIN_CREATED = "domain.created"
    DOMAIN_CHECKED = "domain.checked"
    DOMAIN_KEYS_ROTATED = "domain.keys-rotated"
    DOMAIN_DELETED = "domain.deleted"
    TEMPLATE_CREATED = "template.created"
    TEMPLATE_CHANGED = "template.changed"
    TEMPLATE_DELETED = "template.deleted"
    SUPPRESSION_ADDED = "suppression.added"
    SUPPRESSION_LIFTED = "suppression.lifted"
    RETENTION_CHANGED = "retention.changed"
    ALERT_CREATED = "alert.created"
    ALERT_DELETED = "alert.deleted"
    ROOM_MEMBER_CHANGED = "room.member-changed"
    ROOM_MEMBER_REMOVED = "room.member-removed"
    PARKED_REPLAYED = "parked.replayed"
    PARKED_DISCARDED = "parked.discarded"
    SCHEDULE_CREATED = "schedule.created"
    SCHEDULE_CHANGED = "schedule.changed"
    SCHEDULE_PAUSED = "schedule.paused"
    SCHEDULE_RESUMED = "schedule.resumed"
    SCHEDULE_TRIGGERED = "schedule.triggered"
    SCHEDULE_DELETED = "schedule.deleted"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_ROTATED = "webhook.rotated"
    WEBHOOK_DELETED = "webhook.deleted"
    WORK_PAUSED = "work.paused"
    WORK_RESUMED = "work.resumed"


class Actor(BaseModel):
    """The author of a change; `user_id` and `key_id` are null for a command on the host."""

    user_id: int | None
    name: str | None
    key_id: str | None


class AuditEntry(BaseModel):
    """One change. `before` and `after` have the changed fields, never a secret."""

    id: int
    at: datetime
    actor: Actor
    action: str
    target: str = Field(examples=["user:7", "api-key:0123456789abcdef"])
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None


class AuditPage(BaseModel):
    """Changes, the newest first."""

    data: list[AuditEntry]
    next_cursor: str | None = None


class AuditFilter(CreatedWithin):
    """A filter of changes."""

    user_id: int | None = Field(default=None, ge=1, le=MOST_ID, description="the user who made the change")
    key_id: str | None = Field(
        default=None, max_length=64, description="the key with which the change was made"
    )
    action: Several[Action] | None = None
    target: str | None = Field(default=None, max_length=255, examples=["user:7"])


class AuditQuery(AuditFilter, PageById):
    """The query of `GET /v1/admin/audit`."""

"""The events of webhooks, and the scope that each needs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args
from uuid import uuid4

import pytest

from contracts.emails import EmailStatus, EmailStatusChanged
from contracts.scopes import Scope
from gateway.webhooks import events


@pytest.mark.parametrize("status", get_args(EmailStatus))
def test_every_state_of_a_mail_but_those_on_the_way_is_an_event(status: EmailStatus) -> None:
    changed = EmailStatusChanged(email_id=uuid4(), owner_id="7", status=status, at=datetime.now(UTC))
    event = events.of_mail(changed)
    if status in ("queued", "sending"):
        assert event is None
        return
    assert event is not None
    assert (event.owner_id, event.type) == ("7", f"email.{status}")
    assert event.data() == {"id": changed.email_id, "status": status}


@pytest.mark.parametrize("event_type", [*events.TYPES, events.TEST])
def test_every_event_needs_the_scope_that_reads_its_object(event_type: str) -> None:
    scopes = {
        "email": Scope.EMAILS_READ,
        "batch": Scope.BATCHES_READ,
        "task": Scope.BATCHES_READ,
        "alert": Scope.ALERTS_READ,
        "webhook": Scope.WEBHOOKS_WRITE,
    }
    assert events.scope_of(event_type) == scopes[event_type.partition(".")[0]]

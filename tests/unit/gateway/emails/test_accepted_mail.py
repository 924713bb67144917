"""The state of a mail has a place among the changes of its status that email reports."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.acceptance.repository import Acceptance
from gateway.emails import accepted_mail

NOW = datetime(2026, 11, 28, 12, 0, 0, 123_457, tzinfo=UTC)
ACCEPTED = Acceptance(UUID(int=1), "7", "email", "queued", None, NOW, changed_at=NOW)


def test_a_state_is_behind_the_change_that_was_reported_last_and_before_the_next_one() -> None:
    # The clock of email may be behind that of the gateway.
    earlier, later = (accepted_mail.offset(NOW + timedelta(seconds=by)) for by in (-60, 60))
    deferred = replace(ACCEPTED, status="deferred")
    revisions = [
        accepted_mail.revision(ACCEPTED, status="queued"),
        accepted_mail.revision(ACCEPTED, status="delivered"),
        accepted_mail.revision(replace(ACCEPTED, status="parked"), status="parked"),
        earlier,
        accepted_mail.revision(deferred, status="deferred"),
        accepted_mail.revision(deferred, status="delivered"),
        later,
    ]
    assert revisions == sorted(set(revisions))
    assert revisions[4] == accepted_mail.offset(NOW)

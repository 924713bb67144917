"""The next step of a mail and its time, and the alert on mails that are overdue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.emails import RecipientStatus
from contracts.message import Next
from emailer.mails import promises

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
END = NOW + timedelta(hours=24)
LATEST = promises.LATEST
RULES = Path(__file__).parents[4] / "deploy" / "prometheus" / "rules" / "causes.yml"


@pytest.mark.parametrize(
    ("status", "due_at", "tries", "what", "by"),
    [
        ("queued", NOW, 0, "first attempt", NOW + LATEST),
        ("deferred", NOW, 1, "second attempt", NOW + LATEST),
        ("ambiguous", NOW, 10, "attempt 11", NOW + LATEST),
        ("deferred", END - timedelta(minutes=1), 2, "third attempt", END),
        ("deferred", END, 3, "the end: it expires", END),
        ("sending", NOW, 0, "the relay's answer", NOW + LATEST),
        ("held", None, 3, "your decision: retry or cancel it", None),
    ],
)
def test_an_open_mail_says_what_happens_next(
    status: RecipientStatus, due_at: datetime | None, tries: int, what: str, by: datetime | None
) -> None:
    assert promises.of_recipient(status, due_at=due_at, tries=tries, expires_at=END) == Next(what=what, by=by)


@pytest.mark.parametrize("status", ["delivered", "failed", "expired", "cancelled"])
def test_nothing_follows_a_final_state(status: RecipientStatus) -> None:
    assert promises.of_recipient(status, due_at=None, tries=1, expires_at=END) is None


def test_the_next_step_of_a_mail_is_the_earliest_of_its_recipients() -> None:
    soon, later, held = (
        Next(what="soon", by=NOW),
        Next(what="later", by=END),
        Next(what="a decision", by=None),
    )
    assert promises.of_mail([later, None, soon, held]) == soon
    assert promises.of_mail([None, held]) == held
    assert promises.of_mail([None]) is None


def test_the_alert_on_overdue_mails_holds_the_promise() -> None:
    seconds = int(promises.LATEST.total_seconds())
    assert f"max by (service, stream) (tickwire_email_oldest_due_seconds) > {seconds}\n" in RULES.read_text()


def test_a_mail_to_a_domain_with_a_rate_may_wait_until_it_expires() -> None:
    found = promises.of_recipient("queued", due_at=NOW, tries=0, expires_at=END, is_rated=True)
    assert found == Next(what="first attempt, when the rate of its domain allows it", by=END)

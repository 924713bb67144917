"""The next state of a recipient after an attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from contracts.emails import RecipientStatus
from contracts.parsed_addresses import ParsedAddress
from emailer.mails.letters import Letter
from emailer.mails.stored_mail import AttemptRecord, StoredMail
from emailer.sending import attempts
from emailer.sending.attempts import Job, Patience
from emailer.sending.outcomes import SmtpAnswer, SmtpReply

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
END = NOW + timedelta(hours=1)
DRAFT = AttemptRecord(NOW, "relay:25", "deferred", None, "", tls=True)
PATIENCE = Patience()


def job(*, tries: int = 0, was: RecipientStatus = "queued", doubts: int = 0) -> Job:
    letter = Letter(ParsedAddress("", "a@example.com"), "Hello", text="Hi")
    return Job(
        StoredMail(uuid4(), "o", letter, NOW, None, END, 1, None, None),
        0,
        "b@example.com",
        tries,
        was,
        doubts,
    )


def test_a_delivery_is_final_and_keeps_the_reply() -> None:
    answer = SmtpAnswer(SmtpReply(250, "ok"), "content")
    outcome = attempts.answered(job(), answer, draft=DRAFT, patience=PATIENCE)
    assert (outcome.status, outcome.due_at, outcome.tries) == ("delivered", None, 1)
    assert outcome.attempt == AttemptRecord(NOW, "relay:25", "delivered", 250, "ok", tls=True)


def test_a_deferral_comes_back_by_the_schedule() -> None:
    answer = SmtpAnswer(SmtpReply(451, "later"), "recipient")
    first = attempts.answered(job(), answer, draft=DRAFT, patience=PATIENCE)
    second = attempts.answered(job(tries=1), answer, draft=DRAFT, patience=PATIENCE)
    assert first.due_at == NOW + timedelta(minutes=1)
    assert second.due_at == NOW + timedelta(minutes=5)


def test_nothing_is_planned_beyond_the_end_of_a_mail() -> None:
    outcome = attempts.interrupted(job(tries=4), "gone", after_dot=False, draft=DRAFT, patience=PATIENCE)
    assert (outcome.status, outcome.due_at) == ("deferred", END)


@pytest.mark.parametrize(
    ("after_dot", "status"),
    [(False, "deferred"), (True, "ambiguous")],
    ids=["before the dot", "after the dot"],
)
def test_a_lost_connection_is_ambiguous_only_after_the_final_dot(after_dot: bool, status: str) -> None:
    outcome = attempts.interrupted(job(), "gone", after_dot=after_dot, draft=DRAFT, patience=PATIENCE)
    assert (outcome.status, outcome.due_at) == (status, NOW + timedelta(minutes=1))
    assert outcome.attempt is not None
    assert (outcome.attempt.outcome, outcome.attempt.code, outcome.attempt.text) == (status, None, "gone")


def test_an_ambiguous_mail_waits_for_a_decision_when_held() -> None:
    outcome = attempts.ambiguous(job(), "gone", draft=DRAFT, patience=Patience(on_ambiguous="hold"))
    assert (outcome.status, outcome.due_at) == ("held", None)
    assert outcome.attempt is not None
    assert outcome.attempt.outcome == "ambiguous"


def test_an_ambiguous_mail_is_repeated_twice_and_then_held() -> None:
    found = [
        attempts.ambiguous(job(tries=doubts, doubts=doubts), "gone", draft=DRAFT, patience=PATIENCE)
        for doubts in range(3)
    ]
    assert [(outcome.status, outcome.doubts) for outcome in found] == [
        ("ambiguous", 1),
        ("ambiguous", 2),
        ("held", 3),
    ]
    assert found[-1].due_at is None


def test_other_attempts_keep_the_count_of_ambiguous_ones() -> None:
    answer = SmtpAnswer(SmtpReply(451, "later"), "recipient")
    assert attempts.answered(job(doubts=2), answer, draft=DRAFT, patience=PATIENCE).doubts == 2
    assert attempts.given_back(job(doubts=2), at=NOW).doubts == 2


def test_a_refusal_that_is_not_final_is_tried_again() -> None:
    answer = SmtpAnswer(SmtpReply(554, "no"), "recipient")
    outcome = attempts.answered(job(), answer, draft=DRAFT, patience=PATIENCE, is_final=False)
    assert (outcome.status, outcome.due_at) == ("deferred", NOW + timedelta(minutes=1))
    assert outcome.attempt is not None
    assert outcome.attempt.code == 554


def test_the_mail_of_a_killed_process_is_repeated_at_once_but_not_for_ever() -> None:
    first = attempts.fallen(job(was="sending", tries=5), draft=DRAFT, patience=PATIENCE)
    last = attempts.fallen(job(was="sending", doubts=attempts.MOST_REPEATS), draft=DRAFT, patience=PATIENCE)
    assert (first.status, first.due_at) == ("ambiguous", NOW)
    assert (last.status, last.due_at) == ("held", None)
    held = attempts.fallen(job(was="sending"), draft=DRAFT, patience=Patience(on_ambiguous="hold"))
    assert held.due_at is None


def test_a_job_that_was_not_begun_counts_no_attempt() -> None:
    given_back = attempts.given_back(job(was="deferred", tries=2), at=NOW)
    assert (given_back.status, given_back.due_at, given_back.tries) == ("deferred", NOW, 2)
    assert given_back.attempt is None
    assert attempts.expired(job(tries=2)).attempt is None

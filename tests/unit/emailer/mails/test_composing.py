"""From a command to a letter, or to the reason why there is none."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from contracts.emails import SendEmail
from emailer.mails import intake
from emailer.mails.intake import PreparedMail
from emailer.mails.letters import File

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def accept(**fields: Any) -> PreparedMail:
    usual = {"email_id": uuid4(), "owner_id": "o", "to": ["a@example.com"], "text": "Hi", "accepted_at": NOW}
    command = SendEmail.model_validate(usual | fields)
    return intake.accept(command, default_sender="Tickwire <no-reply@example.com>", expires_after_s=3600)


def attachment(**fields: Any) -> dict[str, Any]:
    return {"filename": "a.txt", "content": base64.b64encode(b"abc").decode(), **fields}


def test_a_plain_command_is_due_at_once_and_ends_in_time() -> None:
    accepted = accept()
    assert (accepted.status, accepted.due_at) == ("queued", NOW)
    assert accepted.expires_at == NOW + timedelta(hours=1)
    assert accepted.letter is not None
    assert accepted.letter.sender.address == "no-reply@example.com"


def test_a_time_to_send_at_moves_the_due_time_and_the_expiry() -> None:
    accepted = accept(send_at=NOW + timedelta(days=2))
    assert accepted.due_at == NOW + timedelta(days=2)
    assert accepted.expires_at == NOW + timedelta(days=2, hours=1)


def test_a_past_time_means_now_and_a_given_end_is_kept() -> None:
    accepted = accept(send_at=NOW - timedelta(days=2), expires_at=NOW + timedelta(minutes=10))
    assert accepted.due_at == NOW
    assert accepted.expires_at == NOW + timedelta(minutes=10)


def test_each_address_gets_one_mail() -> None:
    accepted = accept(to=["A <a@example.com>"], cc=["a@example.com", "b@example.com"], bcc=["b@EXAMPLE.com"])
    assert [(a.kind, a.shown) for a in accepted.addressees] == [
        ("to", "a@example.com"),
        ("cc", "b@example.com"),
    ]


def test_a_wrong_address_is_kept_for_the_record_and_left_out_of_the_letter() -> None:
    accepted = accept(to=["a@example.com", "nobody\nBcc: x"])
    assert accepted.status == "queued"
    assert [accepted.status_of(a) for a in accepted.addressees] == ["queued", "failed"]
    assert accepted.addressees[1].shown == "nobody\ufffdBcc: x"
    assert accepted.letter is not None
    assert [address.address for address in accepted.letter.to] == ["a@example.com"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"to": []}, "1 to 50 recipients"),
        ({"bcc": [f"r{n}@example.com" for n in range(50)]}, "more than 50 recipients"),
        ({"text": None}, "text, html or both must be given"),
        ({"text": "a\0b"}, "text: must not contain U+0000"),
        ({"subject": "a\nb"}, "subject: must be one line"),
        ({"subject": "a" * 901}, "subject: must have at most 900 characters"),
        ({"sender": "nobody"}, "sender: must be an e-mail address"),
        ({"reply_to": "a@example.com\r\nBcc: b@example.com"}, "reply_to.0: must be one line"),
        ({"headers": {"Bcc": "b@example.com"}}, "headers: the header Bcc is reserved"),
        ({"attachments": [attachment(content="?")]}, "attachments.0.content: must be base64"),
        ({"metadata": {"n": 10**20}}, "metadata: must not contain integers beyond"),
        ({"send_at": datetime.max.replace(tzinfo=UTC)}, "send_at: must be at most 366 days ahead"),
    ],
)
def test_a_mail_that_cannot_be_sent_safely_fails_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    accepted = accept(**fields)
    assert (accepted.status, accepted.letter) == ("failed", None)
    assert accepted.refusal is not None
    assert accepted.refusal.startswith("not sent: ")
    assert reason in accepted.refusal
    assert all(accepted.status_of(addressee) == "failed" for addressee in accepted.addressees)


def test_a_mail_to_wrong_addresses_only_is_failed() -> None:
    assert accept(to=["nobody"]).status == "failed"


def test_an_attachment_is_decoded_and_its_content_id_bared() -> None:
    accepted = accept(attachments=[attachment(content_id="<logo@x>", content_type="image/png")])
    assert accepted.letter is not None
    assert accepted.letter.files == (File("a.txt", "image/png", b"abc", "logo@x"),)
    assert accepted.letter.size_bytes > 3

"""Mails as they are asked for: addresses, headers, attachments; and email takes what is taken here."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.emails import Attachment, SendEmail
from emailer import letters
from emailer.errors import Refused
from gateway.emails.inputs import EmailInput, address

MAIL: dict[str, Any] = {"to": ["ann@example.com"], "subject": "Hello", "text": "How are you?"}
SEPARATORS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
CONTROLS = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))]
FILE = {"filename": "a.txt", "content": base64.b64encode(b"hello").decode()}


def mail(**changes: Any) -> EmailInput:
    return EmailInput.model_validate({**MAIL, **changes})


def refused_at(**changes: Any) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        mail(**changes)
    return ["/".join(str(part) for part in error["loc"]) for error in refused.value.errors()]


@pytest.mark.parametrize(
    "text",
    [
        "ann@example.com",
        "Ann <ann@example.com>",
        '"Ann, the first" <ann@example.com>',
        "ann+tag@sub.example.com",
        "grüße@example.com",
        "ann@münchen.example.com",
    ],
)
def test_addresses_are_bare_or_named(text: str) -> None:
    assert mail(to=[text]).to == [text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ann",
        "ann@",
        "@example.com",
        "a b@example.com",
        "a@b@example.com",
        "ann@example",
        "ann@-x-.com",
    ],
)
def test_what_is_no_address_is_named_by_its_place(text: str) -> None:
    assert refused_at(to=["ok@example.com", text]) == ["to/1"]


@given(st.text(max_size=100))
def test_any_text_is_an_address_or_refused_and_never_another_error(text: str) -> None:
    try:
        assert address(text) == text
    except ValueError:
        return


@pytest.mark.parametrize("separator", SEPARATORS + CONTROLS)
@pytest.mark.parametrize("place", ["{}evil", "he{}llo", "hello{}"])
def test_no_header_can_be_broken_into_two(separator: str, place: str) -> None:
    evil = place.format(separator)
    assert refused_at(subject=evil) == ["subject"]
    assert refused_at(headers={"X-Note": evil}) == ["headers/X-Note"]
    assert refused_at(attachments=[{**FILE, "filename": evil}]) == ["attachments/0/filename"]
    assert "attachments/0/content_id" in refused_at(attachments=[{**FILE, "content_id": evil}])
    assert "attachments/0/content_type" in refused_at(attachments=[{**FILE, "content_type": f"text/{evil}"}])
    for field in ("to", "cc", "bcc"):
        assert refused_at(**{field: [f"A{separator} <a@example.com>"]}) == [f"{field}/0"]
    assert refused_at(**{"from": f"a@example.com{separator}"}) == ["from"]
    assert refused_at(reply_to=f"{separator}a@example.com") == ["reply_to"]


@given(st.text(max_size=30))
def test_a_subject_that_is_taken_is_one_line(text: str) -> None:
    try:
        subject = mail(subject=text).subject
    except ValidationError:
        return
    assert len(subject.splitlines()) <= 1
    assert subject == text


@pytest.mark.parametrize(
    "name",
    [
        "From",
        "BCC",
        "subject",
        "Content-Type",
        "DKIM-Signature",
        "Received",
        "ARC-Seal",
        "X Y",
        "X:Y",
        "",
        "Ü",
        "X\n",
    ],
)
def test_some_headers_cannot_be_set(name: str) -> None:
    assert refused_at(headers={name: "x"}) == [""]


def test_own_headers_can_be_set() -> None:
    assert mail(headers={"X-Campaign": "spring", "List-Id": "news"}).headers["X-Campaign"] == "spring"


@pytest.mark.parametrize("content", ["%%%", "abc", "ü", "aGVsbG8=\n"])
def test_an_attachment_is_base64(content: str) -> None:
    assert refused_at(attachments=[{**FILE, "content": content}]) == ["attachments/0"]


@pytest.mark.parametrize(
    "content_type", ["text", "text/", "multipart/mixed", "message/rfc822", "tëxt/plain", "a/b/c"]
)
def test_an_attachment_has_a_plain_media_type(content_type: str) -> None:
    assert refused_at(attachments=[{**FILE, "content_type": content_type}]) == ["attachments/0/content_type"]


def test_a_mail_needs_somebody_and_something() -> None:
    assert refused_at(to=[]) == [""]
    assert refused_at(text=None) == [""]
    assert mail(text=None, html="<p>x</p>").html == "<p>x</p>"
    assert mail(to=[], bcc=["ann@example.com"]).bcc == ["ann@example.com"]


def test_fifty_recipients_are_the_most_in_all() -> None:
    fifty = [f"a{number}@example.com" for number in range(50)]
    assert len(mail(to=fifty).to) == 50
    assert refused_at(to=fifty, cc=["one@example.com"]) == [""]
    assert refused_at(to=[*fifty, "one@example.com"]) == ["to"]


def test_times_have_a_zone_and_come_in_order() -> None:
    assert refused_at(send_at="2030-01-01T00:00:00") == ["send_at"]
    assert refused_at(send_at="0001-01-01T00:00:00+10:00") == ["send_at"]
    assert refused_at(send_at="2030-01-02T00:00:00Z", expires_at="2030-01-01T00:00:00Z") == [""]
    moved = mail(send_at="2030-01-01T02:00:00+02:00").send_at
    assert moved == datetime(2030, 1, 1, tzinfo=UTC)


def test_unknown_fields_are_refused() -> None:
    assert refused_at(subjekt="x") == ["subjekt"]


NAMES = st.text(st.characters(codec="utf-8"), max_size=120)


@given(subject=NAMES, header=NAMES, filename=NAMES, content_id=NAMES, name=NAMES)
def test_what_is_taken_here_can_be_written_by_email(
    subject: str, header: str, filename: str, content_id: str, name: str
) -> None:
    file = {**FILE, "filename": filename, "content_id": content_id or None}
    to = [f"{name} <ann@example.com>"] if name else ["ann@example.com"]
    try:
        taken = mail(subject=subject, headers={"X-Note": header}, attachments=[file], to=to)
    except ValidationError:
        return
    command = as_command(taken)
    addressees = letters.addressees(command)
    assert [addressee.refusal for addressee in addressees] == [None]
    letters.write(command, default_sender="from@example.com", recipients=addressees)


@given(st.text(st.characters(max_codepoint=0x7F), max_size=80))
def test_a_header_or_type_that_is_taken_here_is_taken_by_email(text: str) -> None:
    for change in ({"headers": {text: "x"}}, {"attachments": [{**FILE, "content_type": text}]}):
        try:
            command = as_command(mail(**change))
        except ValidationError:
            continue
        try:
            letters.write(command, default_sender="f@example.com", recipients=letters.addressees(command))
        except Refused as error:
            raise AssertionError(f"{change} was accepted and then refused: {error}") from error


def as_command(mail: EmailInput) -> SendEmail:
    return SendEmail(
        email_id=UUID(int=1),
        owner_id="1",
        accepted_at=datetime(2026, 1, 1, tzinfo=UTC),
        attachments=[Attachment(**attachment.model_dump()) for attachment in mail.attachments],
        **mail.model_dump(exclude={"attachments"}),
    )

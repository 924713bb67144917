"""The one description of a mail: every interface takes it, and the email service can send it."""

from __future__ import annotations

import base64
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from contracts import mail_headers
from contracts.emails import SendEmail
from contracts.mail import MOST_UPLOAD_BYTES, Mail
from emailer.errors import UnsendableMail
from emailer.mails import composing
from emailer.mails.letters import Letter

MAIL: dict[str, Any] = {"to": ["ann@example.com"], "subject": "Hello", "text": "How are you?"}
SEPARATORS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
CONTROLS = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))]
FILE = {"filename": "a.txt", "content": base64.b64encode(b"hello").decode()}


def mail(**changes: Any) -> Mail:
    return Mail.model_validate({**MAIL, **changes})


def refused_at(**changes: Any) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        mail(**changes)
    return ["/".join(str(part) for part in error["loc"]) for error in refused.value.errors()]


@pytest.mark.parametrize("separator", SEPARATORS + CONTROLS)
@pytest.mark.parametrize("place", ["{}evil", "he{}llo", "hello{}"])
def test_no_header_can_be_broken_into_two(separator: str, place: str) -> None:
    evil = place.format(separator)
    assert refused_at(subject=evil) == ["subject"]
    assert refused_at(headers={"X-Note": evil}) == ["headers/X-Note"]
    assert refused_at(attachments=[{**FILE, "filename": evil}]) == ["attachments/0/filename"]
    assert "attachments/0/content_id" in refused_at(attachments=[{**FILE, "content_id": evil}])
    assert "attachments/0/content_type" in refused_at(attachments=[{**FILE, "content_type": f"text/{evil}"}])
    for field in ("to", "cc", "bcc", "reply_to"):
        assert refused_at(**{field: [f"A{separator} <a@example.com>"]}) == [f"{field}/0"]
    assert refused_at(**{"from": f"a@example.com{separator}"}) == ["from"]
    assert refused_at(reply_to=f"{separator}a@example.com") == ["reply_to/0"]


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (None, None),
        ([], None),
        ("A <a@example.com>", "A <a@example.com>"),
        (["a@example.com"], "a@example.com"),
        (["a@example.com", "B <b@example.com>"], ["a@example.com", "B <b@example.com>"]),
    ],
)
def test_replies_go_to_one_address_or_several(given: Any, command: Any) -> None:
    found = SendEmail.of(
        mail(reply_to=given), email_id=UUID(int=1), owner_id="ann", accepted_at=datetime.now(UTC)
    )
    assert found.reply_to == command


def test_replies_go_to_ten_addresses_at_most() -> None:
    many = [f"r{number}@example.com" for number in range(11)]
    assert len(mail(reply_to=many[:10]).reply_to) == 10
    assert refused_at(reply_to=many) == ["reply_to"]


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
        "Message-Id",
        "MIME-Version",
        "Resent-To",
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
    assert refused_at(headers={name: "x"}) == ["headers"]


def test_own_headers_can_be_set() -> None:
    assert mail(headers={"X-Campaign": "spring", "List-Id": "news"}).headers["X-Campaign"] == "spring"


def test_a_header_is_set_once_whatever_its_case() -> None:
    assert refused_at(headers={"References": "<a@b>", "references": "<c@d>"}) == ["headers"]


@pytest.mark.parametrize("name", sorted(mail_headers.STRUCTURED))
def test_a_header_that_programs_read_is_ascii(name: str) -> None:
    assert refused_at(headers={name: "<https://example.com/ü>"}) == ["headers"]
    assert mail(headers={name: "<https://example.com/=?x>"}).headers


@pytest.mark.parametrize("name", ["List-Id", "Feedback-ID", "Errors-To", "Return-Receipt-To"])
def test_a_header_that_holds_an_identifier_or_an_address_is_one_that_programs_read(name: str) -> None:
    assert refused_at(headers={name: "Grüße <news.example.com>"}) == ["headers"]
    assert mail(headers={name: "=?utf-8?q?Gr=C3=BC=C3=9Fe?= <news.example.com>"}).headers


@pytest.mark.parametrize("content", ["%%%", "abc", "ü", "aGVsbG8"])
def test_an_attachment_is_base64(content: str) -> None:
    assert refused_at(attachments=[{**FILE, "content": content}]) == ["attachments/0/content"]


def test_base64_may_be_wrapped_into_lines() -> None:
    wrapped = base64.encodebytes(bytes(range(256))).decode()
    (file,) = mail(attachments=[{**FILE, "content": wrapped}]).attachments
    assert base64.b64decode(file.content, validate=True) == bytes(range(256))


@pytest.mark.parametrize(
    "content_type",
    [
        *("text", "text/", "multipart/mixed", "message/partial", "tëxt/plain", "a/b/c", "text/plain;"),
        *("text/plain; name=x", "text/plain; a=1; A=2", 'text/plain; a="b"', "text/plain; a=b; boundary=c"),
    ],
)
def test_an_attachment_has_a_plain_media_type(content_type: str) -> None:
    assert refused_at(attachments=[{**FILE, "content_type": content_type}]) == ["attachments/0/content_type"]


def test_a_calendar_names_its_method() -> None:
    kind = "text/calendar; method=REQUEST; charset=utf-8"
    assert mail(attachments=[{**FILE, "content_type": kind}]).attachments[0].content_type == kind


@pytest.mark.parametrize(
    ("content", "is_taken"),
    [
        (b"Subject: x\n\nHi\n", True),
        ("Subject: ü\n\n".encode(), False),
        (b"x" * 998, True),
        (b"a\n" + b"x" * 999, False),
        (b"a\0", False),
    ],
)
def test_an_attached_mail_is_one_that_needs_no_encoding(content: bytes, is_taken: bool) -> None:
    file = {"filename": "a.eml", "content": base64.b64encode(content).decode()}
    if is_taken:
        assert mail(attachments=[{**file, "content_type": "message/rfc822"}])
    else:
        refused = refused_at(attachments=[{**file, "content_type": "Message/RFC822"}])
        assert refused == ["attachments/0"]


@pytest.mark.parametrize("given", ["<a.1@example.com>", "a.1@example.com"])
def test_a_message_id_may_be_chosen(given: str) -> None:
    assert mail(message_id=given).message_id == "<a.1@example.com>"


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "a", "<a@b", "a b@example.com", "a@b>\r\nBcc: x", "ü@example.com", "a..b@example.com", "@"),
        *(".a@example.com", "a.@example.com", "a@.example.com", "a@example..com", "a@example.com."),
        *("a@b@example.com", f"{'a' * 121}@example.com", f"a@{'b' * 121}"),
    ],
)
def test_a_message_id_is_one_word_in_two_parts(wrong: str) -> None:
    assert refused_at(message_id=wrong) == ["message_id"]


def test_a_mail_needs_a_recipient_and_a_content() -> None:
    assert refused_at(to=[]) == [""]
    assert refused_at(text=None) == [""]
    assert mail(text=None, html="<p>x</p>").html == "<p>x</p>"
    assert mail(to=[], bcc=["ann@example.com"]).bcc == ["ann@example.com"]


def test_twenty_attachments_are_the_most() -> None:
    files = [{"filename": f"{number}.txt", "content": "eA=="} for number in range(21)]
    assert len(mail(attachments=files[:20]).attachments) == 20
    assert refused_at(attachments=files) == ["attachments"]


def test_fifty_recipients_are_the_most_in_all() -> None:
    fifty = [f"a{number}@example.com" for number in range(50)]
    assert len(mail(to=fifty).to) == 50
    assert refused_at(to=fifty, cc=["one@example.com"]) == [""]
    assert refused_at(to=[*fifty, "one@example.com"]) == ["to"]


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-01T00:00:00",
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-10:00",
        "1",
        "1800000000",
        1,
        1.5,
        True,
    ],
)
@pytest.mark.parametrize("field", ["send_at", "expires_at"])
def test_a_time_is_a_timestamp_with_a_zone_within_a_year(field: str, time: object) -> None:
    assert refused_at(**{field: time}) == [field]


def test_times_come_in_order_and_are_kept_in_utc() -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    local = soon.astimezone(timezone(timedelta(hours=2)))
    assert mail(send_at=local.isoformat()).send_at == soon
    assert mail(send_at=local.isoformat(), expires_at=(soon + timedelta(seconds=1)).isoformat()).send_at
    assert refused_at(send_at=soon.isoformat(), expires_at=soon.isoformat()) == [""]


def test_a_mail_cannot_expire_before_it_is_asked_for() -> None:
    assert refused_at(expires_at=(datetime.now(UTC) - timedelta(seconds=1)).isoformat()) == [""]
    assert mail(send_at="2020-01-01T00:00:00Z").send_at


@pytest.mark.parametrize("number", [10**20, -(2**53) - 1, 2**53 + 1, math.inf, math.nan])
def test_metadata_must_come_back_exactly(number: float) -> None:
    assert refused_at(metadata={"n": [{"m": number}]}) == ["metadata"]


def test_metadata_is_nested_64_levels_at_most() -> None:
    fits: dict[str, Any] = {}
    for _ in range(63):
        fits = {"x": fits}
    assert mail(metadata=fits).metadata == fits
    assert refused_at(metadata={"x": fits}) == ["metadata"]


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_metadata_contains_no_text_that_cannot_be_stored(text: str) -> None:
    assert refused_at(metadata={"n": text})[0].startswith("metadata")
    assert refused_at(metadata={"n": {text: 1}})[0].startswith("metadata")


def test_metadata_is_carried_as_it_is() -> None:
    metadata = {"n": [2**53, -(2**53), 0.1, True, None, {"ü": "ö"}]}
    assert mail(metadata=metadata).metadata == metadata


@pytest.mark.parametrize("fields", [{"text": "a\0b"}, {"html": "a\0b"}, {"tags": ["a\0"]}])
def test_a_nul_is_refused_where_it_stands(fields: dict[str, Any]) -> None:
    assert refused_at(**fields)[0].startswith(next(iter(fields)))


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
def test_one_address_stands_for_a_list_of_one(field: str) -> None:
    assert getattr(mail(**{field: "Bob <bob@example.com>"}), field) == ["Bob <bob@example.com>"]


def test_unknown_fields_are_refused() -> None:
    assert refused_at(subjekt="x") == ["subjekt"]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=120)


@given(subject=TEXTS, header=TEXTS, filename=TEXTS, content_id=TEXTS, name=TEXTS)
def test_a_mail_that_the_api_takes_can_be_sent(
    subject: str, header: str, filename: str, content_id: str, name: str
) -> None:
    file = {**FILE, "filename": filename, "content_id": content_id or None}
    to = [f"{name} <ann@example.com>"] if name else ["ann@example.com"]
    try:
        taken = mail(subject=subject, headers={"X-Note": header}, attachments=[file], to=to)
    except ValidationError:
        return
    command = as_command(taken)
    addressees = composing.addressees(command)
    assert [addressee.refusal for addressee in addressees] == [None]
    composing.write(command, default_sender="from@example.com", recipients=addressees)


@given(st.text(st.characters(max_codepoint=0x7F), max_size=80))
def test_a_header_or_type_that_the_api_accepts_can_be_sent(text: str) -> None:
    for change in ({"headers": {text: "x"}}, {"attachments": [{**FILE, "content_type": text}]}):
        try:
            command = as_command(mail(**change))
        except ValidationError:
            continue
        composing.write(command, default_sender="f@example.com", recipients=composing.addressees(command))


def as_command(mail: Mail) -> SendEmail:
    return SendEmail.of(
        mail, email_id=UUID(int=1), owner_id="1", accepted_at=datetime(2026, 1, 1, tzinfo=UTC)
    )


def test_a_time_as_json_writes_it_is_accepted_in_strict_mode() -> None:
    asked = b'{"to":["ann@example.com"],"text":"x","send_at":"%s"}'
    planned = (datetime.now(UTC) + timedelta(days=1)).isoformat().encode()
    mail = TypeAdapter(Mail).validate_json(asked % planned, strict=True)
    assert mail.send_at is not None
    for wrong in (b"2026-11-27T10:00:00", b"1795773600", b"2026-11-27T"):
        with pytest.raises(ValidationError):
            TypeAdapter(Mail).validate_json(asked % wrong, strict=True)


UPLOADED = {"filename": "a.pdf", "upload_id": "0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11"}


def test_an_attachment_has_its_content_or_names_an_upload() -> None:
    [file] = mail(attachments=[UPLOADED]).attachments
    assert str(file.upload_id) == UPLOADED["upload_id"]
    assert refused_at(attachments=[{"filename": "a.pdf"}]) == ["attachments/0"]
    assert refused_at(attachments=[{**FILE, **UPLOADED}]) == ["attachments/0"]
    assert refused_at(attachments=[{**UPLOADED, "upload_id": "7"}]) == ["attachments/0/upload_id"]


def test_a_mail_is_not_attached_by_upload_because_every_relay_must_take_its_bytes() -> None:
    assert refused_at(attachments=[{**UPLOADED, "content_type": "message/rfc822"}]) == ["attachments/0"]


def test_a_mail_with_uploads_of_another_owner_or_too_many_bytes_cannot_be_sent() -> None:
    one, other = UUID(int=1), UUID(int=2)
    asked = mail(attachments=[{**UPLOADED, "upload_id": str(each)} for each in (one, other)])
    command = SendEmail.of(asked, email_id=UUID(int=3), owner_id="7", accepted_at=datetime.now(UTC))
    recipients = composing.addressees(command)

    def write(uploads: dict[tuple[UUID, str], int]) -> Letter:
        return composing.write(
            command, default_sender="f@example.com", recipients=recipients, uploads=uploads
        )

    with pytest.raises(UnsendableMail, match=f"attachments.1.upload_id: there is no upload {other}"):
        write({(one, "7"): 5, (other, "8"): 5})
    half = MOST_UPLOAD_BYTES // 2
    assert write({(one, "7"): half, (other, "7"): half}).upload_ids == {one, other}
    with pytest.raises(UnsendableMail, match=f"more than {MOST_UPLOAD_BYTES}"):
        write({(one, "7"): half, (other, "7"): half + 1})

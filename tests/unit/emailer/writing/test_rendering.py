"""The program of a reader understands every mail that is written, in lines that every relay takes."""

from __future__ import annotations

import email
import re
from datetime import UTC, datetime
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.parsed_addresses import ParsedAddress
from emailer.mails import letters
from emailer.mails.letters import File, Letter
from emailer.writing import rendering

AT = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
SENDER = ParsedAddress("Tickwire", "no-reply@example.com")
READER = ParsedAddress("", "reader@example.com")

safe_text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=200)


def read(letter: Letter) -> EmailMessage:
    written = rendering.render(letter, identity="<1@example.com>", at=AT)
    lines = written.split(b"\r\n")
    assert all(b"\n" not in line and b"\r" not in line and len(line) <= 998 for line in lines)
    message = email.message_from_bytes(written, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert isinstance(part, EmailMessage)
    return content(part)


def content(part: EmailMessage) -> str:
    text: str = part.get_content()
    return text.replace("\r\n", "\n")


def test_a_message_id_is_the_same_for_all_copies_at_every_attempt() -> None:
    key = UUID("01939c9c-0000-7000-8000-000000000000")
    written = letters.message_id(key, domain="example.com")
    assert written == "<01939c9c-0000-7000-8000-000000000000@example.com>"


def test_the_usual_headers_are_there() -> None:
    letter = Letter(
        SENDER, "Hello", (READER,), cc=(ParsedAddress("B", "b@example.com"),), reply_to=(READER,), text="Hi"
    )
    message = read(letter)
    assert message["from"] == "Tickwire <no-reply@example.com>"
    assert message["to"] == "reader@example.com"
    assert message["cc"] == "B <b@example.com>"
    assert message["reply-to"] == "reader@example.com"
    assert message["date"].datetime == AT
    assert message["message-id"] == "<1@example.com>"
    assert message["mime-version"] == "1.0"
    assert content(message) == "Hi\n"


def test_replies_may_go_to_several_addresses() -> None:
    letter = Letter(
        SENDER, "Hello", (READER,), reply_to=(READER, ParsedAddress("B", "b@example.com")), text="Hi"
    )
    assert read(letter)["reply-to"] == "reader@example.com, B <b@example.com>"


def test_a_mail_to_hidden_recipients_is_addressed_to_undisclosed_recipients() -> None:
    assert read(Letter(SENDER, "Hello", text="Hi"))["to"] == "undisclosed-recipients:;"


def test_html_alone_gets_a_text_part() -> None:
    message = read(Letter(SENDER, "Hello", (READER,), html="<p>Hi <b>there</b></p>"))
    assert message.get_content_type() == "multipart/alternative"
    assert body(message, "plain") == "Hi there\n"
    assert body(message, "html") == "<p>Hi <b>there</b></p>\n"


def test_attachments_come_beside_the_bodies_and_inline_ones_with_the_html() -> None:
    files = (
        File("grüße.pdf", "application/pdf", b"%PDF\0\r\n", None),
        File("logo.png", "image/png", b"\x89PNG", "logo"),
    )
    message = read(Letter(SENDER, "Hello", (READER,), text="Hi", html="<img src='cid:logo'>", files=files))
    assert message.get_content_type() == "multipart/mixed"
    attached = list(message.iter_attachments())
    assert [(a.get_filename(), a.get_content()) for a in attached] == [("grüße.pdf", b"%PDF\0\r\n")]
    inline = [part for part in message.walk() if part["content-id"] == "<logo>"]
    assert [(part.get_content_type(), part.get_content_disposition()) for part in inline] == [
        ("image/png", "inline")
    ]


@pytest.mark.parametrize("html", [None, "<p>Hi</p>"])
def test_an_invitation_stands_beside_the_text_and_an_attached_mail_is_not_encoded(html: str | None) -> None:
    inner = b"Subject: inner\n\n.\n..x\nFrom here\n"
    files = (
        File("invite.ics", "text/calendar; method=REQUEST; charset=utf-8", b"BEGIN:VCALENDAR\r\n"),
        File("old.ics", "text/calendar", b"BEGIN:VCALENDAR\r\n"),
        File("old.eml", "message/rfc822", inner),
    )
    message = read(Letter(SENDER, "Hello", (READER,), text="Hi", html=html, files=files))
    alternative, calendar, attached = message.iter_parts()
    assert [part.get_content_type() for part in alternative.iter_parts()][-1] == "text/calendar"
    (invitation,) = [part for part in alternative.walk() if part.get_content_type() == "text/calendar"]
    assert invitation.get_param("method") == "REQUEST"
    assert invitation.get_payload(decode=True) == files[0].content
    assert calendar.get_content_disposition() == "attachment"
    assert attached.get_content_type() == "message/rfc822"
    written = rendering.render(
        Letter(SENDER, "Hello", (READER,), text="Hi", html=html, files=files),
        identity="<1@example.com>",
        at=AT,
    )
    # Its last line end is not the one before the boundary: another mail's signature may cover it.
    assert b"\r\n\r\n" + inner.replace(b"\n", b"\r\n") + b"\r\n--" in written


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/calendar; method=REQUEST", "utf-8"),
        ("text/calendar", "utf-8"),
        ("text/calendar;charset=us-ascii", "us-ascii"),
        ("text/csv", None),
    ],
)
def test_a_calendar_names_its_charset_as_its_standard_requires(
    content_type: str, charset: str | None
) -> None:
    files = (File("a.ics", content_type, "SUMMARY:Grüße\r\n".encode()),)
    message = read(Letter(SENDER, "Hello", (READER,), text="Hi", files=files))
    (part,) = [part for part in message.walk() if part.get_content_subtype() in ("calendar", "csv")]
    assert part.get_param("charset") == charset


def test_pictures_inside_the_html_name_its_type_as_their_standard_requires() -> None:
    files = (File("logo.png", "image/png", b"\x89PNG", "logo"),)
    message = read(Letter(SENDER, "Hello", (READER,), html="<img src='cid:logo'>", files=files))
    (related,) = [part for part in message.walk() if part.get_content_type() == "multipart/related"]
    assert related.get_param("type") == "text/html"


def test_an_inline_file_without_html_is_an_ordinary_attachment() -> None:
    files = (File("a.txt", "text/plain", b"a", "a"),)
    message = read(Letter(SENDER, "Hello", (READER,), text="Hi", files=files))
    assert [part.get_filename() for part in message.iter_attachments()] == ["a.txt"]


def test_a_long_list_of_recipients_is_folded_and_complete() -> None:
    readers = tuple(ParsedAddress(f"Reader {n}", f"reader-{n}@example.com") for n in range(300))
    message = read(Letter(SENDER, "Hello", readers, text="Hi"))
    found = message["to"].addresses
    assert [(a.display_name, a.addr_spec) for a in found] == [(m.name, m.address) for m in readers]


@given(safe_text)
def test_any_safe_subject_arrives(subject: str) -> None:
    message = read(Letter(SENDER, subject, (READER,), text="Hi"))
    assert " ".join(str(message["subject"]).split()) == " ".join(subject.split())


@given(safe_text)
def test_any_safe_name_arrives(name: str) -> None:
    letter = Letter(SENDER, "Hello", (ParsedAddress(name, "reader@example.com"),), text="Hi")
    read(letter)
    # The newer parser of the standard library keeps the space between two encoded words; this one is right.
    written = email.message_from_bytes(rendering.render(letter, identity="<1@example.com>", at=AT))
    shown, address = parseaddr(written["to"].replace("\r\n", ""))
    assert address == "reader@example.com"
    assert " ".join(str(make_header(decode_header(shown))).split()) == " ".join(name.split())


@given(st.text(max_size=3000).filter(lambda text: "\0" not in text and text.isprintable()))
def test_any_text_arrives(text: str) -> None:
    message = read(Letter(SENDER, "Hello", (READER,), text=text))
    assert content(message) == text + "\n"


@given(safe_text)
def test_any_safe_header_arrives(value: str) -> None:
    message = read(Letter(SENDER, "Hello", (READER,), headers=(("X-Note", value),), text="Hi"))
    assert " ".join(str(message["x-note"]).split()) == " ".join(value.split())


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_a_header_that_programs_read_arrives_without_an_encoded_word(value: str) -> None:
    letter = Letter(SENDER, "Hello", (READER,), headers=(("List-Unsubscribe", value),), text="Hi")
    written = rendering.render(letter, identity="<1@example.com>", at=AT)
    (line,) = re.findall(rb"List-Unsubscribe: (.*(?:\r\n .*)*)\r\n", written)
    assert line.replace(b"\r\n", b"").decode() == value


def test_a_header_that_programs_read_is_encoded_if_an_older_release_has_stored_it_beyond_ascii() -> None:
    message = read(Letter(SENDER, "Hello", (READER,), headers=(("List-Id", "Grüße <n.example>"),), text="Hi"))
    assert str(message["list-id"]) == "Grüße <n.example>"


@pytest.mark.parametrize("length", [1, 20, 60, 70, 76])
@given(value=safe_text)
def test_a_header_with_a_name_of_any_length_arrives(length: int, value: str) -> None:
    name = "X" * length
    message = read(Letter(SENDER, "Hello", (READER,), headers=((name, value),), text="Hi"))
    assert " ".join(str(message[name]).split()) == " ".join(value.split())


@pytest.mark.parametrize("value", ["a" * 900, "a " * 450, " " * 900, "a" + " " * 898 + "b", "ü" * 900])
def test_the_longest_values_fit_their_lines(value: str) -> None:
    headers = (("X" * 76, value), ("X-Note", value))
    message = read(Letter(SENDER, value, (READER,), headers=headers, text="Hi"))
    assert str(message["subject"]).split() == value.split()


def test_no_line_of_a_folded_header_is_blank() -> None:
    letter = Letter(SENDER, "a" * 900, (READER,), headers=(("X-Note", " " * 200 + "b" * 100),), text="Hi")
    head = rendering.render(letter, identity="<1@example.com>", at=AT).partition(b"\r\n\r\n")[0]
    assert b"Subject: a" in head
    assert all(line.strip() for line in head.split(b"\r\n"))


@pytest.mark.parametrize("address", ["reader@example.com", "jörg@example.com"])
@pytest.mark.parametrize("name", ["=?utf-8?q?Bank=20Security?=", "=?us-ascii?b?QmFuaw==?= x", "a =?"])
def test_an_encoded_word_in_a_name_is_data(name: str, address: str) -> None:
    letter = Letter(SENDER, "Hello", (ParsedAddress(name, address),), text="Hi")
    assert [a.display_name for a in read(letter)["to"].addresses] == [name]


@pytest.mark.parametrize(
    "filename",
    [
        "\U0001f600" * 98 + ".p",
        "a" * 100,
        'a"b\\c.txt',
        "=?utf-8?q?a?=.txt",
        "ü.txt",
        "a b;c=d.txt",
        "%41.txt",
        "a'b''c.txt",
        "'" * 100,
    ],
)
def test_any_file_name_arrives_in_short_lines(filename: str) -> None:
    letter = Letter(SENDER, "Hi", (READER,), text="Hi", files=(File(filename, "text/csv", b"a;b"),))
    (attached,) = read(letter).iter_attachments()
    assert attached.get_filename() == filename.strip()
    written = rendering.render(letter, identity="<1@example.com>", at=AT)
    assert max(len(line) for line in written.split(b"\r\n")) <= 100


@given(safe_text.filter(bool))
def test_any_safe_file_name_arrives(filename: str) -> None:
    letter = Letter(SENDER, "Hi", (READER,), text="Hi", files=(File(filename, "text/csv", b"a;b"),))
    (attached,) = read(letter).iter_attachments()
    assert attached.get_filename() == filename.strip()

"""What is written is what the reader's program understands, in lines that every relay takes."""

from __future__ import annotations

import email
from datetime import UTC, datetime
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from contracts.addresses import ParsedAddress
from emailer import rendering
from emailer.letters import File, Letter

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


def test_a_message_id_is_the_same_at_every_attempt_and_differs_by_recipient() -> None:
    key = UUID("01939c9c-0000-7000-8000-000000000000")
    first = rendering.message_id(key, position=0, domain="example.com")
    assert first == "<01939c9c-0000-7000-8000-000000000000.0@example.com>"
    assert first != rendering.message_id(key, position=1, domain="example.com")


def test_the_usual_headers_are_there() -> None:
    letter = Letter(
        SENDER, "Hello", (READER,), cc=(ParsedAddress("B", "b@example.com"),), reply_to=READER, text="Hi"
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


def test_a_mail_to_hidden_readers_says_so() -> None:
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


def test_an_inline_file_without_html_is_an_ordinary_attachment() -> None:
    files = (File("a.txt", "text/plain", b"a", "a"),)
    message = read(Letter(SENDER, "Hello", (READER,), text="Hi", files=files))
    assert [part.get_filename() for part in message.iter_attachments()] == ["a.txt"]


def test_a_long_list_of_readers_is_folded_and_complete() -> None:
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

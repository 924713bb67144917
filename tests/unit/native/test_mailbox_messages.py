"""The messages that the development mailbox stores, shows and finds."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from native.mailbox.messages import Received, Store


def mail(subject: str = "Hello", to: str = "Bob <bob@example.org>", **envelope: tuple[str, ...]) -> Received:
    message = EmailMessage()
    message["From"] = "Ada <ada@example.org>"
    message["To"] = to
    message["Subject"] = subject
    message["Message-ID"] = "<one@example.org>"
    message["Date"] = "Mon, 02 Jan 2023 03:04:05 +0000"
    message.set_content("Plain words")
    message.add_alternative("<p>Rich words</p>", subtype="html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="a.pdf")
    return Received(message.as_bytes(), "ada@example.org", envelope.get("recipients", ("bob@example.org",)))


def test_the_detail_has_the_parts_of_the_message() -> None:
    detail = mail().detail()
    assert detail["From"] == {"Name": "Ada", "Address": "ada@example.org"}
    assert detail["To"] == [{"Name": "Bob", "Address": "bob@example.org"}]
    assert (detail["Text"].strip(), detail["HTML"].strip()) == ("Plain words", "<p>Rich words</p>")
    assert (detail["MessageID"], detail["Date"]) == ("one@example.org", "2023-01-02T03:04:05Z")
    assert detail["Attachments"][0] | {"Size": 4} == detail["Attachments"][0]


def test_an_attachment_comes_back_as_it_was() -> None:
    (attached,) = mail().detail()["Attachments"]
    file = mail().file(int(attached["PartID"]))
    assert file is not None
    assert (file.content_type, file.content) == ("application/pdf", b"%PDF")
    assert mail().file(99) is None


def test_a_recipient_of_the_envelope_alone_is_a_blind_copy() -> None:
    summary = mail(recipients=("bob@example.org", "eve@example.org")).summary
    assert summary["Bcc"] == [{"Name": "", "Address": "eve@example.org"}]


@pytest.mark.parametrize(
    "raw", [b"", b"no headers at all", b"Content-Type: text/x; charset=nope\r\n\r\n\xff", b"\xff\xfe"]
)
def test_any_bytes_are_shown(raw: bytes) -> None:
    message = Received(raw, "a@example.org", ("b@example.org",))
    assert message.summary["From"]["Address"] == "a@example.org"
    assert message.detail()["Size"] == len(raw)


def test_the_oldest_message_makes_room() -> None:
    store = Store(most=2)
    messages = [mail(subject=str(number)) for number in range(3)]
    for message in messages:
        store.add(message)
    assert [message.id for message in store] == [messages[2].id, messages[1].id]
    assert store.get("latest") is messages[2]


def test_the_store_is_bounded_in_bytes_too() -> None:
    first, second = mail(), mail()
    store = Store(most_bytes=len(first.raw) + 10)
    store.add(first)
    store.add(second)
    assert list(store) == [second]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("to:bob", 1),
        ("to:ada", 0),
        ("from:ada subject:hello", 1),
        ('subject:"hello w"', 1),
        ("subject:other", 0),
        ("words", 1),
        ("-to:bob", 0),
        ("message-id:one@example.org", 1),
        ('subject:"open', 0),
    ],
)
def test_a_search_combines_its_words(query: str, found: int) -> None:
    store = Store()
    store.add(mail(subject="Hello world"))
    assert len(store.search(query)) == found

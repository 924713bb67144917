"""No message can break the mailbox: each is listed, shown, searched and deleted, whatever its bytes are."""

from __future__ import annotations

import base64
import quopri
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from native.mailbox import api
from native.mailbox.messages import Received, Store
from native.mailbox.reading import MOST_HEADERS, MOST_PEOPLE, ReadMail
from native.mailbox.receiver import Receiver
from support.broken_mails import BROKEN_MAILS


async def looked_at(raw: bytes, sender: str = "a@example.com", recipient: str = "b@example.com") -> Any:
    """Return everything that the web page and the API do with a message; returns its detail."""
    store = Store()
    neighbour = Received(b"Subject: neighbour\r\n\r\nbody", "a@example.com", ("b@example.com",))
    message = Received(raw, sender, (recipient,))
    store.add(message)
    store.add(neighbour)
    app = api.create_app(store, Receiver(store), smtp_host="127.0.0.1", smtp_port=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://box") as client:
        listed = (await client.get("/api/v1/messages")).raise_for_status().json()
        assert [entry["ID"] for entry in listed["messages"]] == [neighbour.id, message.id]
        found = (await client.get("/api/v1/search", params={"query": "neighbour"})).raise_for_status().json()
        assert neighbour.id in [entry["ID"] for entry in found["messages"]]
        path = f"/api/v1/message/{message.id}"
        detail = (await client.get(path)).raise_for_status().json()
        assert detail["Size"] == len(raw)
        assert (await client.get(f"{path}/raw")).raise_for_status().content == raw
        (await client.get(f"{path}/headers")).raise_for_status().json()
        for file in (*detail["Attachments"][:20], *detail["Inline"][:20]):
            part = (await client.get(f"{path}/part/{file['PartID']}")).raise_for_status()
            assert len(part.content) == file["Size"]
        await client.request("DELETE", "/api/v1/messages", json={"IDs": [message.id]})
        assert len(store) == 1
    return detail


@pytest.mark.parametrize("name", BROKEN_MAILS)
async def test_a_broken_mail_is_listed_and_shown(name: str) -> None:
    await looked_at(BROKEN_MAILS[name])


HEADERS = (
    *("From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID", "List-Unsubscribe", "Content-ID"),
    *("Content-Type", "Content-Disposition", "Content-Transfer-Encoding", "MIME-Version", "X-Any", "", "ü"),
)
VALUES = (
    *(
        b'"',
        b"(",
        b")",
        b"<",
        b">",
        b"@",
        b":",
        b";",
        b",",
        b"*",
        b"=",
        b"'",
        b"%",
        b"=?",
        b"?=",
        b"\\",
        b" ",
    ),
    *(
        b"a@example.com",
        b"utf-8",
        b"=?utf-8?q?=C3?=",
        b"=?x?b?=?=",
        b"\xff",
        "ü".encode(),
        b"\0",
        b"\r\n ",
        b"\n",
    ),
    *(
        b"multipart/mixed",
        b"message/rfc822",
        b"text/plain",
        b"text/html",
        b"boundary=x",
        b"charset=",
        b"idna",
    ),
    *(
        b"name*",
        b"filename*0*=",
        b"attachment",
        b"inline",
        b"base64",
        b"quoted-printable",
        b"x-uuencode",
        b"7bit",
    ),
)
value = st.lists(st.sampled_from(VALUES), max_size=8).map(b"".join) | st.binary(max_size=40)
header = st.tuples(st.sampled_from(HEADERS), value).map(
    lambda pair: pair[0].encode() + b": " + pair[1] + b"\r\n"
)
head = st.lists(header, max_size=6).map(b"".join)
leaf = st.tuples(head, st.binary(max_size=80)).map(lambda pair: pair[0] + b"\r\n" + pair[1] + b"\r\n")


def _joined(parts: tuple[bytes, list[bytes], bytes]) -> bytes:
    first, children, boundary = parts
    opened = first + b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n\r\n'
    return (
        opened
        + b"".join(b"--" + boundary + b"\r\n" + child for child in children)
        + b"--"
        + boundary
        + b"--\r\n"
    )


boundary = st.sampled_from((b"x", b"y", b"xx", b"", b"--", b"\xff"))
mails = st.recursive(
    leaf, lambda inner: st.tuples(head, st.lists(inner, max_size=4), boundary).map(_joined), max_leaves=12
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(mails | st.binary(max_size=500), st.text(max_size=20), st.text(max_size=20))
async def test_any_bytes_are_listed_and_shown(raw: bytes, sender: str, recipient: str) -> None:
    await looked_at(raw, sender, recipient)


@given(st.binary(max_size=300), st.sampled_from(("base64", "quoted-printable")))
async def test_an_attachment_has_its_original_bytes(content: bytes, encoding: str) -> None:
    encoded = base64.encodebytes(content) if encoding == "base64" else quopri.encodestring(content)
    raw = (
        b"Content-Type: text/csv; charset=utf-8\r\nContent-Disposition: attachment; filename=a.csv\r\n"
        b"Content-Transfer-Encoding: " + encoding.encode() + b"\r\n\r\n" + encoded
    )
    store = Store()
    store.add(Received(raw, "a@example.com", ("b@example.com",)))
    message = store.get("latest")
    assert message is not None
    file = message.file(0)
    assert file is not None
    assert (file.filename, file.content_type) == ("a.csv", "text/csv")
    if encoding == "base64":
        assert file.content == content


@pytest.mark.parametrize("content", ["é,ü\r\n".encode("latin-1"), "é,ü\r\n".encode(), b"\xff\x00\r\n"])
async def test_an_attachment_of_eight_bits_has_its_original_bytes(content: bytes) -> None:
    raw = (
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nHi\r\n--x\r\n"
        b"Content-Type: text/csv; charset=utf-8\r\nContent-Disposition: attachment; filename=a.csv\r\n\r\n"
        + content
        + b"\r\n--x--\r\n"
    )
    (file,) = (await looked_at(raw))["Attachments"]
    assert file["Size"] == len(content)
    attached = Received(raw, "a@example.com", ()).file(int(file["PartID"]))
    assert attached is not None
    assert attached.content == content


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("To: böb@exämple.com".encode(), {"Name": "", "Address": "böb@exämple.com"}),
        ("To: Jürgen <j@x.com>".encode(), {"Name": "Jürgen", "Address": "j@x.com"}),
        ("To: Jürgen <j@x.com>".encode("latin-1"), {"Name": "Jürgen", "Address": "j@x.com"}),
        (b"To: =?utf-8?q?J=C3=BCrgen?= <j@x.com>", {"Name": "Jürgen", "Address": "j@x.com"}),
        (
            b"To: =?latin-1?q?J=FC?= =?utf-8?b?cmdlbg==?= <j@x.com>",
            {"Name": "Jürgen", "Address": "j@x.com"},
        ),
        (b'To: "', {"Name": "", "Address": '"'}),
    ],
)
async def test_a_recipient_is_shown_as_far_as_it_can_be_read(line: bytes, shown: dict[str, str]) -> None:
    assert (await looked_at(line + b"\r\n\r\nbody"))["To"] == [shown]


async def test_a_mail_that_cannot_be_parsed_is_shown_as_its_raw_text() -> None:
    detail = await looked_at(BROKEN_MAILS["two thousand nested parts"])
    assert "Content-Type: multipart/mixed; boundary=" in detail["Text"]


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: message/rfc822\r\n\r\n" * 90 + b"Subject: x\r\n\r\n" + b"l\r\n" * 50_000,
        b"Content-Type: message/delivery-status\r\n\r\n" + b"a: b\r\n\r\n" * 12_000,
        b"X: y\r\n" * 25_000 + b"\r\nHello",
    ],
    ids=["mails within mails", "blocks of a report", "headers"],
)
async def test_a_mail_that_would_take_long_to_parse_is_shown_as_its_raw_text(raw: bytes) -> None:
    detail = await looked_at(raw)
    assert detail["Text"] == raw.decode()


def test_the_headers_and_addresses_that_are_read_are_bounded() -> None:
    mail = ReadMail(b"To: a@example.com, b@example.com\r\n" * 10_000 + b"\r\nHello")
    assert sum(map(len, mail.headers().values())) == MOST_HEADERS
    assert len(mail.people("To")) == 40
    many = b"To: " + b"a@example.com, " * 1000 + b"\r\n"
    assert len(ReadMail(many * 5 + b"\r\nHello").people("To")) == MOST_PEOPLE


def test_a_long_uuencoded_part_is_shown_as_it_is() -> None:
    head = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\n"
    short = head + b"begin 644 a\r\n%:&5L;&\\\r\n`\r\nend\r\n"
    assert ReadMail(short).text() == "hello"
    long = b"begin 644 a\r\n" + b"M\r\n" * 400_000
    assert ReadMail(head + long).text() == long.decode()


def test_an_entry_of_the_list_is_short_whatever_the_headers_are() -> None:
    long = b"Subject: " + b"x" * 15_000 + b"\r\nTo: " + b"a@example.com, " * 1000 + b"\r\n\r\nHello"
    message = Received(long, "a@example.com", ())
    assert (len(message.summary["Subject"]), len(message.summary["To"])) == (1000, 100)
    assert (len(message.detail()["Subject"]), len(message.detail()["To"])) == (15_000, 1000)


@pytest.mark.parametrize("name", [b"Content-Type: multipart/mixed", b"Content-Disposition: attachment"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_header_of_very_many_parameters_is_not_parsed(name: bytes, line_end: bytes) -> None:
    raw = b"Subject: x" + line_end + name + (b";" + line_end + b" a=b") * 60_000 + line_end * 2 + b"Hello"
    # Where each parameter is searched to the end of the header, this takes minutes.
    mail = ReadMail(raw)
    assert (mail.is_readable, mail.text(), list(mail.files())) == (False, raw.decode(), [])


async def test_an_inline_image_is_listed_apart_from_the_attachments() -> None:
    raw = (
        b"Content-Type: multipart/related; boundary=x\r\n\r\n"
        b"--x\r\nContent-Type: text/html\r\n\r\n<img>\r\n"
        b"--x\r\nContent-Type: image/png\r\nContent-Disposition: inline; filename=l.png\r\n"
        b"Content-ID: <logo>\r\n\r\nPNG\r\n--x--\r\n"
    )
    detail = await looked_at(raw)
    assert detail["HTML"].strip() == "<img>"
    assert detail["Attachments"] == []
    assert (detail["Inline"][0]["ContentID"], detail["Inline"][0]["FileName"]) == ("logo", "l.png")

"""Signatures, verified by dkimpy: receivers accept what it accepts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.parsed_addresses import ParsedAddress
from emailer.domains import keys
from emailer.domains.keys import KeySafe
from emailer.mails.letters import File, Letter
from emailer.mails.stored_mail import Signer
from emailer.writing import rendering
from emailer.writing.digests import body_digest
from emailer.writing.dkim import sign

AT = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
SAFE = KeySafe("a secret for the tests")
MADE = [keys.make(SAFE, "rsa", at=AT), keys.make(SAFE, "ed25519", at=AT)]
SIGNERS = [Signer("acme.example", made.selector, made.algorithm, SAFE.open(made.sealed)) for made in MADE]
RECORDS = {f"{made.selector}._domainkey.acme.example.": made.public_record.encode() for made in MADE}
SENDER = ParsedAddress("Acme, Inc.", "orders@acme.example")
READER = ParsedAddress("Jürgen Müller", "reader@example.com")
ONE_CLICK = (
    ("List-Unsubscribe", f"<https://acme.example/u?{'x' * 300}>, <mailto:leave@acme.example>"),
    ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ("List-Id", "News <news.acme.example>"),
)


def lookup(name: bytes, timeout: float = 5) -> bytes | None:
    return RECORDS.get(name.decode())


def verdicts(message: bytes) -> list[bool]:
    """Return dkimpy's verdict on each signature, the first one first."""
    count = len(re.findall(rb"(?im)^dkim-signature:", message.partition(b"\r\n\r\n")[0]))
    return [bool(dkim.DKIM(message).verify(idx=number, dnsfunc=lookup)) for number in range(count)]


def written(letter: Letter, signers: Sequence[Signer] = SIGNERS) -> bytes:
    message = rendering.render(letter, identity="<1@acme.example>", at=AT)
    return sign(message, signers, at=AT, body_digest=body_digest(message))


@pytest.mark.parametrize(
    "letter",
    [
        Letter(SENDER, "Hello", (READER,), text="Hi"),
        Letter(SENDER, "", (READER,), text=""),
        Letter(SENDER, "Grüße " * 60, (READER,) * 40, text="a  b\t c \n\n\n", headers=ONE_CLICK),
        Letter(SENDER, "Hello", (READER,), text=" \n \n", html="<p>Hi</p>", headers=ONE_CLICK),
        Letter(
            SENDER,
            "Files",
            (READER,),
            reply_to=(READER,),
            text="Hi",
            files=(File("a.bin", "application/octet-stream", bytes(range(256)) * 40),),
        ),
    ],
    ids=["plain", "empty", "long", "html", "file"],
)
def test_both_signatures_are_good(letter: Letter) -> None:
    message = written(letter)
    assert verdicts(message) == [True, True]
    assert all(len(line) <= 998 for line in message.split(b"\r\n"))


@settings(max_examples=40, deadline=None)
@given(
    subject=st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=150),
    text=st.text(st.sampled_from("ab \t\n.=é\r"), max_size=200),
)
def test_any_text_is_signed_as_receivers_read_it(subject: str, text: str) -> None:
    assert verdicts(written(Letter(SENDER, subject, (READER,), text=text), SIGNERS[1:])) == [True]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Hi", b"Ho"),
        (b"Subject: Hello", b"Subject: Hullo"),
        (b"orders@acme", b"0rders@acme"),
        (b"One-Click", b"Two-Click"),
        (b"/u?x", b"/v?x"),
        (b"From:", b"From: x@evil.example\r\nFrom:"),
        (b"Subject:", b"Subject: Other\r\nSubject:"),
    ],
)
def test_a_change_that_readers_see_breaks_both_signatures(before: bytes, after: bytes) -> None:
    message = written(Letter(SENDER, "Hello", (READER,), text="Hi", headers=ONE_CLICK))
    # Behind the signatures: they name the fields, and their letters are those of chance.
    signed = message.index(b"\r\nFrom:")
    place = message.index(b"\r\n" + before if before.endswith(b":") else before, signed)
    changed = message[:place] + message[place:].replace(before, after, 1)
    assert changed != message
    assert not any(_verdict_of_each(changed))


def _verdict_of_each(message: bytes) -> list[bool]:
    try:
        return verdicts(message)
    except dkim.DKIMException:
        return [False]


def test_white_space_that_relays_change_breaks_no_signature() -> None:
    message = written(Letter(SENDER, "Hello", (READER,), text="Hi there"))
    assert verdicts(message.replace(b"Subject: Hello", b"SUBJECT:  Hello ")) == [True, True]
    assert verdicts(message.replace(b"Hi there", b"Hi   there  ") + b"\r\n\r\n") == [True, True]


def test_the_signature_covers_the_headers_that_identify_a_mail() -> None:
    message = written(Letter(SENDER, "Hello", (READER,), text="Hi", headers=ONE_CLICK))
    unfolded = re.sub(rb"\r\n[ \t]+", b"", message)
    found = re.search(rb" ?h=([^;]+);", unfolded)
    assert found is not None
    names = found[1].decode().lower().split(":")
    for name in (
        *("from", "to", "subject", "date", "message-id", "mime-version", "content-type"),
        *("list-unsubscribe", "list-unsubscribe-post", "list-id"),
    ):
        assert name in names
    assert names.count("from") == names.count("subject") == 2


def test_one_click_headers_are_never_encoded() -> None:
    message = written(Letter(SENDER, "Hello", (READER,), text="Hi", headers=ONE_CLICK))
    unfolded = message.replace(b"\r\n ", b" ")
    for name, value in ONE_CLICK:
        assert f"\r\n{name}: {value}\r\n".encode() in unfolded


def test_the_same_mail_is_signed_with_the_same_bytes_and_without_keys_not_at_all() -> None:
    letter = Letter(SENDER, "Hello", (READER,), text="Hi")
    assert written(letter) == written(letter)
    assert b"DKIM" not in written(letter, [])


def test_the_body_of_a_large_mail_of_spaces_and_line_ends_is_digested_in_linear_time() -> None:
    size = 1_000_000
    body = b" \t" * size + b"\r\n" * size + b"end\r\n"
    # In quadratic time it takes longer than a test may.
    digest = body_digest(b"From: a@acme.example\r\nSubject: x\r\n\r\n" + body)
    assert digest == hashlib.sha256(b"\r\n" * size + b"end\r\n").digest()

"""Addresses are understood, and nothing that could break out of a header gets through."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailer import addresses
from emailer.addresses import Mailbox
from emailer.errors import Refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reader@example.com", Mailbox("", "reader@example.com")),
        ("A Reader <reader@Example.COM>", Mailbox("A Reader", "reader@example.com")),
        ('"Reader, A." <reader@example.com>', Mailbox("Reader, A.", "reader@example.com")),
        ("reader@exämple.com", Mailbox("", "reader@xn--exmple-cua.com")),
        ("Jörg <jörg@example.com>", Mailbox("Jörg", "jörg@example.com")),
        ("Dr. A. Reader, Esq. <reader@example.com>", Mailbox("Dr. A. Reader, Esq.", "reader@example.com")),
        (r'"A \"B\" \\ C" <reader@example.com>', Mailbox('A "B" \\ C', "reader@example.com")),
        (" <reader@example.com> ", Mailbox("", "reader@example.com")),
    ],
)
def test_an_address_is_understood_with_or_without_a_name(text: str, expected: Mailbox) -> None:
    assert addresses.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "nobody", "@example.com", "a@", "a@b@example.com", "a b@example.com", "a@-example.com", "<>"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="not an e-mail address"):
        addresses.parse(text)


def test_only_a_local_part_beyond_ascii_needs_utf8() -> None:
    assert addresses.parse("jörg@example.com").needs_utf8
    assert not addresses.parse("reader@exämple.com").needs_utf8


def test_every_separator_of_splitlines_and_every_control_character_is_unsafe() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        breaks = len(f"a{character}b".splitlines()) > 1
        control = number < 0x20 or 0x7F <= number < 0xA0
        surrogate = 0xD800 <= number < 0xE000
        assert addresses.is_safe(character) == (not (breaks or control or surrogate)), hex(number)


@pytest.mark.parametrize(
    "separator", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\0"]
)
def test_an_address_with_a_separator_is_refused(separator: str) -> None:
    with pytest.raises(Refused, match="line separator or a control character"):
        addresses.parse(f"a@example.com{separator}")


@pytest.mark.parametrize(
    "name",
    ["From", "to", "BCC", "Date", "Message-Id", "Content-Type", "Resent-To", "MIME-Version", "a b", "ä", ""],
)
def test_a_sender_may_not_write_the_headers_of_the_service(name: str) -> None:
    with pytest.raises(Refused):
        addresses.require_header(name, "value")


def test_a_header_of_the_senders_own_is_taken() -> None:
    addresses.require_header("X-Campaign", "spring")
    addresses.require_header("List-Unsubscribe", "<https://example.com/u>")


@pytest.mark.parametrize(
    "value", ["text", "text/html; charset=x", "multipart/mixed", "message/rfc822", "a/b\r\nc"]
)
def test_a_content_type_is_a_plain_type_and_subtype(value: str) -> None:
    with pytest.raises(Refused):
        addresses.require_content_type(value)


@given(st.text())
def test_what_is_cleaned_is_safe(value: str) -> None:
    assert addresses.is_safe(addresses.without_unsafe(value))

"""No character that could break out of a header gets through."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import mail_headers


def is_safe(value: str) -> bool:
    try:
        return mail_headers.one_line(value) == value
    except ValueError:
        return False


def test_every_separator_of_splitlines_and_every_control_character_is_refused() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        breaks = len(f"a{character}b".splitlines()) > 1
        control = number < 0x20 or 0x7F <= number < 0xA0
        surrogate = 0xD800 <= number < 0xE000
        assert is_safe(character) == (not (breaks or control or surrogate)), hex(number)


@given(st.text())
def test_replaced_text_is_safe(value: str) -> None:
    assert is_safe(mail_headers.replace_unsafe(value))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Bcc": "x"}, "Bcc is reserved"),
        ({"ARC-Seal": "x"}, "ARC-Seal is reserved"),
        ({"X-A": "x", "x-a": "y"}, "x-a is given twice"),
        ({"X A": "x"}, "the header name 'X A' must be"),
        ({"X-" + "A" * 75: "x"}, "must be 1 to 76 printable"),
        ({"References": "ü"}, "References must be ASCII"),
    ],
)
def test_a_refusal_names_the_header(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        mail_headers.sender_headers(headers)

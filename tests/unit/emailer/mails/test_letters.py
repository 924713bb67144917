"""The sizes of a letter, and what it needs of a relay."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from contracts.parsed_addresses import ParsedAddress
from emailer.mails.letters import FilledTemplate, Letter


@pytest.mark.parametrize(
    "text", ["plain " * 4000, "für " * 6000, "почта " * 4000, "郵便 " * 8000, "x" * 20000 + "😀"]
)
@pytest.mark.parametrize("field", ["text", "html"])
def test_the_size_of_a_letter_is_not_below_what_it_takes_in_memory_and_on_the_wire(
    field: str, text: str
) -> None:
    letter = Letter(ParsedAddress("", "a@example.com"), "Hello", **{field: text})  # type: ignore[arg-type]  # texts only
    kept, sent = sys.getsizeof(text), len(text.encode()) if text.isascii() else len(text.encode()) * 4 // 3
    assert max(kept, sent) <= letter.size_bytes <= max(kept, sent) + 600


def test_the_data_of_a_template_and_long_headers_count_for_the_size_of_a_letter() -> None:
    bare = Letter(ParsedAddress("", "a@example.com"), "Hello", text="Hi")
    data = '{"name": "' + "郵" * 10_000 + '"}'
    filled = replace(bare, template=FilledTemplate("a", 1, data))
    assert filled.size_bytes - bare.size_bytes >= len(data.encode())
    long = replace(bare, headers=tuple((f"X-{number}", "ü" * 900) for number in range(50)))
    assert long.size_bytes - bare.size_bytes >= 50 * 900


def test_an_emoji_does_not_make_a_letter_heavy_to_write() -> None:
    letter = Letter(ParsedAddress("", "a@example.com"), "Hello", text="x" * 10_000 + "😀")
    assert letter.size_bytes > 40_000
    assert letter.written_bytes < 11_000


def test_only_an_address_beyond_ascii_makes_a_letter_need_utf8() -> None:
    sender = ParsedAddress("", "a@example.com")
    assert not Letter(sender, "Hello", to=(ParsedAddress("Jörg", "j@example.com"),)).needs_utf8
    assert Letter(sender, "Hello", to=(ParsedAddress("", "jörg@example.com"),)).needs_utf8

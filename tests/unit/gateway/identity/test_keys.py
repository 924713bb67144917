"""API keys as text: made, taken apart, hashed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import keys
from gateway.identity.keys import ApiKey

PEPPER = "a pepper of the tests"


def test_a_new_key_is_read_back_from_its_text() -> None:
    key = keys.new_key()
    assert keys.parse(str(key)) == key
    assert re.fullmatch(r"tw_live_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", str(key))


def test_no_two_keys_are_the_same() -> None:
    assert len({str(keys.new_key()) for _ in range(200)}) == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text.upper(),
        lambda text: text.replace("tw_live_", "tw_test_"),
        lambda text: text[:-1] + "é",
        lambda text: "",
    ],
)
def test_what_is_nearly_a_key_is_none(change: object) -> None:
    assert callable(change)
    assert keys.parse(change(str(keys.new_key()))) is None


@given(st.text(max_size=120))
def test_any_text_is_a_key_or_none_and_never_an_error(text: str) -> None:
    found = keys.parse(text)
    assert found is None or str(found) == text


def test_the_digest_depends_on_pepper_id_and_secret() -> None:
    key = ApiKey("0" * 16, "A" * 43)
    others = [
        keys.digest("another pepper", key),
        keys.digest(PEPPER, ApiKey("1" * 16, "A" * 43)),
        keys.digest(PEPPER, ApiKey("0" * 16, "B" * 43)),
    ]
    mine = keys.digest(PEPPER, key)
    assert len(mine) == 32
    assert mine not in others
    assert b"A" * 8 not in mine


@pytest.mark.parametrize(
    ("text", "is_id"), [("0" * 16, True), ("0" * 15, False), ("G" * 16, False), ("\0", False)]
)
def test_only_sixteen_hex_digits_are_the_id_of_a_key(text: str, is_id: bool) -> None:
    assert keys.is_id(text) is is_id

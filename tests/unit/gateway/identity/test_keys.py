"""API keys as text: made, parsed, hashed."""

from __future__ import annotations

import re
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import keys
from gateway.identity.keys import ApiKey

PEPPER = "a pepper of the tests"


def test_a_new_key_is_read_back_from_its_text() -> None:
    key = keys.new_key()
    assert keys.parse(str(key)) == key
    assert re.fullmatch(r"tw_live_[0-9a-f]{16}_[A-Za-z0-9]{49}", str(key))


def test_a_key_of_the_form_without_a_checksum_is_read_back_too() -> None:
    text = f"tw_live_{'0' * 16}_{'aB-_' * 10}xyz"
    assert keys.parse(text) == ApiKey("0" * 16, "aB-_" * 10 + "xyz", has_checksum=False)
    assert str(keys.parse(text)) == text


@given(st.integers(min_value=8, max_value=73), st.sampled_from("0aZ"))
def test_one_wrong_character_of_a_key_is_found_without_a_query(place: int, character: str) -> None:
    text = str(ApiKey("0123456789abcdef", "k" * 43))
    changed = text[:place] + character + text[place + 1 :]
    assert (keys.parse(changed) is None) is (changed != text)


def test_the_checksum_is_the_crc_32_of_what_is_before_it() -> None:
    # As any scanner can compute it: zlib's CRC-32, in base 62 with 0-9, A-Z, a-z.
    text = "tw_live_0123456789abcdef_" + "0" * 43
    number = 0
    for digit in keys.checksum(text):
        number = number * 62 + (string.digits + string.ascii_uppercase + string.ascii_lowercase).index(digit)
    assert number == zlib.crc32(text.encode())
    assert len(keys.checksum(text)) == 6


def test_a_derived_secret_is_the_same_again_and_another_for_anything_else() -> None:
    secret = keys.derive_secret(PEPPER, "0" * 16, "7", "again")
    assert secret == keys.derive_secret(PEPPER, "0" * 16, "7", "again")
    assert str(keys.parse(str(ApiKey("0" * 16, secret)))) == str(ApiKey("0" * 16, secret))
    others = [
        keys.derive_secret("another pepper", "0" * 16, "7", "again"),
        keys.derive_secret(PEPPER, "1" * 16, "7", "again"),
        keys.derive_secret(PEPPER, "0" * 16, "7", "another"),
        keys.derive_secret(PEPPER, "0" * 16, "7a", "gain"),
    ]
    assert len({secret, *others}) == 5


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
def test_a_text_that_is_nearly_a_key_is_no_key(change: object) -> None:
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

"""The Idempotency-Key header: a structured-field string, or the bare form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidInput
from gateway.acceptance import idempotency

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)


def key_of(header: str) -> str:
    found = idempotency.read(header, "POST /", b"")
    assert found is not None
    return found.key


@given(PRINTABLE)
def test_every_printable_string_survives_quoting(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert key_of(quoted) == text
    assert key_of(f"  {quoted}\t") == text


@given(st.text(max_size=300))
def test_any_header_is_a_key_or_invalid_and_never_another_error(header: str) -> None:
    try:
        found = idempotency.read(header, "POST /", b"")
    except InvalidInput:
        return
    assert found is not None
    assert 1 <= len(found.key) <= 255


@pytest.mark.parametrize("header", ["8e03978e-40d5-43dd-bc93-6894a57f9324", "order:17/3", "a\\b", "k;v=1"])
def test_the_bare_form_is_taken_as_it_stands(header: str) -> None:
    assert key_of(header) == header


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        '""',
        '"open',
        'open"',
        '"a"b"',
        '"a";v=1',
        "two words",
        "ключ",
        '"tab\t"',
        "a\x7f",
        '"' + "a" * 256 + '"',
    ],
)
def test_what_is_neither_form_is_invalid(header: str) -> None:
    with pytest.raises(InvalidInput):
        idempotency.read(header, "POST /", b"")


def test_without_the_header_there_is_no_key() -> None:
    assert idempotency.read(None, "POST /", b"") is None


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_the_hash_is_of_method_path_and_body(one: bytes, other: bytes) -> None:
    first = idempotency.read("k", "POST /v1/emails", one)
    second = idempotency.read("k", "POST /v1/emails", other)
    elsewhere = idempotency.read("k", "POST /v1/batches", one)
    assert first is not None
    assert second is not None
    assert elsewhere is not None
    assert (first.body_hash == second.body_hash) is (one == other)
    assert first.body_hash != elsewhere.body_hash


@given(st.lists(st.binary(max_size=20)))
def test_a_body_in_parts_has_the_same_hash(parts: list[bytes]) -> None:
    digest = idempotency.hasher("POST /x")
    for part in parts:
        digest.update(part)
    whole = idempotency.read("k", "POST /x", b"".join(parts))
    assert whole is not None
    assert whole.body_hash == digest.digest()

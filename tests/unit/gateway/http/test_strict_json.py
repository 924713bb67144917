"""JSON that is accepted: strict, storable, and safe for the services behind."""

from __future__ import annotations

import json
import re
import tracemalloc
from decimal import Decimal
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import InvalidInput, MalformedInput, PayloadTooLarge
from contracts.batches import Item
from contracts.json_values import DEEPEST
from gateway.http import strict_json as documents
from gateway.http.strict_json import MOST_CONTAINERS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3)
    ),
)


@given(JSON)
def test_json_without_nul_comes_back_as_it_is(value: Any) -> None:
    data = orjson.dumps(value)
    if "\0" in repr(value).replace("\\x00", "\0"):
        with pytest.raises(InvalidInput):
            documents.load(data)
    else:
        assert documents.load(data) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused_and_never_another_error(data: bytes) -> None:
    try:
        documents.load(data)
    except (MalformedInput, InvalidInput):
        return


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1,]",
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b'"\\ud800"',
        b'"\xff"',
        b"1,2",
        b"'a'",
        b"9" * 5000,
    ],
)
def test_a_document_that_is_not_strict_json_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        documents.load(data)


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (b'"\\u0000"', ""),
        (b'{"a":{"b":["x","y\\u0000"]}}', "/a/b/1"),
        (b'{"a/b~c":"\\u0000"}', "/a~1b~0c"),
        (b'{"a":{"k\\u0000":1}}', "/a"),
        (b'"\\\\\\u0000"', ""),
    ],
)
def test_a_nul_character_is_found_and_its_place_named(data: bytes, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        documents.load(data)
    assert [error.pointer for error in refused.value.errors] == [pointer]


@pytest.mark.parametrize("data", [b'"\\\\u0000"', b'"\\\\\\\\u0000"', b'"u0000"'])
def test_a_backslash_and_u0000_as_text_are_no_nul(data: bytes) -> None:
    assert "u0000" in documents.load(data)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [DEEPEST, DEEPEST + 1, 150, 300, 1000])
def test_nesting_is_bounded_wherever_it_is(opening: bytes, depth: int) -> None:
    closing = b"]" if opening == b"[" else b"}"
    data = opening * depth + b"1" + closing * depth
    if depth <= DEEPEST:
        assert Item.model_validate_json(b'{"payload":[[[' + data + b"]]]}")
        documents.load(data)
    else:
        with pytest.raises(InvalidInput, match="nested"):
            documents.load(data)


_NUMBERS = [
    *("0", "-0.50", "1e5", "1E+99", "1e291", "3.141592653589793", "0.12345678901234567890", "2e-320"),
    *("1e-400", "1.0e0000000000000001", "9007199254740992", "9007199254740993", "123456789012345678"),
]
_STRINGS = ['""', '"a"', r'"\"[{"', r'"\\"', r'"\":"', r'"\u0022:"', '"[]"', '"1e300"', '"%s"' % ("1234" * 5)]


def written(chance: Random) -> str:
    """Return a JSON document as somebody may write it, often nested about as deep as is allowed."""
    text = chance.choice([*_NUMBERS, *_STRINGS, "true", "[]", "{}"])
    levels = chance.choice([0, 1, 3, DEEPEST - 1, DEEPEST, DEEPEST + 1])
    for _ in range(levels):
        one, two, three = chance.choices(["", " ", "\n\t"], weights=[8, 1, 1], k=3)
        name = "" if chance.random() < 0.5 else f"{chance.choice(_STRINGS)}{one}:"
        sibling = chance.choice(["", "", "1", f'"{chance.random()}"', chance.choice(_NUMBERS)])
        if sibling:
            sibling = f",{two}{chance.choice(_STRINGS) + ':' if name else ''}{three}{sibling}"
        text = f"{{{name}{three}{text}{sibling}}}" if name else f"[{one}{text}{two}{sibling}]"
    return text


def naive_depth(text: str) -> int:
    """Return the levels of a JSON document, read character by character."""
    level = deepest = 0
    is_text = is_escaped = False
    for character in text:
        if is_text:
            is_text = character != '"' or is_escaped
            is_escaped = character == "\\" and not is_escaped
            continue
        is_text = character == '"'
        level += (character in "[{") - (character in "]}")
        deepest = max(deepest, level)
    return deepest


def naive_reason(text: str) -> str | None:
    """Return a word of the reason why a document is refused, found without any shortcut."""
    if naive_depth(text) > DEEPEST:
        return "nested"
    reasons: list[str] = []

    def read_names(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            reasons.append("twice")

    def read_number(literal: str) -> None:
        number = Decimal(literal)
        is_integer = literal.lstrip("-").isdecimal()
        if abs(number) > 2**53 if is_integer else Decimal(repr(float(literal))) != number:
            reasons.append("double")

    json.loads(text, object_pairs_hook=read_names, parse_int=read_number, parse_float=read_number)
    return "|".join(reasons) or None


@settings(max_examples=300)
@given(st.randoms(use_true_random=True))
def test_a_document_is_refused_for_what_a_reader_without_shortcuts_finds(chance: Random) -> None:
    text = written(chance)
    found, expected = documents.refusal(text.encode(), orjson.loads(text)), naive_reason(text)
    assert (found is None) == (expected is None), text
    if found is not None:
        assert re.search(str(expected), found.detail)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_under_a_name_that_is_repeated_counts(opening: str) -> None:
    deep = opening * 100 + "1" + ("]" if opening == "[" else "}") * 100
    with pytest.raises(InvalidInput, match="nested"):
        documents.load(f'{{"a":{deep},"a":1}}'.encode())


def test_brackets_in_texts_and_side_by_side_are_not_nesting() -> None:
    documents.load(b'["' + b"[" * 500 + b'"]')
    documents.load(b"[" + b",".join([b"[]"] * 500) + b"]")


def test_a_name_that_is_repeated_at_the_end_of_a_large_object_is_found_at_once() -> None:
    names = b",".join(b'"%d":1' % number for number in range(200_000))
    # Where each name is compared with each, this takes longer than a test may.
    with pytest.raises(InvalidInput) as caught:
        documents.load(b"{" + names + b',"199999":1}')
    assert [error.pointer for error in caught.value.errors] == ["/199999"]


@pytest.mark.parametrize("element", [b"[]", b"{}"])
def test_a_document_has_a_bounded_number_of_objects_and_lists_for_its_size(
    element: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = b"[" + b",".join([element] * (MOST_CONTAINERS - 1)) + b"]"
    assert len(documents.load(most)) == MOST_CONTAINERS - 1
    texts = b'["' + b'[{\\"' * MOST_CONTAINERS + b'"]'
    assert len(documents.load(texts)) == 1
    larger = b"[" + b",".join([element + b" " * 5] * MOST_CONTAINERS) + b"," + b"0," * 8 + b"0]"
    assert len(documents.load(larger)) == MOST_CONTAINERS + 9
    monkeypatch.setattr(documents, "read", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(PayloadTooLarge, match="131072 objects and lists"):
        documents.load(b"[" + most + b"]")


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"[],", id="lists"),
        pytest.param(b'{"a":1.5},', id="objects"),
        pytest.param(b'{"custom_id":"a1b","payload":{}},', id="items"),
        pytest.param(b'"%04x",', id="texts"),
        pytest.param(b"1%04d,", id="numbers"),
        pytest.param(b"1.5,", id="fractions"),
        pytest.param(b"[" * 50 + b"]" * 50 + b",", id="nested lists"),
    ],
)
def test_a_document_takes_no_more_memory_than_it_is_counted_for(part: bytes) -> None:
    parts = (part % number if b"%" in part else part for number in range(2_000))
    data = b"[" + b"".join(parts) + b"0]"
    tracemalloc.start()
    try:
        document = documents.load(data)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert document
    assert held + len(data) <= documents.weigh(data)


def test_no_document_is_counted_for_more_lists_and_objects_than_are_read() -> None:
    most = documents.weigh(b"{" * MOST_CONTAINERS)
    assert documents.weigh(b"{" * MOST_CONTAINERS + b"{" * 1_000) == most + 2 * 1_000

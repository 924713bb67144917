"""Numbers that come back as they were sent, and how deep a document may be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.json_values import DEEPEST, is_exact_number, is_too_deep


@pytest.mark.parametrize(
    "literal",
    [
        "0",
        "-0",
        "1",
        str(2**53),
        str(-(2**53)),
        "1.10",
        "0.1",
        "-2.5e-3",
        "1e300",
        "1E+2",
        "9007199254740992.0",
    ],
)
def test_a_number_that_every_reader_keeps_is_exact(literal: str) -> None:
    assert is_exact_number(literal)


@pytest.mark.parametrize(
    "literal",
    [
        str(2**53 + 1),
        str(-(2**53) - 1),
        "1180591620717411303424",
        "9007199254740993.0",
        "0.12345678901234567890",
        "1e400",
        "-1e400",
        "1e-400",
        "9" * 5000,
        "0." + "1" * 5000,
    ],
)
def test_a_number_that_would_come_back_as_another_is_not_exact(literal: str) -> None:
    assert not is_exact_number(literal)


@given(st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_that_a_program_writes_are_exact(number: Any) -> None:
    assert is_exact_number(json.dumps(number))


@pytest.mark.parametrize(
    ("levels", "too_deep"), [(1, False), (DEEPEST, False), (DEEPEST + 1, True), (10**6, True)]
)
def test_a_document_may_have_so_many_levels(levels: int, too_deep: bool) -> None:
    assert is_too_deep(b"[" * levels + b"1" + b"]" * levels) is too_deep
    assert is_too_deep(b"[" * (levels - 1) + b"{ }" + b"]" * (levels - 1)) is too_deep


def test_a_wide_document_is_not_deep() -> None:
    assert not is_too_deep(b"[" + b",".join([b"[{}]"] * 1000) + b"]")


def levels_of(value: Any) -> int:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(levels_of, children), default=0)


TEXTS = st.text('a"\\[]{}é\n', max_size=6)
VALUES = st.recursive(
    TEXTS | st.none(),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(TEXTS, some, max_size=3),
    max_leaves=20,
)


@given(
    VALUES,
    st.lists(TEXTS | st.none(), min_size=DEEPEST - 5, max_size=DEEPEST + 2),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_the_depth_is_that_of_the_values_whatever_is_written_in_texts(
    value: Any, around: list[str | None], is_ascii: bool, indent: int | None
) -> None:
    for name in around:
        value = [value, "]"] if name is None else {"{": "\\", name: value}
    document = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode()
    assert is_too_deep(document) is (levels_of(value) > DEEPEST)

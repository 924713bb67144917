"""Symbols as callers write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_data import symbols
from stock_data.errors import InvalidSymbol


@pytest.mark.parametrize(
    ("text", "symbol"),
    [("aapl", "AAPL"), ("BRK.B", "BRK.B"), ("^GSPC", "^GSPC"), ("eurusd=x", "EURUSD=X"), ("BF-B", "BF-B")],
)
def test_a_symbol_is_upper_cased(text: str, symbol: str) -> None:
    assert symbols.parse(text) == symbol


@pytest.mark.parametrize(
    "text", ["", "A" * 16, "A B", "A\n", "a/b", "ÄPL", "\u017f", "\ufb03", "AAPL;", ".", "..", "^=-"]
)
def test_a_text_that_cannot_be_a_symbol_is_refused(text: str) -> None:
    with pytest.raises(InvalidSymbol) as caught:
        symbols.parse(text)
    assert caught.value.status == 422
    assert caught.value.errors[0].pointer == "/symbol"


@given(st.text(max_size=20))
def test_an_accepted_symbol_is_always_in_upper_case(text: str) -> None:
    try:
        symbol = symbols.parse(text)
    except InvalidSymbol:
        assert not re.fullmatch(r"(?=.*[A-Za-z0-9])[A-Za-z0-9.^=-]{1,15}", text)
    else:
        assert re.fullmatch(r"[A-Z0-9.^=-]{1,15}", symbol)

"""The list of instruments, and suggestions for misspelt symbols."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_data.instruments import InstrumentIndex
from support.doubles.stock_history import listing

SYMBOLS = st.from_regex(r"[A-Z]{2,6}", fullmatch=True)


def index(*symbols: str) -> InstrumentIndex:
    found = InstrumentIndex()
    found.fill(listing(symbol) for symbol in symbols)
    return found


@pytest.mark.parametrize(
    ("written", "meant"),
    [("APPL", "AAPL"), ("MSTF", "MSFT"), ("GOOGL", "GOOG"), ("IB", "IBM"), ("AAPL", None), ("ZZZZ", None)],
)
def test_a_symbol_that_is_misspelt_in_one_place_is_recognised(written: str, meant: str | None) -> None:
    known = index("MSFT", "AAPL", "GOOG", "IBM")
    assert known.similar(written) == ([meant] if meant else [])


@given(SYMBOLS, st.data())
def test_a_letter_that_is_left_out_added_or_replaced_is_always_recognised(
    symbol: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(symbol) - 1))
    letter = data.draw(st.sampled_from("ABCXYZ"))
    for written in (
        symbol[:at] + symbol[at + 1 :],
        symbol[:at] + letter + symbol[at:],
        symbol[:at] + letter + symbol[at + 1 :],
    ):
        if written != symbol:
            assert index(symbol).similar(written) == [symbol]


def test_three_suggestions_are_enough() -> None:
    assert index("AB", "AC", "AD", "AE").similar("AX") == ["AB", "AC", "AD"]


def test_listings_come_in_the_order_of_their_symbols() -> None:
    assert [each.symbol for each in index("C", "A", "B")] == ["A", "B", "C"]

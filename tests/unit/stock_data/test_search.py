"""The search for instruments by ticker and name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stock_data import search
from support.doubles.stock_history import listing

LISTINGS = [
    listing("AAPL", "Apple Inc."),
    listing("FB", "Facebook, Inc."),
    listing("IBM", "International Business Machines Corporation"),
    listing("APP", "Applied Machines Inc."),
    listing("MSFT", "Microsoft Corporation"),
]


def found(q: str, limit: int = 20) -> list[str]:
    return [each.symbol for each in search.best(LISTINGS, q, limit=limit)]


def test_the_ticker_itself_comes_first() -> None:
    assert found("app") == ["APP", "AAPL"]


def test_a_name_is_found_by_any_of_its_words_in_any_case() -> None:
    assert found("MACHINES") == ["APP", "IBM"]
    assert found("business  mach") == ["IBM"]


def test_a_match_inside_a_word_comes_last() -> None:
    assert found("b") == ["IBM", "FB"]


def test_an_unknown_or_empty_word_matches_nothing() -> None:
    assert found("zzz") == []
    assert found("   ") == []


def test_the_number_of_results_is_limited() -> None:
    assert len(found("corp", limit=1)) == 1


@given(st.text(max_size=30), st.integers(1, 5))
def test_any_text_can_be_searched_for(q: str, limit: int) -> None:
    assert len(found(q, limit)) <= limit

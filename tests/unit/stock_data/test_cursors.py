"""The cursors of pages of bars."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_data import cursors
from stock_data.cursors import Cursor
from stock_data.errors import InvalidCursor


@given(
    st.dates(), st.sampled_from(["embedded", "alpaca"]), st.from_regex(r"[A-Z0-9.^=-]{1,15}", fullmatch=True)
)
def test_a_cursor_is_read_back_unchanged(day: date, provider: str, symbol: str) -> None:
    cursor = Cursor(provider, symbol, "split", day)
    assert cursors.decode(cursor.encode(), symbol=symbol, adjustment="split") == cursor


def test_a_cursor_is_safe_in_a_url() -> None:
    text = Cursor("embedded", "^GSPC=??", "raw", date(2012, 5, 21)).encode()
    assert text.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(("symbol", "adjustment"), [("IBM", "raw"), ("AAPL", "split")])
def test_a_cursor_of_another_request_is_refused(symbol: str, adjustment: str) -> None:
    text = Cursor("embedded", "AAPL", "raw", date(2012, 5, 21)).encode()
    with pytest.raises(InvalidCursor):
        cursors.decode(text, symbol=symbol, adjustment=adjustment)


@given(st.text(max_size=60))
def test_any_other_text_is_refused_and_raises_no_other_error(text: str) -> None:
    with pytest.raises(InvalidCursor) as caught:
        cursors.decode(text, symbol="AAPL", adjustment="raw")
    assert caught.value.errors[0].pointer == "/cursor"

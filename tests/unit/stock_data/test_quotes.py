from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from stock_data import quotes
from support.doubles.stock_history import daily, listing, split

PRICES = st.decimals(min_value="0.0001", max_value="100000", places=4)


def test_the_newest_bar_is_a_quote_that_says_how_old_it_is() -> None:
    quote = quotes.from_newest_bar(listing(), datetime(2012, 5, 18, 20, 0, 30, tzinfo=UTC))
    assert quote.price == 11
    assert (quote.open, quote.high, quote.low) == (Decimal("10.5"), Decimal("11.5"), Decimal("10.25"))
    assert [quote.previous_close, quote.change, quote.change_percent] == [10, 1, 10]
    assert quote.as_of == datetime(2012, 5, 18, 20, tzinfo=UTC)
    assert quote.delayed_by_s == 30
    assert (quote.stale, quote.simulated, quote.session, quote.source) == (False, False, "closed", "embedded")


def test_a_quote_is_not_stale_over_a_long_weekend_but_after_it() -> None:
    assert not quotes.from_newest_bar(listing(), datetime(2012, 5, 22, 13, tzinfo=UTC)).stale
    assert quotes.from_newest_bar(listing(), datetime(2012, 5, 23, 13, tzinfo=UTC)).stale


def test_a_split_over_night_is_no_fall_of_the_price() -> None:
    acme = listing(
        newest=daily("2012-05-18", "11"), previous=daily("2012-05-17", "20"), splits=(split("2012-05-18"),)
    )
    quote = quotes.from_newest_bar(acme, datetime(2012, 5, 18, 21, tzinfo=UTC))
    assert [quote.previous_close, quote.change_percent] == [10, 10]


def test_the_first_day_of_a_company_has_no_change() -> None:
    quote = quotes.from_newest_bar(listing(previous=None), datetime(2012, 5, 18, 21, tzinfo=UTC))
    assert (quote.previous_close, quote.change, quote.change_percent) == (None, None, None)


@given(PRICES, PRICES)
def test_the_change_is_exact(price: Decimal, before: Decimal) -> None:
    change, percent = quotes.change(price, before)
    assert change is not None
    assert percent is not None
    assert before + change == price
    assert abs(percent - (price / before - 1) * 100) <= Decimal("0.00005")

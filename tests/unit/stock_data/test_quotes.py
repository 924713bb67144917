"""Quotes that are made of daily bars: their age, previous close and change."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.stocks import Quote
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


@pytest.mark.parametrize(
    ("now", "is_stale"),
    [
        (datetime(2012, 5, 25, 23, tzinfo=UTC), False),
        (datetime(2012, 5, 28, 15, tzinfo=UTC), False),  # Memorial Day
        (datetime(2012, 5, 29, 23, 59, tzinfo=UTC), False),
        (datetime(2012, 5, 30, 0, 0, tzinfo=UTC), True),
    ],
)
def test_a_quote_is_stale_once_a_whole_day_of_trading_has_gone_by(now: datetime, is_stale: bool) -> None:
    acme = listing(newest=daily("2012-05-25", "11"), previous=daily("2012-05-24", "10"))
    assert quotes.from_newest_bar(acme, now).stale is is_stale


def test_a_split_over_night_is_no_fall_of_the_price() -> None:
    acme = listing(
        newest=daily("2012-05-18", "11"), previous=daily("2012-05-17", "20"), splits=(split("2012-05-18"),)
    )
    quote = quotes.from_newest_bar(acme, datetime(2012, 5, 18, 21, tzinfo=UTC))
    assert [quote.previous_close, quote.change_percent] == [10, 10]


def test_the_first_day_of_a_company_has_no_change() -> None:
    quote = quotes.from_newest_bar(listing(previous=None), datetime(2012, 5, 18, 21, tzinfo=UTC))
    assert (quote.previous_close, quote.change, quote.change_percent) == (None, None, None)


FRIDAY, MONDAY = date(2024, 6, 7), date(2024, 6, 10)


def test_the_previous_close_is_the_one_of_the_session_before() -> None:
    closes = {date(2024, 6, 6): Decimal(90), FRIDAY: Decimal(100), MONDAY: Decimal(101)}
    assert quotes.previous_close(MONDAY, closes, ()) == 100
    assert quotes.previous_close(FRIDAY, closes, ()) == 90


def test_an_older_close_does_not_stand_in_for_the_one_of_the_session_before() -> None:
    assert quotes.previous_close(MONDAY, {date(2024, 6, 6): Decimal(90)}, ()) is None


def test_a_close_is_restated_in_the_shares_after_a_split() -> None:
    closes = {FRIDAY: Decimal("1208.88")}
    before = quotes.previous_close(MONDAY, closes, (split("2024-06-10", "10"),))
    assert before == Decimal("120.888")
    assert quotes.change(Decimal("121.79"), before) == (Decimal("0.902"), Decimal("0.7461"))


def test_a_split_that_has_been_or_is_to_come_changes_nothing() -> None:
    splits = (split("2024-06-07"), split("2024-06-11"))
    assert quotes.previous_close(MONDAY, {FRIDAY: Decimal(90)}, splits) == 90


def test_a_ratio_that_does_not_divide_is_rounded_to_a_millionth() -> None:
    before = quotes.previous_close(MONDAY, {FRIDAY: Decimal(100)}, (split("2024-06-10", "7"),))
    assert before == Decimal("14.285714")


def test_a_quote_that_was_kept_has_its_present_delay() -> None:
    fetched = datetime(2024, 6, 10, 15, tzinfo=UTC)
    kept = Quote(symbol="A", price=Decimal(1), as_of=fetched, source="x", delayed_by_s=900, session="regular")
    reported = quotes.retold(kept, fetched_at=fetched, now=datetime(2024, 6, 10, 20, 30, tzinfo=UTC))
    assert (reported.delayed_by_s, reported.session, reported.stale) == (900 + 5.5 * 3600, "post", False)
    assert (
        quotes.retold(kept, fetched_at=fetched, now=datetime(2024, 6, 11, 23, 59, tzinfo=UTC)).stale is False
    )
    assert quotes.retold(kept, fetched_at=fetched, now=datetime(2024, 6, 12, tzinfo=UTC)).stale is True


@given(PRICES, PRICES)
def test_the_change_is_exact(price: Decimal, before: Decimal) -> None:
    change, percent = quotes.change(price, before)
    assert change is not None
    assert percent is not None
    assert before + change == price
    assert abs(percent - (price / before - 1) * 100) <= Decimal("0.00005")

"""Adjustment of prices and volumes for splits and dividends."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_data.history import adjustments
from stock_data.history.bars import Listing
from support.doubles.stock_history import daily, listing, split


@pytest.fixture
def acme() -> Listing:
    """Return bars: a split on the 2nd, a dividend on the 3rd; later actions halve adjusted closes."""
    return listing(newest=daily("2012-05-04", "50", adjusted="25"), splits=(split("2012-05-02"),))


def test_raw_prices_have_the_factor_1(acme: Listing) -> None:
    assert adjustments.factor_for("raw", acme)(daily("2012-05-01", "100", adjusted="22.5")) == 1


def test_a_split_halves_the_price_before_it(acme: Listing) -> None:
    factor = adjustments.factor_for("split", acme)
    assert factor(daily("2012-05-01", "100")) == Decimal("0.5")
    assert factor(daily("2012-05-02", "50")) == 1


def test_the_full_factor_is_the_adjusted_close_relative_to_the_newest_bar(acme: Listing) -> None:
    factor = adjustments.factor_for("all", acme)
    assert factor(daily("2012-05-01", "100", adjusted="22.5")) == Decimal("0.45")
    assert factor(acme.newest) == 1


def test_the_dividend_factor_is_the_full_factor_without_the_splits(acme: Listing) -> None:
    factor = adjustments.factor_for("dividend", acme)
    assert factor(daily("2012-05-01", "100", adjusted="22.5")) == Decimal("0.9")
    assert factor(daily("2012-05-02", "50", adjusted="22.5")) == Decimal("0.9")
    assert factor(daily("2012-05-03", "50", adjusted="25")) == 1


def test_without_adjusted_closes_only_splits_count() -> None:
    acme = listing(newest=daily("2012-05-04", "50"), splits=(split("2012-05-02"),))
    assert adjustments.factor_for("dividend", acme)(daily("2012-05-02", "50")) == 1


def test_a_split_doubles_the_volume_before_it() -> None:
    bar = adjustments.apply(
        daily("2012-05-01", "100", open="90", volume=1000), Decimal("0.5"), shares=Decimal("0.5")
    )
    assert [bar.open, bar.high, bar.low, bar.close, bar.volume] == [45, 50, 45, 50, 2000]


def test_a_dividend_leaves_the_volume_alone() -> None:
    bar = adjustments.apply(daily("2012-05-01", "100", volume=1000), Decimal("0.9"), shares=Decimal(1))
    assert [bar.close, bar.volume] == [90, 1000]


@given(st.lists(st.integers(2, 20), max_size=5), st.integers(0, 5))
def test_the_split_factor_is_the_product_of_later_splits(ratios: list[int], passed: int) -> None:
    splits = tuple(split(f"2012-05-{number + 2:02}", str(ratio)) for number, ratio in enumerate(ratios))
    day = daily(f"2012-05-{passed + 1:02}").day
    factor = adjustments.split_factor(day, splits)
    for ratio in ratios[passed:]:
        factor *= ratio
    assert round(factor, 20) == 1

"""The invariants of a path: it stays inside its day, touches all four prices, and trades the day's volume."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_data.history.bars import DailyBar
from stock_data.replay.paths import FEWEST_TICKS, Tick, path
from support.doubles.stock_history import daily

BAR = daily("2012-05-21", "561.28", open="534.5", high="561.54", low="534.05", volume=22_526_700)

PRICES = st.decimals(min_value="0.01", max_value="10000", places=4)


@st.composite
def days(draw: st.DrawFn) -> DailyBar:
    low, first, second, high = sorted(draw(st.lists(PRICES, min_size=4, max_size=4)))
    opening, close = draw(st.permutations([first, second]))
    day = draw(st.dates())
    return DailyBar(day, opening, high, low, close, Decimal(draw(st.integers(0, 10**10))))


@given(days(), st.integers(FEWEST_TICKS, 300))
@settings(max_examples=200)
def test_a_path_has_the_prices_and_the_volume_of_its_day(bar: DailyBar, count: int) -> None:
    ticks = list(path("ACME", bar, count))
    prices = [tick.price for tick in ticks]
    assert len(ticks) == count
    assert (prices[0], prices[-1]) == (bar.open, bar.close)
    assert (min(prices), max(prices)) == (bar.low, bar.high)
    assert ticks[-1].volume == bar.volume
    assert (ticks[-1].low, ticks[-1].high) == (bar.low, bar.high)
    assert (ticks[0].part, ticks[-1].part) == (0, 1)


@given(days(), st.integers(FEWEST_TICKS, 300))
def test_volume_high_and_low_so_far_only_go_their_own_way(bar: DailyBar, count: int) -> None:
    for before, after in itertools.pairwise(path("ACME", bar, count)):
        assert 0 <= before.volume <= after.volume
        assert before.high <= after.high
        assert before.low >= after.low
        assert after.low <= after.price <= after.high
        assert before.part < after.part


@given(days(), st.integers(FEWEST_TICKS, 100))
def test_a_path_is_the_same_every_time(bar: DailyBar, count: int) -> None:
    assert list(path("ACME", bar, count)) == list(path("ACME", bar, count))


def test_the_path_of_another_symbol_is_different() -> None:
    assert _prices(path("AAPL", BAR, 100)) != _prices(path("MSFT", BAR, 100))


def test_a_path_is_the_same_in_every_process_and_release() -> None:
    """Users compare recorded replays: a change of these numbers is a change of the feed."""
    prices = [str(tick.price) for tick in path("AAPL", BAR, 8)]
    assert prices == ["534.50", "534.25", "534.05", "547.64", "561.54", "560.85", "558.62", "561.28"]


def test_prices_keep_the_places_of_their_day() -> None:
    cents = path("ACME", daily("2012-05-21", "11", open="10", high="12", low="9"), 50)
    assert all(tick.price == tick.price.quantize(Decimal("0.01")) for tick in cents)


def test_a_day_without_movement_stands_still() -> None:
    assert set(_prices(path("ACME", daily("2012-05-21", "10"), 20))) == {Decimal(10)}


def test_more_is_traded_at_the_open_and_the_close_than_at_noon() -> None:
    volumes = [Decimal(0), *(tick.volume for tick in path("AAPL", BAR, 300))]
    first, noon, last = (volumes[n + 30] - volumes[n] for n in (0, 135, 270))
    assert min(first, last) > 2 * noon


def test_three_ticks_cannot_be_a_day() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        next(path("ACME", BAR, 3))


def _prices(ticks: object) -> list[Decimal]:
    assert hasattr(ticks, "__iter__")
    return [tick.price for tick in ticks if isinstance(tick, Tick)]

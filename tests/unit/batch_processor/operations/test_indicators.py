"""Indicators against published and hand-computed values."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_processor.operations import indicator_series, indicators, stock_indicators

# The worked example of RSI(14) by Wilder's method, as StockCharts' ChartSchool publishes it.
CLOSES = [
    44.3389, 44.0902, 44.1497, 43.6124, 44.3278, 44.8264, 45.0955, 45.4245, 45.8433, 46.0826, 45.8931,
    46.0328, 45.6140, 46.2820, 46.2820, 46.0028, 46.0328, 46.4116, 46.2222, 45.6439, 46.2122, 46.2521,
    45.7137, 46.4515, 45.7835, 45.3548, 44.0288, 44.1783, 44.2181, 44.5672, 43.4205, 42.6628, 43.1314,
]  # fmt: skip
RSI = [
    70.53, 66.32, 66.55, 69.41, 66.36, 57.97, 62.93, 63.26, 56.06, 62.38, 54.71, 50.42, 39.99, 41.46,
    41.87, 45.46, 37.30, 33.08, 37.77,
]  # fmt: skip


def test_wilders_rsi_gives_the_published_values() -> None:
    values = indicators.compute(CLOSES, ["rsi:14"])["rsi:14"]
    assert values[:14] == [None] * 14
    assert values[14:] == pytest.approx(RSI, abs=0.06)


def test_the_moving_average_is_the_mean_of_the_last_closes() -> None:
    values = indicators.compute([1, 2, 3, 4, 10], ["sma:3"])["sma:3"]
    assert values == [None, None, 2.0, 3.0, pytest.approx(17 / 3, abs=1e-6)]


def test_a_price_that_only_rises_has_an_rsi_of_100_and_one_that_only_falls_of_0() -> None:
    assert indicators.compute([1, 2, 3, 4], ["rsi:2"])["rsi:2"][-1] == 100
    assert indicators.compute([4, 3, 2, 1], ["rsi:2"])["rsi:2"][-1] == 0


def test_a_price_that_stands_still_has_an_rsi_of_50() -> None:
    assert indicators.compute([5] * 10, ["rsi:3"])["rsi:3"][-1] == 50


@pytest.mark.parametrize("closes", [[], [1.0], [1.0, 2.0]])
def test_too_few_closes_give_no_value(closes: list[float]) -> None:
    found = indicators.compute(closes, ["sma:3", "rsi:2"])
    assert found == {"sma:3": [None] * len(closes), "rsi:2": [None] * len(closes)}


def test_each_kind_of_a_name_has_a_series() -> None:
    assert set(re.findall("[a-z]+", stock_indicators.NAME)) == set(indicator_series.FUNCTIONS)


def naive_rsi(closes: list[float], period: int) -> list[float]:
    moves = np.diff(closes)
    gain, loss = np.maximum(moves, 0)[:period].mean(), np.maximum(-moves, 0)[:period].mean()
    found = []
    for index in range(period, len(closes)):
        if index > period:
            gain = (gain * (period - 1) + max(moves[index - 1], 0)) / period
            loss = (loss * (period - 1) + max(-moves[index - 1], 0)) / period
        found.append(100 * gain / (gain + loss) if gain + loss > 0 else 50)
    return found


@given(st.lists(st.integers(100, 100_000), min_size=20, max_size=400), st.integers(2, 19))
def test_the_blockwise_rsi_is_the_recursive_one(cents: list[int], period: int) -> None:
    closes = [cent / 100 for cent in cents]
    found = indicator_series.rsi(np.asarray(closes), period)[period:]
    expected = naive_rsi(closes, period)
    # Where almost nothing is left of the averages, their ratio is noise.
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)

"""The alerts that a tick reaches: compared with the plain definition, at a cost that grows only with them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.alerts import CONDITION_KINDS, ConditionKind
from stock_data.alerts.crossings import Crossing
from stock_data.alerts.index import AlertIndex, Meter, day_of
from stock_data.alerts.watched import OVER, UNDER, UNKNOWN, WatchedAlert
from support.alert_ticks import MONDAY, tick, watched


def index_of(*alerts: WatchedAlert) -> AlertIndex:
    index = AlertIndex()
    for alert in alerts:
        index.know(alert)
        index.watch(alert)
    return index


def play(index: AlertIndex, price: int | str, **changes: object) -> list[WatchedAlert]:
    """Return the alerts that fire on a tick; those that it reaches are watched again on their new sides."""
    quote = tick(price, **changes)  # type: ignore[arg-type]
    fired = []
    for alert in [one for one in index.reached(quote) if one is not None]:
        value = alert.value_of(quote)
        assert value is not None
        crossing = Crossing(alert, alert.side_of(value), quote, day_of(quote))
        fired += [alert] if crossing.fires else []
        alert.side, alert.day = crossing.side, crossing.day
        index.watch(alert)
    return fired


@pytest.mark.parametrize(
    ("kind", "prices", "fires_at"),
    [
        ("above", [10, 11, 12, 11, 10, 11], [11, 11]),
        ("above", [11, 10, 11], [11]),
        ("below", [10, 9, 8, 9, 10, 9], [9, 9]),
        ("below", [9, 10, 9], [9]),
        ("crosses", [9, 10, 11, 10, 9, 10, 9], [11, 9]),
        ("crosses", [10, 10, 11, 10, 12, 9], [9]),
    ],
)
def test_a_crossing_counts_and_not_a_level(
    kind: ConditionKind, prices: list[int], fires_at: list[int]
) -> None:
    index = index_of(watched(kind, 10, 0))
    assert [price for price in prices if play(index, price)] == fires_at


@given(
    st.lists(st.tuples(st.sampled_from(CONDITION_KINDS[:3]), st.integers(1, 9)), min_size=1, max_size=12),
    st.lists(st.integers(0, 10), min_size=1, max_size=30),
)
def test_any_alerts_on_any_prices_fire_as_their_definition_says(
    conditions: list[tuple[ConditionKind, int]], prices: list[int]
) -> None:
    alerts = [watched(kind, threshold, 0) for kind, threshold in conditions]
    index = index_of(*alerts)
    last: dict[int, int] = {}
    for price in prices:
        expected = []
        for number, (kind, threshold) in enumerate(conditions):
            over = (price > threshold) - (price < threshold)
            if kind != "crosses" and over == 0:
                over = -1 if kind == "above" else 1
            before = last.get(number, 0)
            if over == 0:
                continue
            is_right = kind == "crosses" or over == (1 if kind == "above" else -1)
            if before and over != before and is_right:
                expected.append(alerts[number])
            last[number] = over
        assert {one.id for one in play(index, price)} == {one.id for one in expected}


def test_a_change_fires_once_a_day_and_each_day_begins_at_zero() -> None:
    tuesday = MONDAY + timedelta(days=1)
    index = index_of(watched("change_percent", 5, -1), fallen := watched("change_percent", -5, 1))

    def fired(change: int, **more: object) -> int:
        return len(play(index, 10, change_percent=Decimal(change), **more))

    assert [fired(4), fired(6), fired(7), fired(5), fired(6)] == [0, 1, 0, 0, 1]
    assert [fired(6, day=tuesday), fired(7, day=tuesday)] == [1, 0]
    assert fallen.side == 1
    assert [fired(-6, day=tuesday), fired(-7, day=tuesday)] == [1, 0]


def test_a_change_that_is_known_of_today_does_not_fire_again_and_one_of_yesterday_does() -> None:
    yesterday = MONDAY - timedelta(days=3)
    today, before = watched("change_percent", 5, 1), watched("change_percent", 5, 1, day=yesterday)
    assert play(index_of(today, before), 10, change_percent=Decimal(6)) == [before]


def test_without_a_previous_close_no_change_is_compared() -> None:
    assert play(index_of(watched("change_percent", 5, -1)), 10) == []


def test_a_forgotten_alert_and_those_of_other_symbols_are_not_reached() -> None:
    gone, other = watched("above", 10, -1), watched("above", 10, -1, symbol="B")
    index = index_of(gone, other)
    index.forget(gone.id)
    assert play(index, 11) == []
    assert (gone.id in index, other.id in index, len(index)) == (False, True, 1)


class CountedNumber(Decimal):
    """A number that counts how often it is compared."""

    comparisons = 0

    def __le__(self, other: object) -> bool:
        CountedNumber.comparisons += 1
        return super().__le__(other)  # type: ignore[operator]

    def __lt__(self, other: object) -> bool:
        CountedNumber.comparisons += 1
        return super().__lt__(other)  # type: ignore[operator]

    def __gt__(self, other: object) -> bool:
        CountedNumber.comparisons += 1
        return super().__gt__(other)  # type: ignore[operator]

    def __eq__(self, other: object) -> bool:
        CountedNumber.comparisons += 1
        return super().__eq__(other)

    def __neg__(self) -> CountedNumber:
        return CountedNumber(super().__neg__())

    __hash__ = Decimal.__hash__


def test_a_tick_costs_time_for_alerts_that_it_reaches_and_not_for_all_that_are_watched() -> None:
    costs = []
    for size in (10, 10_000):
        index = index_of(
            *(watched("above", CountedNumber(20 + number), -1) for number in range(size)),
        )
        CountedNumber.comparisons = 0
        assert play(index, 19) == []
        costs.append(CountedNumber.comparisons)
    assert costs[0] == costs[1] <= 4


@pytest.mark.parametrize("side", [UNDER, UNKNOWN, OVER])
def test_forgotten_alerts_take_no_room_for_ever(side: int) -> None:
    meter = Meter()
    for _ in range(2_000):
        alert = watched("above", 10, side)
        meter.add(alert)
        alert.is_gone = True
        meter.note_gone()
    assert len(meter) < 200

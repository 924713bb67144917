"""However many alerts one tick reaches, the event loop is free after a few of them, and none is left out."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from contracts.stocks import Quote
from stock_data.alerts.comparisons import MOST_TICKS, Comparisons
from stock_data.alerts.crossings import Crossing
from stock_data.alerts.index import AlertIndex
from stock_data.alerts.watched import OVER, UNDER, UNKNOWN, WatchedAlert
from support.alert_ticks import MONDAY, tick, watched

MANY = 3_000


class AlertTable:
    """Alerts, and their crossings in the order in which they were found."""

    def __init__(self) -> None:
        self.index = AlertIndex()
        self.found: list[Crossing] = []
        self.comparisons = Comparisons(self.index, on_crossing=self.found.append)

    def watch(self, *alerts: WatchedAlert) -> None:
        for alert in alerts:
            self.index.know(alert)
            self.comparisons.watch(alert)

    async def passes(self) -> list[int]:
        """Return how many crossings are found in each pass of the loop until all ticks are compared."""
        counts = [len(self.found)]
        while self.comparisons:
            await asyncio.sleep(0)
            counts.append(len(self.found) - sum(counts))
        return counts


@pytest.fixture
def world() -> AlertTable:
    return AlertTable()


def crowd(side: int = UNDER) -> list[WatchedAlert]:
    """Return very many alerts at one price of the symbol A."""
    return [watched("above", 10, side) for _ in range(MANY)]


async def test_a_tick_that_reaches_very_many_alerts_is_compared_in_parts(world: AlertTable) -> None:
    world.watch(*crowd())
    world.comparisons.take(tick(11))
    counts = await world.passes()
    assert sum(counts) == MANY
    assert max(counts) <= MANY / 5
    assert len({crossing.alert.id for crossing in world.found}) == MANY


async def test_another_symbol_does_not_wait_for_them(world: AlertTable) -> None:
    world.watch(*crowd(), other := watched("above", 10, UNDER, symbol="B"))
    for symbol in ("A", "B"):
        world.comparisons.take(tick(9, symbol=symbol))
    # Their day has begun.
    assert sum(await world.passes()) == 0
    world.comparisons.take(tick(11))
    world.comparisons.take(tick(11, symbol="B"))
    assert world.found[-1].alert is other
    assert len(world.found) <= MANY / 5


async def test_the_next_tick_is_compared_after_all_that_the_one_before_reaches(world: AlertTable) -> None:
    alerts = crowd()
    world.watch(*alerts, first := watched("below", 10, OVER))
    world.comparisons.take(tick(11))
    world.comparisons.take(tick(9))
    await world.passes()
    # Alerts that have crossed are watched again once that is written.
    assert [crossing.alert for crossing in world.found[MANY:]] == [first]
    assert {int(crossing.quote.price) for crossing in world.found[:MANY]} == {11}


async def test_an_alert_that_is_new_is_not_compared_with_ticks_of_before_its_time(world: AlertTable) -> None:
    world.watch(*crowd())
    world.comparisons.take(tick(11))
    world.comparisons.take(tick(9))
    world.watch(new := watched("above", 10, UNDER))
    world.comparisons.take(tick(12))
    await world.passes()
    assert [(crossing.alert.id, int(crossing.quote.price)) for crossing in world.found[MANY:]] == [
        (new.id, 12)
    ]


async def test_few_ticks_wait_for_a_crowd_and_the_newest_is_always_compared(world: AlertTable) -> None:
    world.watch(*crowd(), high := watched("above", 10_000, UNDER))
    levels = [watched("above", price, UNDER) for price in range(11, 11 + 3 * MOST_TICKS)]
    world.watch(*levels)
    for price in range(11, 11 + 3 * MOST_TICKS):
        world.comparisons.take(tick(price))
    world.comparisons.take(tick(10_001))
    await world.passes()
    assert world.found[-1].alert is high
    prices = [crossing.quote.price for crossing in world.found]
    assert prices == sorted(prices)
    assert MOST_TICKS <= len(set(prices)) <= MOST_TICKS + 1
    # Those of the ticks that were replaced are found by the newest.
    assert len(world.found) == MANY + len(levels) + 1


async def test_a_day_begins_for_very_many_alerts_in_parts(world: AlertTable) -> None:
    tuesday = MONDAY + timedelta(days=1)
    world.watch(*(watched("change_percent", 5, OVER) for _ in range(MANY)))
    world.comparisons.take(tick(10, change_percent=Decimal(6)))
    assert (await world.passes())[-1] == 0
    assert not world.found
    world.comparisons.take(tick(10, change_percent=Decimal(6), day=tuesday))
    counts = await world.passes()
    assert sum(counts) == MANY
    # Twice as many steps: each alert begins its day, and is then compared.
    assert len(counts) > 10
    assert max(counts) <= MANY / 5


async def test_alerts_that_end_while_others_are_compared_do_not_fire(world: AlertTable) -> None:
    alerts = crowd()
    world.watch(*alerts)
    world.comparisons.take(tick(11))
    for alert in alerts[MANY // 2 :]:
        world.index.forget(alert.id)
    await world.passes()
    assert [crossing.alert for crossing in world.found] == alerts[: MANY // 2]


async def test_alerts_without_a_side_are_looked_at_in_parts_too(world: AlertTable) -> None:
    world.watch(*(watched("crosses", 10, UNKNOWN) for _ in range(MANY)))
    world.comparisons.take(tick(10))
    passes = await world.passes()
    assert (len(passes) > 5, world.found) == (True, [])
    world.comparisons.take(tick(11))
    assert sum(await world.passes()) == MANY


async def test_a_fault_of_one_alert_is_reported_once_and_leaves_out_no_other(
    world: AlertTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = crowd()
    broken = alerts[MANY // 2]
    world.watch(*alerts)

    def value_of_any_but_one(alert: WatchedAlert, quote: Quote) -> Decimal:
        if alert is broken:
            raise ValueError("a fault of one alert")
        return quote.price

    with monkeypatch.context() as patched:
        patched.setattr(WatchedAlert, "value_of", value_of_any_but_one)
        world.comparisons.take(tick(11))
        await world.passes()
    with pytest.raises(ValueError, match="one alert"):
        world.comparisons.raise_fault()
    world.comparisons.raise_fault()
    assert len(world.found) == MANY - 1
    world.comparisons.take(tick(11))
    await world.passes()
    assert world.found[-1].alert is broken

"""Bars of one minute from ticks: their values, when they close, and which were not seen from the start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from contracts.stocks import LiveBar, Quote
from stock_data.replay.minute_bars import MinuteBars

NOON = datetime(2026, 1, 5, 17, 0, tzinfo=UTC)
TRADED = datetime(2012, 5, 21, 15, 0, tzinfo=UTC)


def tick(second: float, price: str, volume: int | None = 0, **changes: Any) -> Quote:
    fields = {
        "symbol": "A",
        "price": Decimal(price),
        "volume": volume,
        "as_of": NOON + timedelta(seconds=second),
        "replayed": TRADED,
        "source": "replay",
        "session": "regular",
    }
    return Quote.model_validate(fields | changes)


def built(*ticks: Quote, since: float = 0, until: float = 0) -> list[LiveBar]:
    bars = MinuteBars("7", since=NOON + timedelta(seconds=since))
    for each in ticks:
        bars.add(each)
    return bars.take(NOON + timedelta(seconds=until))


def prices(bar: LiveBar) -> list[int]:
    return [int(price) for price in (bar.o, bar.h, bar.l, bar.c)]


def test_a_bar_has_open_extremes_and_close_of_its_ticks() -> None:
    [bar] = built(tick(1, "10"), tick(2, "14"), tick(3, "8"), tick(4, "11"))
    assert prices(bar) == [10, 14, 8, 11]
    assert (bar.t, bar.as_of, bar.ticks, bar.closed) == (NOON, NOON + timedelta(seconds=4), 4, False)


def test_a_tick_of_the_next_minute_closes_a_bar_and_begins_another() -> None:
    closed, current = built(tick(59.999, "10"), tick(60, "12"))
    assert (closed.t, closed.closed, prices(closed)) == (NOON, True, [10, 10, 10, 10])
    assert (current.t, current.closed, prices(current)) == (
        NOON + timedelta(minutes=1), False, [12, 12, 12, 12],
    )  # fmt: skip


def test_a_bar_without_another_tick_closes_when_its_minute_is_over() -> None:
    bars = MinuteBars("7", since=NOON)
    bars.add(tick(10, "10"))
    assert [bar.closed for bar in bars.take(NOON + timedelta(seconds=59))] == [False]
    assert [bar.closed for bar in bars.take(NOON + timedelta(seconds=60))] == [True]
    assert bars.take(NOON + timedelta(seconds=61)) == []


def test_only_changed_bars_are_taken_and_positions_count_the_bars_taken() -> None:
    bars = MinuteBars("7", since=NOON)
    taken = []
    for second, symbol in ((1, "A"), (2, "B"), (3, "A")):
        bars.add(tick(second, "10", symbol=symbol))
        taken += bars.take(NOON + timedelta(seconds=second))
    bars.add(tick(61, "10"))
    taken += bars.take(NOON + timedelta(seconds=61))
    positions = [(bar.symbol, bar.stream.epoch, bar.stream.offset, bar.closed) for bar in taken]
    assert positions == [
        ("A", "7", 1, False), ("B", "7", 1, False), ("A", "7", 2, False), ("A", "7", 3, True),
        ("B", "7", 2, True), ("A", "7", 4, False),
    ]  # fmt: skip


def test_a_bar_that_began_before_the_feed_is_partial_and_the_next_is_whole() -> None:
    first, second = built(tick(30, "10"), tick(61, "10"), since=20)
    assert (first.partial, second.partial) == (True, False)
    assert [bar.partial for bar in built(tick(0, "10"), since=0)] == [False]


def test_volume_is_what_was_traded_within_the_minute() -> None:
    ticks = [tick(1, "10", 500), tick(2, "10", 530), tick(61, "10", 570), tick(62, "10", 600)]
    assert [bar.v for bar in built(*ticks)] == [30, 70]


def test_volume_counts_from_nothing_on_a_new_day_also_when_it_is_greater() -> None:
    tomorrow = TRADED + timedelta(days=1)
    [bar] = built(tick(1, "10", 500), tick(2, "10", 520), tick(3, "10", 700, replayed=tomorrow))
    assert bar.v == 20 + 700
    [bar] = built(tick(1, "10", 500), tick(2, "10", 40, replayed=tomorrow))
    assert bar.v == 40


def test_without_volumes_of_the_feed_a_bar_has_none() -> None:
    assert [bar.v for bar in built(tick(1, "10", None), tick(2, "10", None))] == [None]
    assert [bar.v for bar in built(tick(1, "10", 5), tick(2, "10", None), tick(3, "10", 9))] == [None]


def test_a_tick_older_than_the_bar_changes_nothing() -> None:
    bars = MinuteBars("7", since=NOON)
    bars.add(tick(61, "10"))
    bars.add(tick(59, "99"))
    assert [prices(bar) for bar in bars.take(NOON + timedelta(seconds=61))] == [[10, 10, 10, 10]]
    bars.take(NOON + timedelta(seconds=120))
    bars.add(tick(119, "99"))
    assert bars.take(NOON + timedelta(seconds=121)) == []

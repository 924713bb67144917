"""The days that a replay reads ahead, so that it goes on without the database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal

import pytest

from chassis.errors import DatabaseUnavailable
from stock_data.replay import coming_days
from stock_data.replay.coming_days import ComingDays
from stock_data.replay.ticks import ReplayBar
from support.doubles.stock_history import daily

FIRST = date(2012, 5, 1)


class DailyHistory:
    """Has a bar on each of `length` days; `is_away` makes it fail, and `hangs` makes it wait."""

    def __init__(self, length: int) -> None:
        self.days = [FIRST + timedelta(days=number) for number in range(length)]
        self.is_away = False
        self.hangs = False
        self.asked: list[date] = []

    async def __call__(self, day: date, count: int) -> Sequence[Sequence[ReplayBar]]:
        self.asked.append(day)
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_away:
            raise DatabaseUnavailable("away")
        found = [each for each in self.days if each >= day][:count]
        return [[ReplayBar("ACME", "USD", daily(each.isoformat()), Decimal(1))] for each in found]


async def take(days: ComingDays, count: int) -> list[date]:
    found = []
    for _ in range(count):
        found.append((await days.next())[0].bar.day)
        await asyncio.sleep(0)
    return found


async def test_days_come_in_order_and_begin_again_after_the_last() -> None:
    history = DailyHistory(3)
    days = ComingDays(history, first=history.days[1], start_day=FIRST)
    assert await take(days, 6) == [*history.days[1:], *history.days, FIRST]
    await days.close()


@pytest.mark.parametrize("harm", ["is_away", "hangs"])
async def test_twenty_days_go_on_without_a_database(harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coming_days, "PAUSE_S", 0.01)
    history = DailyHistory(200)
    days = ComingDays(history, first=FIRST, start_day=FIRST)
    await take(days, 1)
    setattr(history, harm, True)
    async with asyncio.timeout(5):
        assert await take(days, 39) == history.days[1:40]
    await days.close()


async def test_the_replay_waits_for_a_database_that_is_away_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coming_days, "PAUSE_S", 0.01)
    history = DailyHistory(200)
    history.is_away = True
    days = ComingDays(history, first=FIRST, start_day=FIRST)
    waiting = asyncio.create_task(take(days, 2))
    while len(history.asked) < 3:
        await asyncio.sleep(0.01)
    assert not waiting.done()
    history.is_away = False
    assert await waiting == history.days[:2]
    await days.close()


async def test_a_history_without_days_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coming_days, "PAUSE_S", 0.01)
    history = DailyHistory(0)
    days = ComingDays(history, first=FIRST, start_day=FIRST)
    waiting = asyncio.create_task(take(days, 1))
    while len(history.asked) < 3:
        await asyncio.sleep(0.01)
    history.days = [FIRST]
    assert await waiting == [FIRST]
    await days.close()

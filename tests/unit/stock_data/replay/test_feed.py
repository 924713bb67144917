from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from chassis import metrics
from chassis.broker.envelope import Outgoing
from chassis.errors import BrokerUnavailable
from contracts.stocks import Quote, QuotesTicked
from stock_data.board import Board
from stock_data.replay.feed import Feed, Pace
from stock_data.replay.ticks import ReplayBar
from support.doubles.stock_history import daily
from support.waiting import until

DAYS = [
    ReplayBar("ACME", "USD", daily(f"2012-05-{number}", "11", open="10", high="12", low="9"), Decimal(10))
    for number in (21, 22, 23)
]
QUICK = Pace(speed=23_400 * 50, ticks_per_s=500, start_day=date(2012, 5, 21))


class Wire:
    """Takes what the feed sends; `is_broken` makes it fail as a broker that is away does."""

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []
        self.is_broken = False
        self.hangs = False

    async def send(self, message: Outgoing) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_broken:
            raise BrokerUnavailable("no broker")
        self.messages.append(message)

    @property
    def quotes(self) -> list[Quote]:
        ticked = [QuotesTicked.model_validate_json(message.body) for message in self.messages]
        return [quote for each in ticked for quote in each.quotes]


async def next_day(day: date) -> Sequence[ReplayBar]:
    return [each for each in DAYS if each.bar.day >= day][:1]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def board() -> Board:
    return Board(stale_after_s=10)


@asynccontextmanager
async def playing(feed: Feed) -> AsyncIterator[None]:
    task = asyncio.create_task(feed.run())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def feed_of(wire: Wire, board: Board, pace: Pace = QUICK) -> Feed:
    return Feed(pace, next_day=next_day, board=board, send=wire.send)


def replayed_days(wire: Wire) -> list[int]:
    days = [quote.replayed.day for quote in wire.quotes if quote.replayed]
    return [day for number, day in enumerate(days) if number == 0 or day != days[number - 1]]


async def test_days_are_played_over_and_over(wire: Wire, board: Board) -> None:
    async with playing(feed_of(wire, board)):
        await until(lambda: len(replayed_days(wire)) >= 5)
    assert replayed_days(wire)[:5] == [21, 22, 23, 21, 22]


async def test_the_replay_starts_at_the_chosen_day(wire: Wire, board: Board) -> None:
    pace = Pace(QUICK.speed, QUICK.ticks_per_s, date(2012, 5, 22))
    async with playing(feed_of(wire, board, pace)):
        await until(lambda: len(replayed_days(wire)) >= 3)
    assert replayed_days(wire)[:3] == [22, 23, 22]


async def test_every_tick_of_a_day_is_sent_in_order(wire: Wire, board: Board) -> None:
    async with playing(feed_of(wire, board)):
        await until(lambda: len(replayed_days(wire)) >= 2)
    offsets = [quote.stream.offset for quote in wire.quotes if quote.stream]
    assert offsets == list(range(1, len(offsets) + 1))
    day = [quote for quote in wire.quotes if quote.replayed and quote.replayed.day == 21][
        : QUICK.ticks_per_day
    ]
    assert len(day) == QUICK.ticks_per_day
    assert (day[0].price, day[-1].price) == (Decimal(10), Decimal(11))
    assert day[-1].volume == 1000


async def test_ticks_go_to_the_live_exchange_and_are_transient(wire: Wire, board: Board) -> None:
    async with playing(feed_of(wire, board)):
        await until(lambda: wire.messages)
    message = wire.messages[0]
    assert (message.exchange, message.routing_key, message.persistent) == ("live", "quotes", False)
    assert message.message_type == "stocks.ticked.v1"


async def test_the_board_has_the_last_tick(wire: Wire, board: Board) -> None:
    feed = feed_of(wire, board, Pace(speed=60, ticks_per_s=1, start_day=date(2012, 5, 21)))
    async with playing(feed):
        await until(lambda: wire.messages)
        assert feed.is_running
        assert board.get("ACME", datetime.now(UTC)) == wire.quotes[-1]
    assert not feed.is_running


async def test_without_a_broker_ticks_are_dropped_and_counted_and_the_board_goes_on(
    wire: Wire, board: Board
) -> None:
    wire.is_broken = True
    dropped = metrics.PUBLISHED.labels("live", "dropped")
    before = dropped._value.get()
    async with playing(feed_of(wire, board)):
        await until(lambda: dropped._value.get() >= before + 3)
        assert board.get("ACME", datetime.now(UTC)) is not None
        wire.is_broken = False
        await until(lambda: wire.messages)


async def test_a_broker_that_takes_nothing_does_not_stop_the_feed(
    wire: Wire, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stock_data.replay.feed._SEND_TIMEOUT_S", 0.01)
    wire.hangs = True
    async with playing(feed_of(wire, board)):
        await until(
            lambda: (
                (quote := board.get("ACME", datetime.now(UTC))) and quote.stream and quote.stream.offset > 20
            )
        )


async def test_each_run_is_a_new_epoch(wire: Wire, board: Board) -> None:
    feed = feed_of(wire, board)
    for wanted in (1, 2):
        async with playing(feed):
            await until(
                lambda wanted=wanted: len({q.stream.epoch for q in wire.quotes if q.stream}) == wanted
            )


async def test_a_history_without_days_is_waited_for(
    wire: Wire, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stock_data.replay.feed._PAUSE_WITHOUT_DAYS_S", 0.01)
    asked: list[date] = []

    async def later(day: date) -> Sequence[ReplayBar]:
        asked.append(day)
        return await next_day(day) if len(asked) > 3 else []

    async with playing(Feed(QUICK, next_day=later, board=board, send=wire.send)):
        await until(lambda: wire.messages)
    assert asked[:4] == [QUICK.start_day] * 4


@pytest.mark.parametrize(
    ("speed", "ticks_per_s", "count"), [(60, 1, 390), (1, 1, 23_400), (23_400, 1, 4), (60, 100, 39_000)]
)
def test_a_day_has_as_many_ticks_as_its_length_allows(speed: float, ticks_per_s: float, count: int) -> None:
    assert Pace(speed, ticks_per_s, date(2012, 5, 21)).ticks_per_day == count

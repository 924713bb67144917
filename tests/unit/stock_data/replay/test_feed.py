"""The feed of the replay: its ticks, its position, and its end when another leads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from chassis import metrics
from chassis.broker.envelope import Outgoing
from chassis.errors import BrokerUnavailable
from contracts.stocks import Quote, QuotesTicked, StreamPosition
from stock_data.replay.board import Board, ReplayPosition
from stock_data.replay.feed import Feed
from stock_data.replay.term import Term
from stock_data.replay.ticks import ReplayBar, ReplaySpeed
from support.background import in_background
from support.doubles.stock_history import daily
from support.measured import value_of
from support.waiting import until

DAYS = [
    ReplayBar("ACME", "USD", daily(f"2012-05-{number}", "11", open="10", high="12", low="9"), Decimal(10))
    for number in (21, 22, 23)
]
QUICK = ReplaySpeed(23_400 * 50, ticks_per_s=500)
TICKS_PER_DAY = 10
LATER = StreamPosition(epoch="8", offset=1)
START = date(2012, 5, 21)


class FeedWire:
    """Takes what the feed sends; `is_broken` makes it fail as a broker that is away does."""

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []
        self.sent_at: list[datetime] = []
        self.is_broken = False
        self.hangs = False

    async def send(self, message: Outgoing) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_broken:
            raise BrokerUnavailable("no broker")
        self.messages.append(message)
        self.sent_at.append(datetime.now(UTC))

    @property
    def quotes(self) -> list[Quote]:
        ticked = [QuotesTicked.model_validate_json(message.body) for message in self.messages]
        return [quote for each in ticked for quote in each.quotes]


async def read_days(day: date, count: int) -> Sequence[Sequence[ReplayBar]]:
    return [[each] for each in DAYS if each.bar.day >= day][:count]


@pytest.fixture
def wire() -> FeedWire:
    return FeedWire()


@pytest.fixture
def board() -> Board:
    return Board(stale_after_s=10)


def playing(feed: Feed, term: Term = Term(7, None)) -> AbstractAsyncContextManager[None]:  # noqa: B008 - frozen
    return in_background(feed.run(term))


def feed_of(wire: FeedWire, board: Board, speed: ReplaySpeed = QUICK, *, start_day: date = START) -> Feed:
    return Feed(speed, start_day=start_day, read_days=read_days, board=board, send=wire.send)


def positions(board: Board) -> list[int]:
    quote = board.get("ACME", datetime.now(UTC))
    return [quote.stream.offset] if quote and quote.stream else []


def replayed_days(wire: FeedWire) -> list[int]:
    days = [quote.replayed.day for quote in wire.quotes if quote.replayed]
    return [day for number, day in enumerate(days) if number == 0 or day != days[number - 1]]


async def test_days_are_played_over_and_over(wire: FeedWire, board: Board) -> None:
    async with playing(feed_of(wire, board)):
        await until(lambda: len(replayed_days(wire)) >= 5)
    assert replayed_days(wire)[:5] == [21, 22, 23, 21, 22]


async def test_a_tick_has_the_time_at_which_it_is_sent(wire: FeedWire, board: Board) -> None:
    async with playing(feed_of(wire, board, ReplaySpeed(23_400, ticks_per_s=10))):
        await until(lambda: len(wire.messages) >= 3)
    for before, quote in zip(wire.sent_at, wire.quotes[1:], strict=False):
        assert before < quote.as_of


async def test_the_replay_starts_at_the_chosen_day(wire: FeedWire, board: Board) -> None:
    async with playing(feed_of(wire, board, start_day=date(2012, 5, 22))):
        await until(lambda: len(replayed_days(wire)) >= 3)
    assert replayed_days(wire)[:3] == [22, 23, 22]


async def test_every_tick_of_a_day_is_sent_in_order(wire: FeedWire, board: Board) -> None:
    async with playing(feed_of(wire, board)):
        await until(lambda: len(replayed_days(wire)) >= 2)
    offsets = [quote.stream.offset for quote in wire.quotes if quote.stream]
    assert offsets == list(range(1, len(offsets) + 1))
    day = [quote for quote in wire.quotes if quote.replayed and quote.replayed.day == 21][:TICKS_PER_DAY]
    assert len(day) == TICKS_PER_DAY
    assert (day[0].price, day[-1].price) == (Decimal(10), Decimal(11))
    assert day[-1].volume == 1000


async def test_ticks_go_to_the_live_exchange_and_are_transient(wire: FeedWire, board: Board) -> None:
    async with playing(feed_of(wire, board)):
        await until(lambda: wire.messages)
    message = wire.messages[0]
    assert (message.exchange, message.routing_key, message.persistent) == ("live", "quotes", False)
    assert message.message_type == "stocks.ticked.v1"


async def test_the_board_has_the_last_tick(wire: FeedWire, board: Board) -> None:
    feed = feed_of(wire, board, ReplaySpeed(60, ticks_per_s=1))
    async with playing(feed):
        await until(lambda: wire.messages)
        assert feed.is_running
        assert board.get("ACME", datetime.now(UTC)) == wire.quotes[-1]
    assert not feed.is_running


async def test_a_listener_that_fails_stops_neither_the_ticks_nor_the_other_listeners(
    wire: FeedWire, board: Board
) -> None:
    taken: list[Quote] = []

    def fail(_: Sequence[Quote]) -> None:
        raise ArithmeticError("a fault of the listener")

    feed = Feed(
        QUICK,
        start_day=START,
        read_days=read_days,
        board=board,
        send=wire.send,
        on_ticks=[fail, taken.extend],
    )
    async with playing(feed):
        await until(lambda: len(wire.quotes) >= 3)
    assert taken[:3] == wire.quotes[:3]


async def test_without_a_broker_ticks_are_dropped_and_counted_and_the_board_goes_on(
    wire: FeedWire, board: Board
) -> None:
    wire.is_broken = True
    dropped = metrics.PUBLISHED.labels("live", "dropped")
    before = value_of(dropped)
    async with playing(feed_of(wire, board)):
        await until(lambda: value_of(dropped) >= before + 3)
        assert board.get("ACME", datetime.now(UTC)) is not None
        wire.is_broken = False
        await until(lambda: wire.messages)


async def test_a_broker_that_takes_nothing_does_not_stop_the_feed(
    wire: FeedWire, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stock_data.replay.outlet.TIMEOUT_S", 0.01)
    wire.hangs = True
    async with playing(feed_of(wire, board)):
        await until(
            lambda: (
                (quote := board.get("ACME", datetime.now(UTC))) and quote.stream and quote.stream.offset > 20
            )
        )


async def test_the_epoch_is_the_number_of_the_term(wire: FeedWire, board: Board) -> None:
    async with playing(feed_of(wire, board), Term(41, None)):
        await until(lambda: wire.quotes)
    assert {quote.stream.epoch for quote in wire.quotes if quote.stream} == {"41"}


async def test_a_new_term_goes_on_where_the_last_one_was(wire: FeedWire, board: Board) -> None:
    feed = feed_of(wire, board)
    async with playing(feed, Term(1, None)):
        await until(lambda: len(wire.quotes) >= 2 * TICKS_PER_DAY)
    ticked, wire.messages = wire.quotes, []
    last = ticked[-1].replayed
    assert last is not None
    async with playing(feed, Term(2, ReplayPosition(last, datetime.now(UTC)))):
        await until(lambda: len(wire.quotes) >= TICKS_PER_DAY)
    whole = len(DAYS) * TICKS_PER_DAY
    shown = [quote.replayed for quote in [*ticked, *wire.quotes]]
    assert shown[whole:] == shown[: len(shown) - whole]
    assert len(set(shown[:whole])) == whole


async def test_before_the_first_tick_the_last_quotes_are_answered(wire: FeedWire, board: Board) -> None:
    async with playing(feed_of(wire, board)):
        await until(lambda: len(wire.quotes) >= TICKS_PER_DAY + 5)
    last, fresh = wire.quotes[-1], Board(stale_after_s=10)
    assert last.replayed is not None
    shown_at = datetime(2026, 1, 5, 15, tzinfo=UTC)
    await feed_of(wire, fresh).restore(Term(7, ReplayPosition(last.replayed, shown_at)))
    reported = fresh.get("ACME", shown_at + timedelta(hours=1))
    assert reported is not None
    assert (reported.price, reported.replayed, reported.stale) == (last.price, last.replayed, True)
    assert fresh.position == ReplayPosition(last.replayed, shown_at)
    fresh.put([last.model_copy(update={"stream": StreamPosition(epoch="7", offset=1)})])
    assert positions(fresh) == [1]


async def test_a_place_that_takes_too_long_to_find_is_left_for_the_next_day(
    wire: FeedWire, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stock_data.replay.feed.MOST_SKIPPED", 3)
    noon = ReplayPosition(datetime(2012, 5, 21, 16, tzinfo=UTC), datetime.now(UTC))
    feed = feed_of(wire, board)
    await feed.restore(Term(6, noon))
    assert board.position is None
    async with playing(feed, Term(7, noon)):
        await until(lambda: wire.quotes)
    assert replayed_days(wire)[0] == 22


async def test_the_feed_ends_when_it_receives_ticks_of_a_later_leader(wire: FeedWire, board: Board) -> None:
    feed = feed_of(wire, board)
    task = asyncio.create_task(feed.run(Term(7, None)))
    await until(lambda: wire.quotes)
    board.put([wire.quotes[0].model_copy(update={"stream": LATER, "price": Decimal(99)})])
    await asyncio.wait_for(task, 5)
    quote = board.get("ACME", datetime.now(UTC))
    assert quote is not None
    assert (quote.stream, quote.price) == (LATER, Decimal(99))
    assert not feed.is_running


async def test_a_feed_of_an_old_term_does_not_even_begin(wire: FeedWire, board: Board) -> None:
    board.put(
        [Quote(symbol="ACME", price=Decimal(1), as_of=datetime.now(UTC), source="replay", stream=LATER)]
    )
    await asyncio.wait_for(feed_of(wire, board).run(Term(7, None)), 5)
    assert wire.quotes == []

"""Quotes, bars and search from all providers together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from prometheus_client import REGISTRY

from chassis.deadlines import Deadline
from contracts.stocks import (
    BackfillBars,
    Bar,
    Bars,
    Coverage,
    GetBars,
    GetQuotes,
    Instrument,
    Quote,
    SearchSymbols,
)
from stock_data.errors import InvalidCursor, InvalidRange, InvalidSymbol, UnknownSymbol, UpstreamDown
from stock_data.instruments import InstrumentIndex
from stock_data.market import Market
from stock_data.providers.failover import Failover
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes
from support.doubles.stock_history import listing

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)
FIRST = date(2012, 5, 1)
HISTORY = Coverage(first=FIRST, last=FIRST + timedelta(days=19))
SOON = Deadline.after(3600)
THREADS = "tickwire_thread_wait_seconds_count"


class MarketUpstream:
    """Knows AAPL and IBM with a bar for each of 20 days from 2012-05-01."""

    def __init__(self, name: str = "upstream") -> None:
        self.name = name
        self.is_down = False
        self.is_empty = False

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        self._require_up()
        known = [symbol for symbol in symbols if symbol in ("AAPL", "IBM")]
        return FoundQuotes({s: Quote(symbol=s, price=Decimal(1), as_of=NOW, source=self.name) for s in known})

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        self._require_up()
        if query.symbol not in ("AAPL", "IBM"):
            raise UnknownSymbol(query.symbol)
        days = [FIRST + timedelta(days=number) for number in range(20)]
        found = [_bar(day) for day in days if query.start <= day <= query.end and not self.is_empty]
        return BarsPage(found[: query.limit], has_more=len(found) > query.limit, as_of=NOW, coverage=HISTORY)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        return [Instrument(symbol="AAPL", name="Apple Inc.", exchange="NASDAQ")][:limit]

    def _require_up(self) -> None:
        if self.is_down:
            raise UpstreamDown("no line")


def _bar(day: date) -> Bar:
    one = Decimal(1)
    return Bar(
        t=datetime(day.year, day.month, day.day, tzinfo=UTC), o=one, h=one, l=one, c=one, v=Decimal(day.day)
    )


def index() -> InstrumentIndex:
    found = InstrumentIndex()
    found.fill(listing(symbol) for symbol in ("MSFT", "AAPL", "FB", "IBM"))
    return found


@pytest.fixture
def upstream() -> MarketUpstream:
    return MarketUpstream()


@pytest.fixture
def market(upstream: MarketUpstream) -> Market:
    return Market(Failover([upstream]), index())


async def test_quotes_come_in_the_order_asked_for_each_once(market: Market) -> None:
    reply = await market.quotes(GetQuotes(symbols=["ibm", "AAPL", "IBM"]), SOON)
    assert [quote.symbol for quote in reply.quotes] == ["IBM", "AAPL"]
    assert reply.errors == []


async def test_a_long_page_of_bars_is_written_in_a_thread_and_says_the_same(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = GetBars(symbol="AAPL")
    before = REGISTRY.get_sample_value(THREADS)
    short = await market.bars_document(request, SOON)
    assert REGISTRY.get_sample_value(THREADS) == before
    monkeypatch.setattr("stock_data.market.INLINE_ROWS", 19)
    long = await market.bars_document(request, SOON)
    assert isinstance(long, bytes)
    assert Bars.model_validate_json(long) == short
    assert REGISTRY.get_sample_value(THREADS) == (before or 0) + 1


async def test_a_symbol_that_fails_is_named_beside_the_others(market: Market) -> None:
    reply = await market.quotes(GetQuotes(symbols=["nope", "AAPL", "b@d"]), SOON)
    assert [quote.symbol for quote in reply.quotes] == ["AAPL"]
    assert {(error.symbol, error.code, error.status) for error in reply.errors} == {
        ("NOPE", "unknown-symbol", 404),
        ("b@d", "invalid-symbol", 422),
    }


async def test_when_no_provider_answers_each_symbol_says_so(market: Market, upstream: MarketUpstream) -> None:
    upstream.is_down = True
    reply = await market.quotes(GetQuotes(symbols=["AAPL", "IBM"]), SOON)
    assert [(error.symbol, error.code, error.status) for error in reply.errors] == [
        ("AAPL", "provider-down", 503),
        ("IBM", "provider-down", 503),
    ]


async def test_the_answer_names_the_providers_that_failed() -> None:
    broken = MarketUpstream("broken")
    broken.is_down = True
    market = Market(Failover([broken, MarketUpstream("spare")]), index())
    quotes = await market.quotes(GetQuotes(symbols=["AAPL"]), SOON)
    bars = await market.bars(GetBars(symbol="AAPL"), SOON)
    assert quotes.quotes[0].source == bars.source == "spare"
    assert quotes.quotes[0].warnings == bars.warnings == ["broken: upstream_down: no line"]


async def test_a_symbol_that_only_the_broken_provider_may_know_is_not_called_unknown() -> None:
    broken = MarketUpstream("broken")
    broken.is_down = True
    market = Market(Failover([broken, MarketUpstream("spare")]), index())
    reply = await market.quotes(GetQuotes(symbols=["TSLA"]), SOON)
    assert [(error.code, error.status) for error in reply.errors] == [("provider-down", 503)]


async def test_the_pages_together_are_the_whole_range(market: Market) -> None:
    volumes: list[Decimal] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        page = await market.bars(GetBars(symbol="aapl", limit=6, cursor=cursor), SOON)
        volumes += [bar.v for bar in page.data]
        cursor, pages = page.next_cursor, pages + 1
    assert volumes == list(map(Decimal, range(1, 21)))
    assert pages == 4


async def test_a_range_keeps_both_its_ends(market: Market) -> None:
    page = await market.bars(GetBars(symbol="AAPL", start=date(2012, 5, 3), end=date(2012, 5, 5)), SOON)
    assert [bar.v for bar in page.data] == [3, 4, 5]
    assert (page.symbol, page.adjustment, page.timeframe, page.next_cursor) == ("AAPL", "raw", "1d", None)


async def test_a_cursor_stays_inside_its_range(market: Market) -> None:
    question = {"symbol": "AAPL", "start": date(2012, 5, 3), "end": date(2012, 5, 6), "limit": 2}
    first = await market.bars(GetBars.model_validate(question), SOON)
    second = await market.bars(GetBars.model_validate(question | {"cursor": first.next_cursor}), SOON)
    assert [bar.v for bar in second.data] == [5, 6]
    assert second.next_cursor is None


async def test_an_invalid_request_is_refused(market: Market) -> None:
    with pytest.raises(InvalidSymbol):
        await market.bars(GetBars(symbol="../x"), SOON)
    with pytest.raises(InvalidRange):
        await market.bars(GetBars(symbol="AAPL", start=date(2012, 5, 3), end=date(2012, 5, 2)), SOON)
    with pytest.raises(InvalidCursor):
        await market.bars(GetBars(symbol="AAPL", cursor="x"), SOON)
    with pytest.raises(UnknownSymbol):
        await market.bars(GetBars(symbol="NOPE"), SOON)


async def test_search_finds_instruments(market: Market) -> None:
    reply = await market.search(SearchSymbols(q="apple"), SOON)
    assert [each.symbol for each in reply.data] == ["AAPL"]


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (date(2026, 1, 1), None, "There are no bars of AAPL after 2012-05-20: the history ends there."),
        (None, date(2000, 1, 1), "There are no bars of AAPL before 2012-05-01: the history begins there."),
    ],
)
async def test_a_range_outside_of_the_history_says_so(
    market: Market, start: date | None, end: date | None, said: str
) -> None:
    page = await market.bars(GetBars(symbol="AAPL", start=start, end=end), SOON)
    assert (page.data, page.warnings, page.coverage) == ([], [said], HISTORY)


async def test_a_range_without_a_day_of_trading_says_so(market: Market, upstream: MarketUpstream) -> None:
    upstream.is_empty = True
    page = await market.bars(GetBars(symbol="AAPL", start=FIRST, end=FIRST), SOON)
    assert page.warnings == ["There are no bars of AAPL in this range."]


async def test_an_unknown_symbol_comes_with_known_ones_that_look_like_it(market: Market) -> None:
    reply = await market.quotes(GetQuotes(symbols=["APPL", "ZZZZ"]), SOON)
    assert [(error.symbol, error.suggestions) for error in reply.errors] == [("APPL", ["AAPL"]), ("ZZZZ", [])]
    assert reply.errors[0].detail == "The symbol APPL is not known. Did you mean AAPL?"
    with pytest.raises(UnknownSymbol, match="Did you mean AAPL"):
        await market.bars(GetBars(symbol="APPL"), SOON)


async def test_a_backfill_without_an_upstream_tells_what_is_shipped(market: Market) -> None:
    kept = await market.backfill(BackfillBars(symbol="aapl", start=date(2012, 5, 3)), SOON)
    assert (kept.symbol, kept.source, kept.bars, kept.written) == ("AAPL", "upstream", 18, 0)
    assert kept.first is not None
    with pytest.raises(InvalidRange):
        await market.backfill(BackfillBars(symbol="AAPL", start=FIRST, end=date(2012, 4, 1)), SOON)
    with pytest.raises(UnknownSymbol):
        await market.backfill(BackfillBars(symbol="NOPE", start=FIRST), SOON)

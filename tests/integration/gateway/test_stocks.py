"""Quotes and bars over HTTP: their forms, their versions, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis.broker import envelope
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, NotFound
from contracts import stocks
from contracts.topology import STOCK_DATA
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

NOW = datetime(2026, 1, 2, 15, 30, tzinfo=UTC)


def quote(symbol: str, **changes: Any) -> stocks.Quote:
    return stocks.Quote(symbol=symbol, price=Decimal("190.12"), as_of=NOW, source="double", **changes)


class StockData:
    """Knows every symbol but NOPE."""

    def __init__(self) -> None:
        self.questions: list[list[str]] = []

    async def quotes(self, request: stocks.GetQuotes, _: Deadline) -> stocks.Quotes:
        self.questions.append(request.symbols)
        unknown = stocks.SymbolError(
            symbol="NOPE", code="unknown-symbol", status=404, detail="No such symbol."
        )
        found = [quote(symbol) for symbol in request.symbols if symbol != "NOPE"]
        return stocks.Quotes(quotes=found, errors=[unknown] if "NOPE" in request.symbols else [])

    async def bars(self, request: stocks.GetBars, _: Deadline) -> stocks.Bars:
        if request.symbol == "NOPE":
            raise NotFound("No such symbol.")
        if request.start and request.start > date(2030, 1, 1):
            raise InvalidInput("start lies in the future.")
        p = Decimal("1.5")
        bar = stocks.Bar(t=NOW, o=p, h=p, l=p, c=p, v=Decimal(100), factor=Decimal(1))
        return stocks.Bars(
            symbol=request.symbol,
            timeframe="1d",
            adjustment=request.adjustment,
            source="double",
            as_of=NOW,
            data=[bar, bar],
            next_cursor="more",
        )


@pytest.fixture
async def stock_data(listener: RunningGateway, house: House) -> StockData:
    double = StockData()
    await house.double(STOCK_DATA, {stocks.GetQuotes: double.quotes, stocks.GetBars: double.bars})
    return double


async def test_a_quote_comes_from_stock_data(listener: RunningGateway, stock_data: StockData) -> None:
    answer = await listener.api.get("/v1/stocks/msft")
    assert (answer.status_code, answer.json()["symbol"], answer.json()["price"]) == (200, "MSFT", 190.12)
    assert "max-age=1" in answer.headers["cache-control"]
    assert (await listener.api.get("/stock/msft")).json() == answer.json()
    assert_problem(await listener.api.get("/v1/stocks/NOPE"), 404, "unknown-symbol")
    assert_problem(await listener.api.get("/v1/stocks/AAPL%0A"), 422, "invalid-input")


async def test_many_quotes_come_in_the_order_asked_for(
    listener: RunningGateway, stock_data: StockData
) -> None:
    document = (await listener.api.get("/v1/stocks?symbols=B,nope,A,B")).json()
    assert [found["symbol"] for found in document["quotes"]] == ["B", "A"]
    assert document["errors"] == [{"symbol": "NOPE", "code": "unknown-symbol", "detail": "No such symbol."}]


async def test_a_pushed_quote_is_answered_without_a_request_and_is_304_when_known(
    listener: RunningGateway, house: House, stock_data: StockData
) -> None:
    pushed = quote("PUSHD", stream=stocks.StreamPosition(epoch="e", offset=7))
    await house.publish([envelope.live(stocks.QuotesTicked(quotes=[pushed]), "quotes")])

    async def is_pushed() -> bool:
        return "etag" in (await listener.api.get("/v1/stocks/PUSHD")).headers

    await until(is_pushed)
    stock_data.questions.clear()
    first = await listener.api.get("/v1/stocks/pushd")
    assert (first.headers["etag"], stock_data.questions) == ('"e-7"', [])
    for known in ('"e-7"', 'W/"e-7"', '"x", "e-7"', "*"):
        again = await listener.api.get("/v1/stocks/PUSHD", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", '"e-7"')
    other = await listener.api.get("/v1/stocks/PUSHD", headers={"if-none-match": '"e-6"'})
    assert (other.status_code, other.json()) == (200, first.json())
    head = await listener.api.head("/v1/stocks/PUSHD")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(first.content)))


@pytest.mark.parametrize(
    ("how", "content_type"),
    [
        ({}, "application/json"),
        ({"headers": {"accept": "text/csv"}}, "text/csv; charset=utf-8"),
        ({"headers": {"accept": "application/x-ndjson"}}, "application/x-ndjson"),
        ({"params": {"format": "csv"}}, "text/csv; charset=utf-8"),
    ],
)
async def test_bars_come_in_three_forms(
    listener: RunningGateway, stock_data: StockData, how: dict[str, Any], content_type: str
) -> None:
    answer = await listener.api.get("/v1/stocks/AAPL/bars", **how)
    assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
    if "csv" in content_type:
        assert answer.text.splitlines()[:2] == [
            "t,o,h,l,c,v,factor",
            "2026-01-02T15:30:00Z,1.5,1.5,1.5,1.5,100,1.0",
        ]
        assert answer.headers["x-next-cursor"] == "more"
    else:
        assert answer.text.count('"c":1.5') == 2
    how = {**how, "headers": {**how.get("headers", {}), "if-none-match": answer.headers["etag"]}}
    assert (await listener.api.get("/v1/stocks/AAPL/bars", **how)).status_code == 304
    assert answer.headers["vary"] == "accept"


async def test_a_long_page_of_bars_is_written_as_csv_in_a_thread(
    listener: RunningGateway, stock_data: StockData, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, threads = [], []
    for short_bytes in (1_000_000, 0):
        monkeypatch.setattr("gateway.stocks.service.SHORT_BYTES", short_bytes)
        before = REGISTRY.get_sample_value("tickwire_thread_wait_seconds_count") or 0
        texts.append((await listener.api.get("/v1/stocks/AAPL/bars?format=csv")).text)
        threads.append((REGISTRY.get_sample_value("tickwire_thread_wait_seconds_count") or 0) - before)
    assert (texts[0] == texts[1], threads) == (True, [0, 1])


async def test_invalid_requests_for_bars_are_refused(listener: RunningGateway, stock_data: StockData) -> None:
    bars = "/v1/stocks/AAPL/bars"
    assert_problem(await listener.api.get(bars, headers={"accept": "image/png"}), 406, "not-acceptable")
    assert_problem(await listener.api.get(f"{bars}?limit=10001"), 422, "invalid-input", "/limit")
    assert_problem(await listener.api.get(f"{bars}?start=2024-02-30"), 422, "invalid-input", "/start")
    assert_problem(await listener.api.get(f"{bars}?start=2024-02-02&end=2024-02-01"), 422, "invalid-input")
    assert_problem(await listener.api.get(f"{bars}?start=2031-01-01"), 422, "invalid-input")
    assert_problem(await listener.api.get("/v1/stocks/NOPE/bars"), 404, "not-found")

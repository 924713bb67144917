"""Quotes come from the book when fresh, else from one request for all callers at the same time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chassis import shares
from chassis.deadlines import Deadline
from chassis.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    InvalidInput,
    NotBegun,
    RemoteFailure,
    ServiceError,
)
from contracts.message import Failure
from contracts.scopes import Scope
from contracts.stocks import GetQuotes
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.stocks.book import QuoteBook
from gateway.stocks.inputs import QuotesQuery, symbol_of
from gateway.stocks.service import StockService


def quote(symbol: str, offset: int = 1) -> dict[str, Any]:
    return {"symbol": symbol, "price": 1.0, "as_of": "x", "stream": {"epoch": "e", "offset": offset}}


class StockDataAnswers:
    """Stock-data in memory: knows every symbol but NOPE; counts the questions."""

    def __init__(self) -> None:
        self.questions: list[list[str]] = []
        self.error: ServiceError | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def ask(self, request: GetQuotes, deadline: Deadline) -> bytes:
        self.questions.append(list(request.symbols))
        await self.go.wait()
        if self.error:
            raise self.error
        known = [quote(symbol) for symbol in request.symbols if symbol not in ("NOPE", "BUSY", "LOST")]
        errors = [
            {"symbol": "NOPE", "code": "unknown-symbol", "status": 404, "detail": "No such symbol."},
            {"symbol": "BUSY", "code": "provider-quota", "status": 503, "detail": "-", "retry_after_s": 42.5},
        ]
        failed = [error for error in errors if error["symbol"] in request.symbols]
        return orjson.dumps({"quotes": known, "errors": failed})


@pytest.fixture
def rpc() -> StockDataAnswers:
    return StockDataAnswers()


@pytest.fixture
def book() -> QuoteBook:
    return QuoteBook(fresh_s=60)


@pytest.fixture
def service(book: QuoteBook, rpc: StockDataAnswers) -> StockService:
    untyped: Any = rpc
    return StockService(book, untyped)


async def ask(service: StockService, symbol: str, timeout_s: float = 5) -> Any:
    return orjson.loads(await service.ask(symbol, Deadline.after(timeout_s)))


async def test_the_failure_of_a_quote_says_when_to_ask_again(
    service: StockService, rpc: StockDataAnswers
) -> None:
    for symbol, expected in (("BUSY", 42.5), ("NOPE", None)):
        with pytest.raises(RemoteFailure) as caught:
            await ask(service, symbol)
        assert caught.value.retry_after_s == expected


async def test_a_hundred_callers_of_one_symbol_share_one_request(
    service: StockService, rpc: StockDataAnswers
) -> None:
    answers = await asyncio.gather(*(ask(service, "AAPL") for _ in range(100)))
    assert rpc.questions == [["AAPL"]]
    assert all(answer == quote("AAPL") for answer in answers)


async def test_symbols_asked_for_at_the_same_moment_share_a_message(
    service: StockService, rpc: StockDataAnswers
) -> None:
    symbols = [f"S{number}" for number in range(250)]
    await asyncio.gather(*(ask(service, symbol) for symbol in symbols))
    assert [len(question) for question in rpc.questions] == [200, 50]


async def test_an_owner_does_not_wait_for_a_symbol_in_the_share_of_another(
    service: StockService, rpc: StockDataAnswers
) -> None:
    asked_for: list[str] = []

    async def ask_for(owner: str, symbol: str) -> Any:
        shares.current.set(owner)
        return await ask(service, symbol)

    async def answer(request: GetQuotes, deadline: Deadline) -> bytes:
        asked_for.append(shares.current.get())
        return await StockDataAnswers.ask(rpc, request, deadline)

    rpc.ask = answer  # type: ignore[method-assign]
    asking = (("7", "AAPL"), ("8", "AAPL"), ("7", "MSFT"), ("7", "AAPL"))
    await asyncio.gather(*(ask_for(owner, symbol) for owner, symbol in asking))
    assert list(zip(asked_for, rpc.questions, strict=True)) == [("7", ["AAPL", "MSFT"]), ("8", ["AAPL"])]


async def test_an_unknown_symbol_does_not_spoil_its_neighbours(service: StockService) -> None:
    answers: list[Any] = await asyncio.gather(
        *(ask(service, symbol) for symbol in ("AAPL", "NOPE", "LOST")), return_exceptions=True
    )
    good, bad, lost = answers
    assert good == quote("AAPL")
    assert isinstance(bad, ServiceError)
    assert (bad.code, bad.status) == ("unknown-symbol", 404)
    assert isinstance(lost, ServiceError)
    assert lost.status == 404


async def test_everybody_who_waits_gets_the_error(service: StockService, rpc: StockDataAnswers) -> None:
    rpc.error = BrokerUnavailable("away")
    answers = await asyncio.gather(*(ask(service, "AAPL") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, BrokerUnavailable) for answer in answers)
    rpc.error = None
    assert await ask(service, "AAPL") == quote("AAPL")


async def test_a_caller_that_gives_up_does_not_take_the_answer_from_the_others(
    service: StockService, rpc: StockDataAnswers
) -> None:
    rpc.go.clear()
    patient = asyncio.create_task(ask(service, "AAPL"))
    leaving = asyncio.create_task(ask(service, "AAPL"))
    with pytest.raises(DeadlineExceeded):
        await ask(service, "AAPL", timeout_s=0.01)
    leaving.cancel()
    rpc.go.set()
    assert await patient == quote("AAPL")
    assert len(rpc.questions) == 1


async def test_only_quotes_that_are_not_fresh_are_requested(
    service: StockService, book: QuoteBook, rpc: StockDataAnswers
) -> None:
    book.push([quote("AAPL", 9)])
    found = await service.quotes(["MSFT", "AAPL", "NOPE"], Deadline.after(5))
    assert rpc.questions == [["MSFT", "NOPE"]]
    assert [q["symbol"] for q in found["quotes"]] == ["MSFT", "AAPL"]
    assert found["quotes"][1]["stream"]["offset"] == 9
    assert found["errors"] == [{"symbol": "NOPE", "code": "unknown-symbol", "detail": "No such symbol."}]


async def test_fresh_quotes_need_no_request(
    service: StockService, book: QuoteBook, rpc: StockDataAnswers
) -> None:
    book.push([quote("AAPL"), quote("MSFT")])
    found = await service.quotes(["MSFT", "AAPL"], Deadline.after(5))
    assert rpc.questions == []
    assert found["errors"] == []


@pytest.mark.parametrize("text", ["AAPL", "aapl", "BRK.B", "^GSPC", "EURUSD=X", "BF-B"])
def test_a_symbol_is_in_upper_case(text: str) -> None:
    assert symbol_of(text) == text.upper()


@pytest.mark.parametrize(
    "text", ["", "AAPL\n", "A B", "A" * 16, "ÄPL", "A/B", "A\0", "\uff21\uff21", "\u0131", "..", "."]
)
def test_a_text_that_is_no_symbol_is_invalid(text: str) -> None:
    with pytest.raises(InvalidInput):
        symbol_of(text)


@given(st.text(max_size=20))
def test_any_text_is_a_symbol_or_invalid(text: str) -> None:
    try:
        symbol = symbol_of(text)
    except InvalidInput:
        return
    assert symbol.isascii()
    assert 1 <= len(symbol) <= 15


def call() -> Call:
    ann = Principal(7, "Ann", "member", "k7", frozenset({Scope.QUOTES_READ}))
    return Call(ann, Deadline.after(5), "application/json")


OVER_SHARE = RemoteFailure(Failure(code="provider-share", status=429, title="Share", detail="used up"))


@pytest.mark.parametrize(
    "error",
    [BrokerUnavailable("away"), OVER_SHARE, NotBegun("others of yours")],
    ids=["away", "over its share", "behind its own"],
)
async def test_while_stock_data_gives_no_answer_the_last_pushed_quote_is_returned_as_stale(
    rpc: StockDataAnswers, error: ServiceError
) -> None:
    book, untyped = QuoteBook(fresh_s=0.0), cast(Any, rpc)
    service = StockService(book, untyped)
    as_of = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
    book.push([{**quote("AAPL"), "as_of": as_of, "stale": False, "delayed_by_s": 0}])
    rpc.error = error
    answer = await service.get(call(), "AAPL")
    assert isinstance(answer.body, bytes)
    reported = orjson.loads(answer.body)
    assert (reported["stale"], reported["as_of"]) == (True, as_of)
    # Whoever knows the quote as it was pushed is told that it is stale by now.
    pushed = book.last("AAPL")
    assert pushed is not None
    assert answer.etag not in (None, pushed.reply.etag)
    assert reported["delayed_by_s"] >= 30
    with pytest.raises(type(error)):
        await service.get(call(), "MSFT")
    rpc.error = None
    assert orjson.loads(cast(bytes, (await service.get(call(), "AAPL")).body)) == quote("AAPL")


def symbols(text: str) -> list[str]:
    found: list[str] = QuotesQuery.model_validate_strings({"symbols": text}).symbols
    return found


def test_a_list_of_symbols_names_each_once() -> None:
    assert symbols(" aapl, MSFT,,AAPL ") == ["AAPL", "MSFT"]
    assert len(symbols(",".join(f"S{n}" for n in range(200)))) == 200
    for wrong in ("", ",", ",".join(f"S{n}" for n in range(201)), "AAPL;MSFT"):
        with pytest.raises(ValidationError):
            symbols(wrong)

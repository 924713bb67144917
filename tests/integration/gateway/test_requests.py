"""Requests to other services: their answers, their errors, their absence, and how long a caller waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from chassis.broker import envelope
from chassis.broker.rpc import MOST_SENT_OF_OWNER
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, NotFound
from contracts import batches, emails, stocks
from contracts.message import Request
from contracts.topology import BATCH_PROCESSOR, EMAIL, STOCK_DATA
from gateway.http import serving
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

NOW = datetime(2026, 1, 2, 15, 30, tzinfo=UTC)
ID = "018f0000-0000-7000-8000-000000000000"


def quote(symbol: str, **changes: Any) -> stocks.Quote:
    return stocks.Quote(symbol=symbol, price=Decimal("190.12"), as_of=NOW, source="double", **changes)


class StockData:
    """Knows every symbol but NOPE; SLOW is never answered."""

    def __init__(self) -> None:
        self.questions: list[list[str]] = []

    async def quotes(self, request: stocks.GetQuotes, _: Deadline) -> stocks.Quotes:
        self.questions.append(request.symbols)
        if "SLOW" in request.symbols:
            await asyncio.Event().wait()
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


@pytest.mark.parametrize(
    "path",
    [
        "/v1/stocks/AAPL",
        "/v1/stocks?symbols=AAPL",
        "/v1/stocks/AAPL/bars",
        "/v1/stocks/search?q=a",
        f"/v1/emails/{ID}",
        f"/v1/batches/{ID}",
        f"/v1/tasks/{ID}",
        f"/v1/batches/{ID}/results",
        "/v1/batches",
    ],
)
async def test_a_service_that_is_away_is_503_long_before_the_deadline(
    listener: RunningGateway, path: str
) -> None:
    answer = await listener.api.get(path, headers={"request-timeout": "20"}, timeout=10)
    assert_problem(answer, 503, "service-unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_an_overview_names_the_parts_that_are_missing(listener: RunningGateway, house: House) -> None:
    async def count(request: emails.CountEmails, _: Deadline) -> emails.EmailCounts:
        return emails.EmailCounts(counts={"delivered": 3})

    await house.double(EMAIL, {emails.CountEmails: count})
    answer = await listener.api.get("/v1/overview?symbols=AAPL")
    document = answer.json()
    assert (answer.status_code, document["emails"]) == (200, {"delivered": 3})
    assert (document["batches"], document["stocks"]) == (None, None)
    assert {error["part"]: error["code"] for error in document["errors"]} == {
        "batches": "service-unavailable",
        "stocks": "service-unavailable",
    }
    assert_problem(await listener.api.get("/v1/overview?symbols=no%20symbol"), 422, "invalid-input")
    async with listener.client(await listener.new_key("chat:write")) as client:
        assert (await client.get("/v1/overview?symbols=AAPL")).json() == {"errors": []}


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


@pytest.mark.parametrize("asked", [{"request-timeout": "0.3"}, {"prefer": "wait=0.3"}])
async def test_an_answer_that_does_not_come_in_time_is_504(
    listener: RunningGateway, stock_data: StockData, asked: dict[str, str]
) -> None:
    assert_problem(await listener.api.get("/v1/stocks/SLOW", headers=asked), 504, "deadline-exceeded")


@pytest.mark.parametrize("unwatched_s", [0.0, 0.3], ids=["while watched", "before it is watched"])
async def test_a_client_that_goes_away_cancels_its_request_and_frees_its_turn(
    listener: RunningGateway, house: House, monkeypatch: pytest.MonkeyPatch, unwatched_s: float
) -> None:
    """Its owner's turns are all taken by clients that go away, so the next one shows that they are free."""
    monkeypatch.setattr(serving, "UNWATCHED_S", unwatched_s)
    asked: list[UUID] = []

    async def never(request: emails.GetEmail, _: Deadline) -> emails.Email:
        asked.append(request.email_id)
        if request.email_id == UUID(ID):
            await asyncio.Event().wait()
        raise NotFound("No such mail.")

    await house.double(EMAIL, {emails.GetEmail: never})
    gone = {"method": "GET", "route": "/v1/emails/{email_id}", "status": "499"}
    before = REGISTRY.get_sample_value("tickwire_http_requests_total", gone) or 0
    clients = [asyncio.create_task(listener.api.get(f"/v1/emails/{ID}")) for _ in range(MOST_SENT_OF_OWNER)]
    await until(lambda: len(asked) == len(clients))
    for client in clients:
        client.cancel()
    counted = before + len(clients)
    await until(lambda: REGISTRY.get_sample_value("tickwire_http_requests_total", gone) == counted)
    in_flight = REGISTRY.get_sample_value("tickwire_rpc_client_in_flight", {"target": "email"})
    assert in_flight == 0
    assert_problem(await listener.api.get(f"/v1/emails/{ID[:-1]}1"), 404, "not-found")


async def test_the_deadline_travels_to_the_service(listener: RunningGateway, house: House) -> None:
    seen: list[float] = []

    async def look(request: emails.GetEmail, deadline: Deadline) -> emails.Email:
        seen.append(deadline.remaining_s())
        raise NotFound("No such mail.")

    await house.double(EMAIL, {emails.GetEmail: look})
    await listener.api.get(f"/v1/emails/{ID}", headers={"request-timeout": "2"})
    await listener.api.get(f"/v1/emails/{ID}")
    assert 1 < seen[0] <= 2.1
    assert 3 < seen[1] <= 5.1


async def test_accepted_work_is_queued_until_its_service_reports_its_state(
    listener: RunningGateway, house: House
) -> None:
    mail = {"to": ["ann@example.com"], "subject": "Hello", "text": "x"}
    id_ = (await listener.api.post("/v1/emails", json=mail)).json()["id"]
    known: dict[UUID, emails.Email] = {}

    async def get(request: emails.GetEmail, _: Deadline) -> emails.Email:
        if request.email_id not in known or request.owner_id != "1":
            raise NotFound("No such mail.")
        return known[request.email_id]

    await house.double(EMAIL, {emails.GetEmail: get})
    waiting = (await listener.api.get(f"/v1/emails/{id_}")).json()
    assert (waiting["status"], waiting["recipients"], waiting["detail_available"]) == ("queued", [], True)
    known[UUID(id_)] = emails.Email(
        id=UUID(id_),
        status="delivered",
        sender="a@example.com",
        subject="Hello",
        accepted_at=NOW,
        recipients=[],
    )
    found = (await listener.api.get(f"/v1/emails/{id_}")).json()
    assert (found["status"], found["from"]) == ("delivered", "a@example.com")
    assert "sender" not in found
    assert_problem(await listener.api.get(f"/v1/emails/{ID}"), 404, "not-found")


async def test_a_mail_that_was_accepted_and_is_not_stored_yet_is_not_said_to_be_unknown(
    listener: RunningGateway, house: House
) -> None:
    mail = {"to": ["ann@example.com"], "subject": "Hello", "text": "x"}
    id_ = (await listener.api.post("/v1/emails", json=mail)).json()["id"]

    async def has_none(*_: object) -> emails.Email:
        raise NotFound("No such mail.")

    async def changes_none(*_: object) -> emails.EmailsChanged:
        return emails.EmailsChanged(matched=0, changed=0, complete=True)

    answers: dict[type[Request], Any] = {
        emails.GetEmail: has_none,
        emails.GetRawEmail: has_none,
        emails.RescheduleEmail: has_none,
        emails.CancelEmails: changes_none,
    }
    await house.double(EMAIL, answers)
    later = {"send_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    for id_asked, status, code in ((id_, 409, "conflict"), (str(ID), 404, "not-found")):
        path = f"/v1/emails/{id_asked}"
        for answer in (
            await listener.api.delete(path),
            await listener.api.patch(path, json=later),
            await listener.api.post(f"{path}/resend"),
            await listener.api.get(f"{path}/raw"),
        ):
            assert_problem(answer, status, code)
            assert ("retry-after" in answer.headers) is (status == 409)


class BatchProcessor:
    """A batch-processor that has a batch of three results."""

    def __init__(self, id_: str) -> None:
        self.id = UUID(id_)
        self.status: batches.BatchStatus = "running"

    async def get(self, request: batches.GetBatch, _: Deadline) -> batches.Batch:
        if request.batch_id != self.id:
            raise NotFound("No such batch.")
        return batches.Batch(
            id=self.id,
            kind="batch",
            operation="echo",
            status=self.status,
            counts=batches.Counts(total=3),
            accepted_at=NOW,
        )

    async def results(self, request: batches.ListResults, _: Deadline) -> batches.Results:
        if request.batch_id != self.id:
            raise NotFound("No such batch.")
        position = int(request.cursor or 0)
        row = batches.Result(position=position, status="succeeded", result={"n": position})
        following = str(position + 1) if position < 2 else None
        return batches.Results(data=[row], next_cursor=following, complete=False)


async def test_results_come_as_a_page_or_all_as_lines(listener: RunningGateway, house: House) -> None:
    id_ = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    fresh = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    double = BatchProcessor(id_)
    await house.double(BATCH_PROCESSOR, {batches.GetBatch: double.get, batches.ListResults: double.results})
    page = (await listener.api.get(f"/v1/batches/{id_}/results?limit=1")).json()
    assert (len(page["data"]), page["next_cursor"]) == (1, "1")
    ways: list[dict[str, Any]] = [
        {"params": {"format": "ndjson"}},
        {"headers": {"accept": "application/x-ndjson"}},
    ]
    for how in ways:
        lines = await listener.api.get(f"/v1/batches/{id_}/results", **how)
        assert lines.headers["content-type"] == "application/x-ndjson"
        assert lines.headers["x-results-complete"] == "false"
        assert [line.count('"n"') for line in lines.text.splitlines()] == [1, 1, 1]
    head = await listener.api.head(f"/v1/batches/{id_}/results?format=ndjson")
    assert (head.status_code, head.headers["content-type"]) == (200, "application/x-ndjson")
    # Accepted, and not yet known there.
    empty = await listener.api.get(f"/v1/batches/{fresh}/results")
    assert (empty.status_code, empty.json()) == (200, {"data": [], "next_cursor": None, "complete": False})
    assert_problem(await listener.api.get(f"/v1/batches/{ID}/results"), 404, "not-found")
    cancelled = await listener.api.post(f"/v1/batches/{id_}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelling")
    await until(lambda: _has_cancel(house, id_))


async def _has_cancel(house: House, id_: str) -> bool:
    [message] = await house.take("batch-processor.intake")
    return bool(message["_"]["type"] == "batch.cancel.v1" and message["batch_id"] == id_)

"""The worker for tests: items run as in the service, and their outcomes are returned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from batch_processor.testing import Answer, OperationWorker, running_worker
from chassis.errors import NotFound
from contracts.emails import SendEmail
from contracts.message import Reply, Request
from contracts.stocks import GetBars, GetQuotes, Quote, Quotes
from support import harmful_operation

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def quotes(asked: GetQuotes) -> Reply:
    found = [
        Quote(symbol=symbol, price=Decimal("101.25"), as_of=NOW, source="test") for symbol in asked.symbols
    ]
    return Quotes(quotes=found)


def no_bars(asked: GetBars) -> Reply:
    raise NotFound(f"No bars of {asked.symbol}.")


@pytest.fixture(scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OperationWorker]:
    plugins: Path = tmp_path_factory.mktemp("plugins")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(harmful_operation.install(plugins))
        answers: dict[type[Request], Answer] = {GetQuotes: quotes, GetBars: no_bars}
        async with running_worker(answers, internal_targets="127.0.0.1") as worker:
            yield worker


async def test_requests_to_other_services_are_answered_by_the_functions_given(
    worker: OperationWorker,
) -> None:
    positions = [{"symbol": "AAPL", "quantity": 2}]
    valued, failed = await worker.run(
        "portfolio.valuation", {"positions": positions}, {"positions": positions, "date": "2005-02-25"}
    )
    assert valued.result["totals"] == [{"currency": "USD", "value": "202.50"}]
    assert (failed.status, failed.code) == ("failed", "not-found")
    assert "No bars of AAPL" in failed.detail


async def test_a_request_without_an_answer_is_tried_again_and_fails(worker: OperationWorker) -> None:
    async with running_worker() as lonely:
        [outcome] = await lonely.run("stock.quote", {"symbol": "AAPL"})
    assert (outcome.code, outcome.attempts) == ("service-unavailable", 4)
    assert "stocks.get-quotes.v1" in outcome.detail


async def test_commands_of_items_that_succeeded_are_kept(worker: OperationWorker) -> None:
    mail = {"to": ["ann@example.com"], "subject": "Hello", "text": "It works."}
    sent, refused = await worker.run("email.send", mail, {**mail, "to": ["nobody"]})
    assert (sent.status, refused.code) == ("succeeded", "invalid-item")
    [command] = worker.sent
    assert command.message_type == SendEmail.message_type
    assert command.message_id == sent.result["email_id"]


async def test_an_item_that_kills_its_process_fails_alone(worker: OperationWorker, tmp_path: Path) -> None:
    items = [{"notes": str(tmp_path / "notes")} for _ in range(3)]
    items[1]["way"] = "exit"
    first, second, third = await worker.run("harmful", *items)
    assert (first.result, second.code, third.result) == (0, "worker-died", 2)


async def test_requests_of_items_are_guarded_in_their_process(worker: OperationWorker) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        fetched, metadata, spelled = await worker.run(
            "http.request",
            {"url": f"http://127.0.0.1:{port}/"},
            {"url": "http://169.254.169.254/latest/meta-data/"},
            {"url": f"http://2130706433:{port}/"},
        )
    assert fetched.result == {
        "status": 200,
        "headers": {"content-length": "2"},
        "body": "hi",
        "encoding": "text",
    }
    assert [outcome.code for outcome in (metadata, spelled)] == ["destination-refused"] * 2
    assert metadata.attempts == 1

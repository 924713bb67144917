"""Requests are answered, refused, or fail before their deadline, never hang."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chassis.broker.coalescing import Coalescer
from chassis.deadlines import Deadline
from chassis.errors import BrokerUnavailable, DeadlineExceeded, NotFound, RemoteFailure, Unavailable
from contracts.stocks import GetBars, GetQuotes, Instrument, Instruments, Quotes, SearchSymbols
from contracts.topology import GATEWAY, STOCK_DATA
from waiting import until


async def answer_search(request: SearchSymbols, _: Deadline) -> Instruments:
    if request.q == "missing":
        raise NotFound("no such thing")
    if request.q == "slow":
        await asyncio.sleep(30)
    if request.q == "broken":
        raise RuntimeError("a bug")
    return Instruments(data=[Instrument(symbol=request.q, name="n", exchange="x")])


@pytest.fixture
async def asker(bench: Any) -> Any:
    return await bench.run(await bench.build(GATEWAY))


@pytest.fixture
async def answerer(bench: Any) -> Any:
    service = await bench.build(STOCK_DATA)
    service.answer({SearchSymbols: answer_search})
    return await bench.run(service)


async def test_a_request_gets_its_own_reply(asker: Any, answerer: Any) -> None:
    rpc = asker.messaging.rpc
    replies = await asyncio.gather(
        *(rpc.call(SearchSymbols(q=f"q{n}"), Instruments, Deadline.after(5)) for n in range(100))
    )
    assert [reply.data[0].symbol for reply in replies] == [f"q{n}" for n in range(100)]


async def test_a_service_error_keeps_its_code_and_status(asker: Any, answerer: Any) -> None:
    with pytest.raises(RemoteFailure) as caught:
        await asker.messaging.rpc.ask(SearchSymbols(q="missing"), Deadline.after(5))
    assert (caught.value.code, caught.value.status) == ("not-found", 404)
    assert caught.value.detail == "no such thing"


async def test_a_bug_in_a_handler_is_an_internal_error_not_a_silence(asker: Any, answerer: Any) -> None:
    with pytest.raises(RemoteFailure) as caught:
        await asker.messaging.rpc.ask(SearchSymbols(q="broken"), Deadline.after(5))
    assert caught.value.status == 500


async def test_a_request_type_without_handler_is_refused(asker: Any, answerer: Any) -> None:
    with pytest.raises(RemoteFailure) as caught:
        await asker.messaging.rpc.ask(GetBars(symbol="A"), Deadline.after(5))
    assert caught.value.status == 422


async def test_a_slow_answer_ends_at_the_deadline(asker: Any, answerer: Any) -> None:
    with pytest.raises((DeadlineExceeded, RemoteFailure)) as caught:
        await asker.messaging.rpc.ask(SearchSymbols(q="slow"), Deadline.after(0.3))
    assert caught.value.status == 504


async def test_a_service_that_is_away_is_known_at_once(asker: Any) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(Unavailable) as caught:
        await asker.messaging.rpc.ask(GetQuotes(symbols=["A"]), Deadline.after(25))
    assert caught.value.status == 503
    assert loop.time() - started < 10, "it must not wait for the deadline"


async def test_a_lost_connection_fails_what_waits(asker: Any, answerer: Any) -> None:
    waiting = asyncio.create_task(asker.messaging.rpc.ask(SearchSymbols(q="slow"), Deadline.after(25)))
    await until(lambda: asker.messaging.rpc._pending)
    asker.messaging.publisher.link.interrupt()
    with pytest.raises(BrokerUnavailable):
        await waiting
    await until(lambda: asker.health.reasons() == {})
    found = await asker.messaging.rpc.call(SearchSymbols(q="again"), Instruments, Deadline.after(5))
    assert found.data[0].symbol == "again"


async def test_misses_close_in_time_share_one_message() -> None:
    calls: list[list[str]] = []

    async def fetch(keys: Any) -> dict[str, str | Exception]:
        calls.append(list(keys))
        return {key: KeyError(key) if key == "bad" else key.lower() for key in keys}

    coalescer = Coalescer[str]("test", fetch)
    found = await asyncio.gather(
        *(coalescer.get(key, 5) for key in ["A", "B", "A", "bad"]), return_exceptions=True
    )
    assert found[:3] == ["a", "b", "a"]
    assert isinstance(found[3], KeyError)
    assert calls == [["A", "B", "bad"]]


def test_quotes_keep_their_decimals_in_json() -> None:
    text = '{"quotes":[{"symbol":"A","price":430.47,"as_of":"2013-03-01T21:00:00Z","source":"x"}]}'
    assert '"price":430.47,' in Quotes.model_validate_json(text).model_dump_json()

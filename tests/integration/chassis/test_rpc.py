"""Requests are answered, are refused, or fail before their deadline; they never hang."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis import shares
from chassis.broker import answering
from chassis.broker import rpc as asking
from chassis.broker.answering import RpcServer
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    NotFound,
    Overloaded,
    RemoteFailure,
    TooManyAtOnce,
    Unavailable,
)
from chassis.runtime import ServiceRuntime
from contracts.parked import ListParked
from contracts.stocks import GetBars, GetQuotes, Instrument, Instruments, SearchSymbols
from contracts.topology import EMAIL, GATEWAY, STOCK_DATA, rpc_queue
from support.bench import Bench, running
from support.waiting import until

FAILURES: dict[str, BaseException] = {
    "broken": RuntimeError("a bug"),
    "bad name": RuntimeError("bad \ud800 name"),
    "cancelled": asyncio.CancelledError(),
    "exit": SystemExit(3),
}


async def answer_search(request: SearchSymbols, _: Deadline) -> Instruments:
    if request.q == "missing":
        raise NotFound("no such thing: \ud800")
    if request.q == "slow":
        await asyncio.sleep(30)
    if request.q == "unsayable":
        return Instruments.model_construct(data=[object()])
    if request.q in FAILURES:
        raise FAILURES[request.q]
    return Instruments(data=[Instrument(symbol=request.q, name="n", exchange="x")])


@pytest.fixture
async def asker(bench: Bench) -> ServiceRuntime:
    return await bench.run(await bench.build(GATEWAY))


@pytest.fixture
async def answerer(bench: Bench) -> ServiceRuntime:
    service = await bench.build(STOCK_DATA)
    service.answer({SearchSymbols: answer_search})
    return await bench.run(service)


async def test_a_request_gets_its_own_reply(asker: ServiceRuntime, answerer: ServiceRuntime) -> None:
    rpc = asker.messaging.rpc
    replies = await asyncio.gather(
        *(rpc.call(SearchSymbols(q=f"q{n}"), Instruments, Deadline.after(5)) for n in range(100))
    )
    assert [reply.data[0].symbol for reply in replies] == [f"q{n}" for n in range(100)]


async def test_a_service_error_keeps_its_code_and_status(
    asker: ServiceRuntime, answerer: ServiceRuntime
) -> None:
    with pytest.raises(RemoteFailure) as caught:
        await asker.messaging.rpc.ask(SearchSymbols(q="missing"), Deadline.after(5))
    assert (caught.value.code, caught.value.status) == ("not-found", 404)


@pytest.mark.parametrize("q", [*FAILURES, "unsayable"])
async def test_a_bug_in_a_handler_is_an_internal_error_not_a_silence(
    q: str, asker: ServiceRuntime, answerer: ServiceRuntime
) -> None:
    with pytest.raises(RemoteFailure) as caught:
        await asker.messaging.rpc.ask(SearchSymbols(q=q), Deadline.after(20))
    assert caught.value.status == 500
    found = await asker.messaging.rpc.call(SearchSymbols(q="next"), Instruments, Deadline.after(20))
    assert found.data[0].symbol == "next"


async def test_an_error_that_quotes_any_input_is_answered(
    asker: ServiceRuntime, answerer: ServiceRuntime
) -> None:
    with pytest.raises(RemoteFailure) as caught:
        await asker.messaging.rpc.ask(SearchSymbols(q="missing"), Deadline.after(20))
    assert caught.value.detail == "no such thing: \\ud800"


async def test_a_request_that_the_replica_does_not_know_is_retryable(
    asker: ServiceRuntime, answerer: ServiceRuntime
) -> None:
    with pytest.raises(RemoteFailure) as caught:
        await asker.messaging.rpc.ask(GetBars(symbol="A"), Deadline.after(5))
    failure = caught.value
    assert (failure.status, failure.retryable, failure.retry_after_s) == (503, True, 2)


async def test_a_slow_answer_ends_at_the_deadline(asker: ServiceRuntime, answerer: ServiceRuntime) -> None:
    with pytest.raises((DeadlineExceeded, RemoteFailure)) as caught:
        await asker.messaging.rpc.ask(SearchSymbols(q="slow"), Deadline.after(0.3))
    assert caught.value.status == 504


async def test_a_service_that_is_away_is_noticed_at_once(asker: ServiceRuntime) -> None:
    # Longer than a test may take: the deadline is not waited for.
    with pytest.raises(Unavailable) as caught:
        await asker.messaging.rpc.ask(GetQuotes(symbols=["A"]), Deadline.after(3600))
    assert caught.value.status == 503


async def test_a_lost_connection_fails_the_requests_that_wait(
    asker: ServiceRuntime, answerer: ServiceRuntime
) -> None:
    waiting = asyncio.create_task(asker.messaging.rpc.ask(SearchSymbols(q="slow"), Deadline.after(25)))
    await until(lambda: asker.messaging.rpc.waiting)
    asker.messaging.publisher.link.interrupt()
    with pytest.raises(BrokerUnavailable):
        await waiting
    await until(lambda: asker.health.reasons() == {})
    found = await asker.messaging.rpc.call(SearchSymbols(q="again"), Instruments, Deadline.after(5))
    assert found.data[0].symbol == "again"


async def test_a_full_bulkhead_refuses_at_once_and_lets_others_through(
    asker: ServiceRuntime, answerer: ServiceRuntime
) -> None:
    rpc = RpcClient(asker.messaging.publisher, max_in_flight=2)
    await rpc.attach(asker.messaging.link)
    waiting = [asyncio.create_task(rpc.ask(SearchSymbols(q="slow"), Deadline.after(1))) for _ in range(2)]
    await until(lambda: rpc.waiting == 2)
    with pytest.raises(Overloaded) as caught:
        await rpc.ask(SearchSymbols(q="one too many"), Deadline.after(5))
    assert (caught.value.status, caught.value.retryable) == (503, True)
    with pytest.raises(Unavailable, match="No queue accepts"):
        await rpc.ask(ListParked(), Deadline.after(5), service=EMAIL)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await rpc.ask(SearchSymbols(q="again"), Deadline.after(5))


async def test_an_owner_with_ten_times_its_share_outstanding_keeps_nobody_waiting(
    asker: ServiceRuntime, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question holds one of the ten connections to the database that owners may have."""
    # As many as several gateways send together.
    monkeypatch.setattr(asking, "MOST_SENT_OF_OWNER", 10 * answering.MOST_OF_OWNER)
    at_work: list[str] = []
    is_over = asyncio.Event()
    service = await bench.build(STOCK_DATA)

    async def answer(request: SearchSymbols, _: Deadline) -> Instruments:
        async with service.postgres.connection():
            at_work.append(request.q)
            if request.q == "slow":
                await is_over.wait()
        return Instruments(data=[])

    service.answer({SearchSymbols: answer})
    await bench.run(service)

    def waiting() -> float | None:
        return REGISTRY.get_sample_value("tickwire_rpc_server_waiting")

    async def ask(owner: str, q: str) -> bytes:
        shares.current.set(owner)
        found: bytes = await asker.messaging.rpc.ask(SearchSymbols(q=q), Deadline.after(25))
        return found

    outstanding = [asyncio.create_task(ask("guest", "slow")) for _ in range(10 * answering.MOST_OF_OWNER)]
    await until(lambda: waiting() == 9 * answering.MOST_OF_OWNER)
    assert await asyncio.create_task(ask("neighbour", "quick"))
    assert await asyncio.create_task(ask("", "of the service itself"))
    assert at_work == [*["slow"] * answering.MOST_OF_OWNER, "quick", "of the service itself"]
    is_over.set()
    assert len(await asyncio.gather(*outstanding)) == 10 * answering.MOST_OF_OWNER
    assert waiting() == 0


async def test_few_questions_of_an_owner_are_sent_before_others_are_answered(
    asker: ServiceRuntime, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All replies come over one connection: what an owner has not been sent is in nobody's way."""
    monkeypatch.setattr(answering, "MOST_OF_OWNER", 1000)
    arrived: list[str] = []
    is_over = asyncio.Event()
    service = await bench.build(STOCK_DATA)

    async def answer(request: SearchSymbols, _: Deadline) -> Instruments:
        arrived.append(request.q)
        if request.q == "slow":
            await is_over.wait()
        return Instruments(data=[])

    service.answer({SearchSymbols: answer})
    await bench.run(service)
    rpc = asker.messaging.rpc
    shares.current.set("guest")
    questions = [SearchSymbols(q="slow")] * 10 * asking.MOST_SENT_OF_OWNER
    outstanding = [asyncio.create_task(rpc.ask(one, Deadline.after(25))) for one in questions]
    await until(lambda: len(arrived) == asking.MOST_SENT_OF_OWNER)
    with pytest.raises(DeadlineExceeded):
        await rpc.ask(SearchSymbols(q="late"), Deadline.after(0.2))
    shares.current.set("neighbour")
    assert await rpc.ask(SearchSymbols(q="quick"), Deadline.after(25))
    assert arrived == [*["slow"] * asking.MOST_SENT_OF_OWNER, "quick"]
    is_over.set()
    assert len(await asyncio.gather(*outstanding)) == len(questions)


async def test_questions_that_wait_for_their_turn_fail_with_the_connection(
    asker: ServiceRuntime, answerer: ServiceRuntime
) -> None:
    rpc = asker.messaging.rpc
    shares.current.set("guest")
    asked = [
        rpc.ask(SearchSymbols(q="slow"), Deadline.after(25)) for _ in range(3 * asking.MOST_SENT_OF_OWNER)
    ]
    outstanding = [asyncio.create_task(one) for one in asked]
    await until(lambda: rpc.waiting == len(asked))
    asker.messaging.link.interrupt()
    errors = await asyncio.gather(*outstanding, return_exceptions=True)
    assert {type(error) for error in errors} == {BrokerUnavailable}


async def test_one_owner_cannot_have_all_the_requests_that_may_wait_for_a_service(
    asker: ServiceRuntime, answerer: ServiceRuntime
) -> None:
    rpc = RpcClient(asker.messaging.publisher, max_in_flight=4)
    await rpc.attach(asker.messaging.link)
    shares.current.set("guest")
    waiting = [asyncio.create_task(rpc.ask(SearchSymbols(q="slow"), Deadline.after(25))) for _ in range(3)]
    await until(lambda: rpc.waiting == 3)
    with pytest.raises(TooManyAtOnce) as caught:
        await rpc.ask(SearchSymbols(q="one too many"), Deadline.after(5))
    assert (caught.value.status, caught.value.retry_after_s) == (429, 1)
    shares.current.set("neighbour")
    assert await rpc.ask(SearchSymbols(q="another owner's"), Deadline.after(5))
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    shares.current.set("guest")
    assert await rpc.ask(SearchSymbols(q="again"), Deadline.after(5))


async def test_a_service_that_never_answers_is_asked_by_a_probe_only_until_it_does(
    asker: ServiceRuntime, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LEAST_WAIT_S", 0.2)
    asked: list[str] = []
    is_mended = asyncio.Event()

    async def answer(request: SearchSymbols, _: Deadline) -> Instruments:
        asked.append(request.q)
        if not is_mended.is_set():
            await asyncio.sleep(30)
        return Instruments(data=[])

    service = await bench.build(STOCK_DATA)
    service.answer({SearchSymbols: answer})
    await bench.run(service)
    rpc = asker.messaging.rpc

    def is_told_open() -> float | None:
        return REGISTRY.get_sample_value("tickwire_rpc_breaker_open", {"target": STOCK_DATA})

    lost = [rpc.ask(SearchSymbols(q="lost"), Deadline.after(0.3)) for _ in range(10)]
    errors = await asyncio.gather(*lost, return_exceptions=True)
    assert {type(error) for error in errors} <= {DeadlineExceeded, RemoteFailure}
    assert is_told_open() == 1
    before = len(asked)
    with pytest.raises(Unavailable, match="is not responding"):
        await rpc.ask(SearchSymbols(q="refused"), Deadline.after(5))
    is_mended.set()

    async def is_let_through() -> bool:
        try:
            return bool(await rpc.ask(SearchSymbols(q="probe"), Deadline.after(5)))
        except Unavailable:
            return False

    await until(is_let_through)
    assert asked[before:] == ["probe"]
    assert is_told_open() == 0


async def test_requests_without_time_do_not_make_a_service_unavailable_for_others(
    asker: ServiceRuntime, answerer: ServiceRuntime
) -> None:
    rpc = asker.messaging.rpc
    hurried = [rpc.ask(SearchSymbols(q="slow"), Deadline.after(0.05)) for _ in range(20)]
    errors = await asyncio.gather(*hurried, return_exceptions=True)
    assert {type(error) for error in errors} <= {DeadlineExceeded, RemoteFailure}
    assert await rpc.ask(SearchSymbols(q="another's"), Deadline.after(5))


async def test_a_service_that_answers_others_is_available_while_an_owners_requests_are_late(
    asker: ServiceRuntime, answerer: ServiceRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LEAST_WAIT_S", 0.2)
    rpc = asker.messaging.rpc
    late = [asyncio.create_task(rpc.ask(SearchSymbols(q="slow"), Deadline.after(0.5))) for _ in range(20)]
    # All of them have been sent.
    await asyncio.sleep(0)
    assert await rpc.ask(SearchSymbols(q="another's"), Deadline.after(5))
    await asyncio.gather(*late, return_exceptions=True)
    assert await rpc.ask(SearchSymbols(q="another's"), Deadline.after(5))


async def test_two_owners_with_late_questions_make_a_service_unavailable_for_nobody_else(
    asker: ServiceRuntime, answerer: ServiceRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LEAST_WAIT_S", 0.2)

    async def ask(owner: str, q: str, within_s: float) -> bytes:
        shares.current.set(owner)
        found: bytes = await asker.messaging.rpc.ask(SearchSymbols(q=q), Deadline.after(within_s))
        return found

    async def ask_together(*owners: str, q: str, within_s: float) -> list[Any]:
        asks = [asyncio.create_task(ask(owner, q, within_s)) for owner in owners]
        return await asyncio.gather(*asks, return_exceptions=True)

    guests = ("ann", "eve")
    late = await ask_together(*guests * 20, q="slow", within_s=0.3)
    assert {type(error) for error in late} <= {DeadlineExceeded, RemoteFailure}
    refused = await ask_together(*guests, q="one more", within_s=5)
    assert [type(error) for error in refused] == [Unavailable] * 2
    answers = await ask_together(*["neighbour"] * 10, q="quick", within_s=5)
    assert all(isinstance(answer, bytes) for answer in answers)
    # Their own are answered again, too, as the service is seen to answer.
    assert all(isinstance(answer, bytes) for answer in await ask_together(*guests, q="quick", within_s=5))


async def test_a_service_over_its_limit_refuses_instead_of_queueing(
    asker: ServiceRuntime, bench: Bench
) -> None:
    finish = asyncio.Event()

    async def answer(request: SearchSymbols, _: Deadline) -> Instruments:
        if request.q == "slow":
            await finish.wait()
        return Instruments(data=[])

    service = await bench.build(STOCK_DATA)
    queue = next(q for q in service.messaging.topology.queues if q.name == rpc_queue(STOCK_DATA))
    server = RpcServer(
        queue, {SearchSymbols: answer}, publisher=service.messaging.publisher, most_in_flight=2
    )
    service.messaging.answer(server)
    await bench.run(service)
    rpc = asker.messaging.rpc
    waiting = [asyncio.create_task(rpc.ask(SearchSymbols(q="slow"), Deadline.after(15))) for _ in range(2)]
    await until(lambda: server.in_flight == 2)
    with pytest.raises(RemoteFailure) as caught:
        await rpc.ask(SearchSymbols(q="one too many"), Deadline.after(5))
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    finish.set()
    assert len(await asyncio.gather(*waiting)) == 2


async def test_a_stop_answers_every_request_that_was_taken(asker: ServiceRuntime, bench: Bench) -> None:
    taken: list[str] = []

    async def answer(request: SearchSymbols, _: Deadline) -> Instruments:
        taken.append(request.q)
        await asyncio.sleep(30 if request.q == "never" else 0.5)
        return Instruments(data=[])

    service = await bench.build(STOCK_DATA)
    service.answer({SearchSymbols: answer})
    rpc = asker.messaging.rpc
    words = [*(f"q{n}" for n in range(50)), "never"]
    async with running(service):
        # Longer than a test may take: nobody waits for the deadline.
        deadline = Deadline.after(3600)
        asks = [asyncio.create_task(rpc.ask(SearchSymbols(q=word), deadline)) for word in words]
        await until(lambda: len(taken) == len(words))
    answers = await asyncio.gather(*asks, return_exceptions=True)
    assert [type(found) for found in answers[:-1]] == [bytes] * 50
    assert isinstance(answers[-1], RemoteFailure)
    assert (answers[-1].status, answers[-1].retryable) == (503, True)

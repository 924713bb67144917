"""Requests of one owner that wait for each other."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from chassis import shares
from chassis.broker import answering
from chassis.broker import rpc as asking
from chassis.deadlines import Deadline
from chassis.errors import NotBegun
from contracts.stocks import Instruments, SearchSymbols
from contracts.topology import GATEWAY, STOCK_DATA
from support.bench import Bench
from support.waiting import until


async def test_a_question_whose_time_others_of_its_owner_have_taken_is_told_so_and_is_no_failure(
    bench: Bench,
) -> None:
    async def answer(request: SearchSymbols, _: Deadline) -> Instruments:
        if request.q == "slow":
            await asyncio.sleep(30)
        return Instruments(data=[])

    service = await bench.build(STOCK_DATA)
    service.answer({SearchSymbols: answer})
    await bench.run(service)
    rpc = (await bench.run(await bench.build(GATEWAY))).messaging.rpc
    shares.current.set("guest")
    questions = [SearchSymbols(q="slow")] * asking.MOST_SENT_OF_OWNER
    outstanding = [asyncio.create_task(rpc.ask(one, Deadline.after(25))) for one in questions]
    await until(lambda: rpc.waiting == len(questions))
    before = calls("not-begun")
    late = asyncio.create_task(rpc.ask(SearchSymbols(q="late"), Deadline.after(1)))
    await until(lambda: rpc.waiting == len(questions) + 1)
    shares.current.set("neighbour")
    # The service answers: what the question waits for are its owner's.
    assert await rpc.ask(SearchSymbols(q="quick"), Deadline.after(25))
    with pytest.raises(NotBegun) as caught:
        await late
    assert (caught.value.status, caught.value.retryable, caught.value.retry_after_s) == (429, True, 1)
    assert calls("not-begun") == before + 1
    for one in outstanding:
        one.cancel()
    await asyncio.gather(*outstanding, return_exceptions=True)


async def test_a_question_that_waits_at_the_service_for_others_of_its_owner_is_told_so_before_its_deadline(
    bench: Bench,
) -> None:
    """The others were given up by their callers, so that the asking side knows nothing of them."""
    begun: list[str] = []
    is_over = asyncio.Event()

    async def answer(request: SearchSymbols, _: Deadline) -> Instruments:
        begun.append(request.q)
        if request.q == "slow":
            await is_over.wait()
        return Instruments(data=[])

    service = await bench.build(STOCK_DATA)
    service.answer({SearchSymbols: answer})
    await bench.run(service)
    rpc = (await bench.run(await bench.build(GATEWAY))).messaging.rpc
    shares.current.set("eve")
    while len(begun) < answering.MOST_OF_OWNER:
        given_up = asyncio.create_task(rpc.ask(SearchSymbols(q="slow"), Deadline.after(25)))
        seen = len(begun)
        await until(lambda: len(begun) > seen)  # noqa: B023 - awaited at once
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
    before = calls("not-begun")
    with pytest.raises(NotBegun, match="Your other requests") as caught:
        await rpc.ask(SearchSymbols(q="late"), Deadline.after(2))
    assert (caught.value.status, caught.value.retryable, caught.value.retry_after_s) == (429, True, 1)
    assert calls("not-begun") == before + 1
    shares.current.set("neighbour")
    assert await rpc.ask(SearchSymbols(q="quick"), Deadline.after(25))
    is_over.set()


def calls(outcome: str) -> float:
    labels = {"target": STOCK_DATA, "type": SearchSymbols.message_type, "outcome": outcome}
    return REGISTRY.get_sample_value("tickwire_rpc_client_calls_total", labels) or 0

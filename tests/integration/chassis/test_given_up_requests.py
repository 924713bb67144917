"""Callers that give up free their turns at once; what they asked for stays bounded in the service."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from chassis import shares
from chassis.broker import answering
from chassis.broker import rpc as asking
from chassis.broker.answering import RpcServer
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import RemoteFailure
from contracts.stocks import Instruments, SearchSymbols
from contracts.topology import GATEWAY, STOCK_DATA, rpc_queue
from support.bench import Bench
from support.waiting import until


class Search:
    """Answers every question but `slow` at once, and that one when it `is_over`."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.is_over = asyncio.Event()

    async def answer(self, request: SearchSymbols, _: Deadline) -> Instruments:
        self.begun.append(request.q)
        try:
            if request.q == "slow":
                await self.is_over.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.q)
            raise
        return Instruments(data=[])


@pytest.fixture
async def rpc(bench: Bench) -> RpcClient:
    return (await bench.run(await bench.build(GATEWAY))).messaging.rpc


@pytest.fixture
async def search(rpc: RpcClient, bench: Bench) -> Search:
    search = Search()
    service = await bench.build(STOCK_DATA)
    service.answer({SearchSymbols: search.answer})
    await bench.run(service)
    return search


def waiting_in_service() -> float:
    return REGISTRY.get_sample_value("tickwire_rpc_server_waiting") or 0


async def test_an_owner_that_gives_up_every_question_still_has_only_its_share_of_the_service(
    rpc: RpcClient, search: Search
) -> None:
    """Ten times the share is asked for in waves, each given up as soon as it has arrived."""
    shares.current.set("guest")
    asked = 0
    while asked < 10 * answering.MOST_OF_OWNER:
        questions = [SearchSymbols(q="slow")] * asking.MOST_SENT_OF_OWNER
        wave = [asyncio.create_task(rpc.ask(one, Deadline.after(25))) for one in questions]
        asked += len(wave)
        await until(lambda: len(search.begun) + waiting_in_service() == asked)  # noqa: B023 - awaited at once
        for one in wave:
            one.cancel()
        await asyncio.gather(*wave, return_exceptions=True)
    assert rpc.waiting == 0
    assert search.begun == ["slow"] * answering.MOST_OF_OWNER
    shares.current.set("neighbour")
    assert await rpc.ask(SearchSymbols(q="quick"), Deadline.after(25))
    assert search.begun == [*["slow"] * answering.MOST_OF_OWNER, "quick"]
    search.is_over.set()
    await until(lambda: waiting_in_service() == 0)


async def test_work_that_its_caller_gave_up_ends_at_the_callers_deadline(
    rpc: RpcClient, search: Search
) -> None:
    asked = asyncio.create_task(rpc.ask(SearchSymbols(q="slow"), Deadline.after(1)))
    await until(lambda: search.begun)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert rpc.waiting == 0
    await until(lambda: search.cancelled == ["slow"])


async def test_owners_that_give_up_leave_room_in_the_service_for_one_that_has_asked_nothing(
    rpc: RpcClient, bench: Bench
) -> None:
    search, service = Search(), await bench.build(STOCK_DATA)
    queue = next(q for q in service.messaging.topology.queues if q.name == rpc_queue(STOCK_DATA))
    publisher = service.messaging.publisher
    server = RpcServer(queue, {SearchSymbols: search.answer}, publisher=publisher, most_in_flight=40)
    service.messaging.answer(server)
    await bench.run(service)
    refused: list[BaseException] = []
    for owner in ("ann", "bob", "eve") * 5:
        shares.current.set(owner)
        questions = [SearchSymbols(q="slow")] * asking.MOST_SENT_OF_OWNER
        taken = server.in_flight
        wave = [asyncio.create_task(rpc.ask(one, Deadline.after(25))) for one in questions]
        # Each is held or refused.
        await until(lambda: server.in_flight - taken + sum(map(asyncio.Task.done, wave)) == len(wave))  # noqa: B023
        for one in wave:
            one.cancel()
        ends = await asyncio.gather(*wave, return_exceptions=True)
        refused += [end for end in ends if isinstance(end, RemoteFailure)]
    assert {error.code for error in refused if isinstance(error, RemoteFailure)} == {"too-many-at-once"}
    assert server.in_flight <= 35, "an eighth is left"
    shares.current.set("neighbour")
    assert await rpc.ask(SearchSymbols(q="quick"), Deadline.after(25))
    search.is_over.set()
    await until(lambda: server.in_flight == 0)

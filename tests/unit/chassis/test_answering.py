"""The answer to a request that is refused keeps nothing of the request."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from chassis.broker.answering import RpcServer
from chassis.broker.publisher import Publisher
from chassis.deadlines import Deadline
from chassis.errors import Unavailable
from contracts.stocks import SearchSymbols
from contracts.topology import RPC, Queue


async def test_a_refused_request_does_not_wait_for_the_garbage_collector() -> None:
    refusals: list[weakref.ref[Unavailable]] = []

    async def refuse(_: SearchSymbols, __: Deadline) -> bytes:
        refusal = Unavailable("not now")
        refusals.append(weakref.ref(refusal))
        try:
            raise refusal
        finally:
            del refusal

    queue = Queue("asked.rpc", RPC, ("asked",), auto_delete=True)
    server = RpcServer(queue, {SearchSymbols: refuse}, publisher=Publisher("amqp://127.0.0.1/"))
    header = ContentHeader(properties=Basic.Properties(message_type=SearchSymbols.message_type))
    channel: Any = None
    body = json.dumps({"q": "x"}).encode()
    message = DeliveredMessage(delivery=Basic.Deliver(), header=header, body=body, channel=channel)
    gc.disable()
    try:
        await server.take(message)
        assert [refusal() for refusal in refusals] == [None]
    finally:
        gc.enable()

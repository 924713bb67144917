"""The peer of asking for a quote: Quart in front of `aio_pika.patterns.RPC`.

`rpc_pattern.py serve PORT URL` is the gateway, `rpc_pattern.py work URL` the service behind it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aio_pika
import uvicorn
from aio_pika.patterns import RPC, JsonRPC
from quart import Quart, Response

from benchmarks.peers.bare_quart import BODY

app = Quart("pattern")
state: dict[str, Any] = {}


async def quote(*, symbol: str) -> str:
    return BODY.decode()


@app.before_serving
async def connect() -> None:
    connection = await aio_pika.connect_robust(state["url"])
    state["rpc"] = await JsonRPC.create(await connection.channel())


@app.get("/v1/stocks/<symbol>")
async def ask(symbol: str) -> Response:
    rpc: RPC = state["rpc"]
    found = await rpc.call("benchmark.quote", kwargs={"symbol": symbol})
    return Response(found, content_type="application/json")


async def work(url: str) -> None:
    connection = await aio_pika.connect_robust(url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=256)
    rpc = await JsonRPC.create(channel)
    await rpc.register("benchmark.quote", quote, auto_delete=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(work(sys.argv[2]))
    state["url"] = sys.argv[3]
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        http="httptools",
        access_log=False,
        log_level="warning",
    )

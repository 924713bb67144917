"""Traffic of every kind that clients make, so that every metric has a value."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiormq
import httpx
import orjson
import websockets

from native.stack import Stack
from support.waiting import until

_NUMBERS = itertools.count(1)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_ENDED = ("completed", "failed", "cancelled", "expired")


@asynccontextmanager
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with the administrator's key, whose calls belong to a sampled trace."""
    headers = {"Authorization": f"Bearer {stack.api_key}", "traceparent": TRACEPARENT}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=20) as api:
        yield api


async def everything(stack: Stack, api: httpx.AsyncClient) -> None:
    """Make one round; return when all that was accepted has ended."""
    await asyncio.gather(
        quotes(api), refusals(api), mails(api), batches(api), users(api), talk(stack, api), poison(stack)
    )


async def quotes(api: httpx.AsyncClient) -> None:
    """Ask for pushed quotes, for one uncached symbol from many callers at once, for bars and search."""
    for _ in range(10):
        await api.get("/v1/stocks/AAPL")
    await asyncio.gather(*(api.get("/v1/stocks/NOSUCH") for _ in range(8)))
    await api.get("/v1/stocks", params={"symbols": "AAPL,MSFT,NOSUCH"})
    await api.get("/v1/stocks/AAPL/bars", params={"start": "2005-01-01", "end": "2005-03-01"})
    await api.get("/v1/stocks/search", params={"q": "apple"})


async def refusals(api: httpx.AsyncClient) -> None:
    """Send requests without a key, with a wrong key, and to a route that does not exist."""
    await api.get("/v1/me", headers={"Authorization": "Bearer tw_live_nonsense"})
    await api.get("/v1/me", headers={"Authorization": ""})
    await api.get("/nowhere")


async def mails(api: httpx.AsyncClient) -> None:
    """Send a mail that is delivered, one that is refused, and one request twice."""
    body = {"to": ["ann@example.com", "reject550@example.com"], "subject": "traffic", "text": "x"}
    headers = {"Idempotency-Key": f'"{uuid4()}"'}
    accepted = (await api.post("/v1/emails", json=body, headers=headers)).json()
    await api.post("/v1/emails", json=body, headers=headers)
    await _ended(
        api, f"/v1/emails/{accepted['id']}", ("partially_delivered", "delivered", "failed", "suppressed")
    )


async def batches(api: httpx.AsyncClient) -> None:
    """Run a batch on another service's data, a task, and a schedule that makes tasks."""
    every_minute = {"name": "traffic", "cron": "* * * * *", "template": {"operation": "echo", "payload": 1}}
    schedule = (await api.post("/v1/schedules", json=every_minute)).json()
    await api.post(f"/v1/schedules/{schedule['id']}/run")
    items = [{"symbol": "AAPL", "indicators": ["sma:20"], "start": "2006-01-01", "end": "2006-02-01"}] * 3
    batch = (await api.post("/v1/batches", json={"operation": "stock.indicators", "items": items})).json()
    task = (await api.post("/v1/tasks", json={"operation": "echo", "payload": {"n": 1}})).json()
    await _ended(api, f"/v1/batches/{batch['id']}", _ENDED)
    await _ended(api, f"/v1/tasks/{task['id']}", _ENDED)


async def users(api: httpx.AsyncClient) -> None:
    """Make and read a user."""
    body = {"name": "Traffic", "email": f"{uuid4().hex}@example.com"}
    user = (await api.post("/v1/users", json=body)).json()
    for _ in range(3):
        await api.get(f"/v1/users/{user['id']}")


async def talk(stack: Stack, api: httpx.AsyncClient) -> None:
    """Use streams, chat and recovery, and a connection that the gateway closes."""
    room = f"t{uuid4().hex[:8]}"
    await api.post("/v1/rooms", json={"name": room})
    async with _socket(stack) as socket:
        await _ask(socket, connect={"token": stack.api_key})
        await _ask(socket, subscribe={"channel": "quotes:AAPL", "data": {"conflate_ms": 2000}})
        joined = await _ask(socket, subscribe={"channel": f"chat:{room}"})
        for number in range(3):
            await _ask(socket, publish={"channel": f"chat:{room}", "data": {"text": f"line {number}"}})
        await _ask(socket, unsubscribe={"channel": f"chat:{room}"})
        seen = {"recover": True, "epoch": joined["subscribe"]["epoch"], "offset": 1}
        await _ask(socket, subscribe={"channel": f"chat:{room}", **seen})
    async with _socket(stack) as socket:
        await socket.send(orjson.dumps({"id": 1, "connect": {"token": "tw_live_nonsense"}}).decode())
        await socket.wait_closed()


async def poison(stack: Stack) -> None:
    """Send a message that nobody can decode, which is parked, and one of an unknown type, which waits."""
    connection = await aiormq.connect(stack.rabbitmq.url)
    try:
        channel = await connection.channel()
        for message_type in ("email.send.v1", "email.unknown.v0"):
            properties = aiormq.spec.Basic.Properties(
                message_type=message_type, message_id=str(uuid4()), headers={}, delivery_mode=2
            )
            await channel.basic_publish(
                b"{}", exchange="commands", routing_key="email.send", properties=properties
            )
    finally:
        await connection.close()


@asynccontextmanager
async def _socket(stack: Stack) -> AsyncIterator[websockets.ClientConnection]:
    address = stack.url.replace("http", "ws", 1) + "/v1/realtime"
    async with websockets.connect(address, proxy=None) as socket:
        yield socket


async def _ask(socket: websockets.ClientConnection, **command: Any) -> Mapping[str, Any]:
    number = next(_NUMBERS)
    await socket.send(orjson.dumps({"id": number, **command}).decode())
    async with asyncio.timeout(15):
        while True:
            frame: dict[str, Any] = orjson.loads(await socket.recv())
            if frame.get("id") == number:
                return frame


async def _ended(api: httpx.AsyncClient, path: str, states: tuple[str, ...]) -> None:
    async def has_ended() -> bool:
        return (await api.get(path)).json().get("status") in states

    await until(has_ended, timeout_s=30, what=lambda: path)

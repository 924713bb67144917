"""Floods over WebSockets: frames, commands and subscriptions, and readers who read nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import orjson
import websockets

from faults.floods.address import Address, side_by_side
from native.ports import HOST

_EMPTY_TEXT = b"\x01\x80mask"
_EMPTY_CONTINUATION = b"\x00\x80mask"
_EMPTY_PING = b"\x89\x80mask"
# Ten times what a connection may send at once, fifty times over.
_FRAMES = 250_000


async def frames(at: Address) -> str:
    """Send empty fragments and pings, as fast as they can be sent, over ten sockets."""
    upgrade = at.head(
        "GET /v1/realtime",
        *("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
    )
    fragments = [_EMPTY_TEXT, *[_EMPTY_CONTINUATION * 5000] * (_FRAMES // 5000)]
    pings = [_EMPTY_PING * 5000] * (_FRAMES // 5000)

    async def once(number: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, at.gateway, local_addr=("127.0.0.2", 0))
        try:
            writer.write(upgrade)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            for part in pings if number % 2 else fragments:
                writer.write(part)
                await writer.drain()
                if at.is_over:
                    break
            await asyncio.wait_for(reader.read(), at.left_s)
        finally:
            writer.transport.abort()

    return f"{await side_by_side(at, 10, once)} sockets with up to {_FRAMES} frames each"


async def commands(at: Address) -> str:
    """Send ten times the commands that a connection may send at once, most of them subscriptions."""
    numbers = count(1)
    first: list[dict[str, Any]] = [{"connect": {"token": at.key}}]
    asked = first + [{"subscribe": {"channel": f"quotes:X{number}"}} for number in range(4000)]

    async def once(_: int) -> None:
        async with websockets.connect(f"ws://{HOST}:{at.gateway}/v1/realtime", proxy=None) as socket:
            with contextlib.suppress(websockets.ConnectionClosed):
                for batch in batched(asked, 400):
                    lines = [orjson.dumps({"id": next(numbers), **one}) for one in batch]
                    await socket.send(b"\n".join(lines).decode())
                await asyncio.wait_for(socket.wait_closed(), at.left_s)

    return f"{await side_by_side(at, 10, once)} sockets with {len(asked)} commands each"


async def slow_readers(at: Address) -> str:
    """Open sockets that ask for 30 MiB each, and read none of it."""
    room = f"guest-{uuid4().hex[:12]}"
    headers = {"Authorization": f"Bearer {at.key}"}
    async with httpx.AsyncClient(
        base_url=f"http://{HOST}:{at.gateway}", headers=headers, timeout=60
    ) as client:
        await client.post("/v1/rooms", json={"name": room})
        line = {"text": "x" * 4000}
        await asyncio.gather(*(client.post(f"/v1/rooms/{room}/messages", json=line) for _ in range(150)))
    # On a slow machine the lines alone can take as long as the guest stays.
    at = at.anew()
    upgrade = at.head(
        "GET /v1/realtime",
        *("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
    )
    asked = [{"id": 1, "connect": {"token": at.key}}]
    asked += [{"id": number, "history": {"channel": f"chat:{room}", "limit": 300}} for number in range(2, 62)]

    async def once(_: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, at.gateway, local_addr=("127.0.0.2", 0))
        try:
            writer.write(upgrade)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            writer.write(b"".join(_text(orjson.dumps(one)) for one in asked))
            # The transport goes on reading until its buffer is full: a few kilobytes.
            await asyncio.sleep(at.left_s)
        finally:
            writer.transport.abort()

    await side_by_side(at, 10, once)
    return "10 sockets that ask for 30 MiB each"


def batched(found: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the parts of a list, each of `size` at most."""
    for start in range(0, len(found), size):
        yield found[start : start + size]


def _text(payload: bytes) -> bytes:
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + payload

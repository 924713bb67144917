"""Floods over WebSockets: frames, commands and subscriptions, and readers who read nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import orjson
import websockets

from faults.floods.address import Address, full_room, side_by_side, slow_socket
from faults.street import SYMBOLS
from native.ports import HOST

T = TypeVar("T")

_EMPTY_TEXT = b"\x01\x80mask"
_EMPTY_CONTINUATION = b"\x00\x80mask"
_EMPTY_PING = b"\x89\x80mask"
# Ten times what a connection may send at once, fifty times over.
_FRAMES = 250_000
# As many as one owner may have from one address, and those that have just been cut off.
_SLOW_READERS = 350
# Enough that what is said in their room is handed out in turns, and no passing of it is free.
_LISTENERS = 300
_POSTERS = 20
_UPGRADE = (
    *("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
)


async def frames(at: Address) -> str:
    """Send empty fragments and pings, as fast as they can be sent, over ten sockets."""
    upgrade = at.head("GET /v1/realtime", *_UPGRADE)
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
    """Open as many sockets as an address may have; they read nothing of histories, chat and quotes."""
    async with at.client() as client:
        room = await full_room(client)
        # On a slow machine the lines alone can take as long as the guest stays.
        at = at.anew()
        connect = {"id": 1, "connect": {"token": at.key}}
        pushes = [
            {"id": number, "subscribe": {"channel": channel}}
            for number, channel in enumerate((f"chat:{room}", f"quotes:{SYMBOLS[0]}"), start=2)
        ]
        history = {"history": {"channel": f"chat:{room}", "limit": 300}}
        questions = [{"id": number, **history} for number in range(4, 64)]

        loop, readers = asyncio.get_running_loop(), 0

        async def once(number: int) -> None:
            nonlocal readers
            with closing(slow_socket("127.0.0.2")) as deaf:
                # A few have more to hear than they may leave unread, the others a little less.
                asked = [connect, *pushes, *questions[: 3 if number % 10 else 60]]
                # More at once would be refused: none of them has said who it is.
                await asyncio.sleep(number / 100)
                await _upgrade(at, deaf)
                readers += 1
                await loop.sock_sendall(deaf, b"".join(_text(orjson.dumps(one)) for one in asked))
                # They keep what they have got for as long as they may.
                await asyncio.sleep(at.left_s)

        async def talk() -> None:
            while not at.is_over:
                # Short: what all of them hear is in memory once.
                await client.post(f"/v1/rooms/{room}/messages", json={"text": "x"})

        await asyncio.gather(talk(), side_by_side(at, _SLOW_READERS, once))
    return f"{readers} sockets that ask for up to 30 MiB each"


async def chatter(at: Address) -> str:
    """Post ten times as fast as a socket may, from forty sockets, which all hear each other."""
    own = f"guest-{uuid4().hex[:12]}"
    async with at.client() as client:
        await client.post("/v1/rooms", json={"name": own})
        home = await _home(client)
    channels = [f"chat:{own}", f"chat:{home}"]
    replies: Counter[str] = Counter()
    numbers, loop = count(1), asyncio.get_running_loop()

    async def once(number: int) -> None:
        first = [{"connect": {"token": at.key}}, *({"subscribe": {"channel": one}} for one in channels)]
        post = {"publish": {"channel": channels[number % len(channels)], "data": {"text": "noise"}}}
        with closing(slow_socket("127.0.0.2", receive_bytes=1 << 20)) as loud:
            await _upgrade(at, loud)
            speaking = asyncio.create_task(speak(loud, [*first, *[post] * 5000]))
            try:
                async with asyncio.timeout(at.left_s):
                    await count_replies(loud)
            finally:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)

    async def count_replies(loud: socket.socket) -> None:
        while heard := await loop.sock_recv(loud, 1 << 20):
            replies["posted"] += heard.count(b'"publish":{}')
            replies["refused"] += heard.count(b'"error":{')

    async def speak(loud: socket.socket, lines: list[dict[str, Any]]) -> None:
        for some in batched(lines, 50):
            numbered = (orjson.dumps({"id": next(numbers), **one}) for one in some)
            await loop.sock_sendall(loud, _text(b"\n".join(numbered)))

    sockets = await side_by_side(at, 40, once)
    return f"{replies['posted']} lines from {sockets} sockets, {replies['refused']} refused"


async def crowded_room(at: Address) -> str:
    """Post as fast as requests are answered to the neighbour's room, in which hundreds of sockets listen."""
    counts: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    async with at.client() as client:
        home = await _home(client)
        subscribe = {"id": 2, "subscribe": {"channel": f"chat:{home}"}}
        hello = b"\n".join(map(orjson.dumps, ({"id": 1, "connect": {"token": at.key}}, subscribe)))

        async def listen(number: int) -> None:
            # More at once would be refused: none of them has said who it is.
            await asyncio.sleep(min(number / 100, at.left_s))
            with closing(slow_socket("127.0.0.2", receive_bytes=1 << 18)) as ears:
                await _upgrade(at, ears)
                await loop.sock_sendall(ears, _text(hello))
                async with asyncio.timeout(at.left_s):
                    await hear(ears)

        async def hear(ears: socket.socket) -> None:
            while heard := await loop.sock_recv(ears, 1 << 18):
                counts["heard"] += heard.count(b'"pub":{')
                if b'"unsubscribe":{' in heard:
                    # It fell behind, and comes back at once.
                    counts["behind"] += 1
                    await loop.sock_sendall(ears, _text(orjson.dumps(subscribe)))

        async def post() -> None:
            while not at.is_over:
                answer = await client.post(f"/v1/rooms/{home}/messages", json={"text": "noise"})
                counts["posted"] += answer.status_code == 201

        await asyncio.gather(side_by_side(at, _LISTENERS, listen), *(post() for _ in range(_POSTERS)))
    return (
        f"{counts['posted']} lines, heard {counts['heard']} times by {_LISTENERS} sockets, "
        f"which fell behind {counts['behind']} times"
    )


async def _home(client: httpx.AsyncClient) -> str:
    """Return the name of the neighbour's room, which is public: whoever may write may also write there."""
    listed = (await client.get("/v1/rooms", params={"limit": 200})).json()
    return max(str(one["name"]) for one in listed["data"] if one["name"].startswith("home-"))


async def _upgrade(at: Address, client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (HOST, at.gateway))
    await loop.sock_sendall(client, at.head("GET /v1/realtime", *_UPGRADE))
    async with asyncio.timeout(10):
        answer = await loop.sock_recv(client, 4096)
    if b" 101 " not in answer:
        await asyncio.sleep(min(0.5, at.left_s))
        raise ConnectionError


def batched(found: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the parts of a list, each of `size` at most."""
    for start in range(0, len(found), size):
        yield found[start : start + size]


def _text(payload: bytes) -> bytes:
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + payload

"""Floods of reading: questions that are slow to answer, and long answers that are not read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import cycle, islice

import httpx
import orjson

from chassis.broker.answering import MOST_OF_OWNER
from faults.faulty_operation import FAULTY
from faults.floods.address import Address, full_room, hold_each, is_established, side_by_side, slow_socket
from faults.street import SYMBOLS
from gateway.http import sending
from native.ports import HOST

_NDJSON = {"Content-Type": "application/x-ndjson"}
_ITEMS = 2000
_FAILING = 100
_EVENT_STREAMS = 300
# Ten times what one owner may have, each with events of several symbols, over more connections than get one.
_UNREAD_STREAMS, _UNREADING = 25_000, 3000
# Connections that this process opens at a time.
_ASKING = 100
# Several times what there would be memory for.
_PAGES = 600
# Fewer than an address may have, so that it is the bounds of answers that are met.
_OF_AN_ADDRESS = 160


async def heavy_questions(at: Address) -> str:
    """Ask each service ten times the questions that it answers at a time, each for as much as one may."""
    async with at.client() as client:
        results = await _batch(client, at, "echo", [b'{"payload":"%b"}' % (b"x" * 1000)] * _ITEMS)
        failed = await _batch(client, at, FAULTY, [b'{"payload":"no JSON"}'] * _FAILING)
        mail = {"to": ["friend@guest.example"], "subject": "s", "text": "t", "tags": ["many"]}
        await client.post("/v1/emails/batch", json={"emails": [mail] * 500})
        questions = (
            f"{results}/results?limit=5000",
            "/v1/stocks/AAPL/bars?start=1970-01-01&limit=10000&adjustment=all",
            "/v1/emails?limit=200&tag=many&to=friend@guest.example&status=delivered,failed",
            f"{failed}/errors",
            "/v1/stocks/search?q=a&limit=100",
            "/v1/emails?limit=200&to=nobody@guest.example",
            f"{results}/items?limit=1000",
            "/v1/batches?limit=200&operation=echo&status=completed",
        )
    # On a slow machine what is asked for can take as long as the guest stays.
    at = at.anew()
    statuses: Counter[bytes] = Counter()

    async def once(number: int) -> None:
        line = f"GET {questions[number % len(questions)]}"
        reader, writer = await asyncio.open_connection(HOST, at.gateway, local_addr=("127.0.0.2", 0))
        try:
            writer.write(at.head(line, "Connection: close"))
            async with asyncio.timeout(10):
                answer = await reader.read()
        finally:
            writer.transport.abort()
        statuses[answer[9:12]] += 1
        if answer[9:12] != b"200":
            await asyncio.sleep(0.2)

    await side_by_side(at, 3 * 10 * MOST_OF_OWNER, once)
    return f"{statuses.total()} questions, {statuses[b'200']} answered"


async def slow_downloads(at: Address) -> str:
    """Ask for ten times the streams that an owner may have, and more pages; read next to nothing of them."""
    async with at.client() as client:
        results = await _batch(client, at, "echo", [b'{"payload":"%b"}' % (b"x" * 1000)] * _ITEMS)
        room = await full_room(client)
    streams = (f"{results}/results?format=ndjson", f"{results}/results?format=csv")
    paths = [
        *islice(cycle(streams), 10 * sending.MOST_STREAMS_OF_OWNER),
        *[f"/v1/rooms/{room}/messages?limit=200"] * _PAGES,
        *["/v1/stocks/stream?symbols=AAPL"] * _EVENT_STREAMS,
    ]
    # Every other one reads nothing at all.
    return await _hold(at.anew(), paths, reads=lambda number: bool(number % 2))


async def event_streams(at: Address) -> str:
    """Ask for ten times the event streams that an owner may have, and read nothing of them.

    Connections whose request is refused make the next one, until all have been made.
    """
    statuses: Counter[bytes] = Counter()
    loop = asyncio.get_running_loop()
    request = at.head(f"GET /v1/stocks/stream?symbols={','.join(SYMBOLS)}")

    def has_asked() -> bool:
        return statuses.total() >= _UNREAD_STREAMS

    async def ask(reader: socket.socket) -> bytes:
        async with asyncio.timeout(10):
            await loop.sock_sendall(reader, request)
            answer = await loop.sock_recv(reader, 4096)
            status = answer[9:12]
            while answer and status != b"200" and not answer.endswith(b"}\n"):
                answer = await loop.sock_recv(reader, 4096)
        statuses[status] += 1
        return status

    async def once(number: int, begun: Callable[[], None]) -> None:
        source = f"127.0.0.{2 + number // _OF_AN_ADDRESS}"
        with closing(slow_socket(source)) as reader, contextlib.suppress(OSError, TimeoutError):
            try:
                async with asyncio.timeout(10):
                    await loop.sock_connect(reader, (HOST, at.gateway))
                status = await ask(reader)
            finally:
                begun()
            while status != b"200" and not has_asked():
                await asyncio.sleep(0.35)
                status = await ask(reader)
            # What is cut off while this one reads nothing shows in the state of its connection only.
            while status == b"200" and is_established(reader):
                await asyncio.sleep(1)

    await hold_each(at, _UNREADING, once, within_s=at.seconds / 3, opening=_ASKING, is_done=has_asked)
    begun = statuses[b"200"]
    return f"{statuses.total()} requests, {begun} begun, {statuses.total() - begun} refused"


async def _hold(at: Address, paths: Sequence[str], *, reads: Callable[[int], bool]) -> str:
    """Ask for all `paths`, and keep what is answered; read a byte a second of those that are to be read."""
    statuses: Counter[bytes] = Counter()
    loop = asyncio.get_running_loop()
    waiting = set(range(len(paths)))

    async def once(number: int) -> None:
        if number in waiting:
            # All at once, most of them would time out before anything is read of them.
            waiting.remove(number)
            await asyncio.sleep(number / len(paths) * at.seconds / 2)
        with closing(slow_socket(f"127.0.0.{2 + number // _OF_AN_ADDRESS}")) as reader:
            await loop.sock_connect(reader, (HOST, at.gateway))
            await loop.sock_sendall(reader, at.head(f"GET {paths[number]}"))
            async with asyncio.timeout(10):
                status = (await loop.sock_recv(reader, 12))[-3:]
            statuses[status] += 1
            while status == b"200" and not at.is_over:
                await asyncio.sleep(min(1.0, at.left_s))
                if reads(number) and not await loop.sock_recv(reader, 1):
                    break
        await asyncio.sleep(min(1.0, at.left_s))

    await side_by_side(at, len(paths), once)
    begun = statuses[b"200"]
    return f"{statuses.total()} answers, {begun} begun, {statuses.total() - begun} refused"


async def _batch(client: httpx.AsyncClient, at: Address, operation: str, lines: list[bytes]) -> str:
    """Run a batch to its end; return its path."""
    body = b"\n".join(lines)
    accepted = await client.post(f"/v1/batches?operation={operation}", content=body, headers=_NDJSON)
    path = accepted.raise_for_status().headers["location"]
    while not at.is_late:
        found = orjson.loads((await client.get(path)).content)
        if found["status"] in ("completed", "failed"):
            break
        await asyncio.sleep(0.2)
    return str(path)

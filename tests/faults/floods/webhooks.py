"""A flood of events for webhooks whose receiver hangs, trickles, answers without end, and redirects."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice

import httpx

from faults.floods.address import Address
from gateway.emails.inputs import MOST_EMAILS
from gateway.webhooks.deliverer import MOST_AT_ONCE
from gateway.webhooks.service import MOST_WEBHOOKS
from native.ports import HOST

# Half of them hold what they get for as long as they may.
_WAYS = ("hang", "body", "trickle", "heads", "hang", "redirect")
_BLOCK = b"x" * 65_536
_INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n" * 1000


async def receivers(at: Address) -> str:
    """Have hundreds of times as many deliveries due as there are places, at a receiver that takes none."""
    attempts: Counter[str] = Counter()
    server = await asyncio.start_server(partial(_receive, attempts), HOST, 0)
    url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    made: list[str] = []
    async with at.client() as client:
        try:
            for way in islice(cycle(_WAYS), MOST_WEBHOOKS):
                made.append(await _made(client, f"{url}/{way}"))
            mail = {"to": ["friend@guest.example"], "subject": "s", "text": "t"}
            accepted = await client.post("/v1/emails/batch", json={"emails": [mail] * MOST_EMAILS})
            accepted.raise_for_status()
            # However slowly mails are delivered: ten times as many as there are places, at once.
            paths = islice(cycle(f"/v1/webhooks/{webhook}/test" for webhook in made), 10 * MOST_AT_ONCE)
            at = at.anew()
            await asyncio.gather(*(_test_each(client, at, paths) for _ in range(10)))
            await asyncio.sleep(at.left_s)
        finally:
            for webhook in made:
                await client.delete(f"/v1/webhooks/{webhook}")
            server.close()
    return f"{MOST_EMAILS} mails, told to {len(made)} webhooks; {attempts.total()} attempts"


async def _test_each(client: httpx.AsyncClient, at: Address, paths: Iterator[str]) -> None:
    for path in paths:
        if at.is_late:
            break
        with contextlib.suppress(httpx.TransportError):
            await client.post(path)


async def _made(client: httpx.AsyncClient, url: str) -> str:
    answer = await client.post("/v1/webhooks", json={"url": url, "events": ["email.delivered"]})
    return str(answer.raise_for_status().json()["id"])


async def _receive(
    attempts: Counter[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one request in the way that its path names, until the sender has had enough."""
    try:
        # At the end of the flood it is cancelled, about which the server would write a traceback.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
            way = target.removeprefix("/")
            attempts[way] += 1
            if way == "hang":
                await reader.read()
            elif way == "redirect":
                writer.write(b"HTTP/1.1 302 Found\r\nLocation: /redirect\r\nContent-Length: 0\r\n\r\n")
            elif way == "trickle":
                await _pour(writer, b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", every_s=0.5)
            elif way == "body":
                await _pour(writer, b"HTTP/1.1 200 OK\r\n\r\n", _BLOCK)
            else:
                await _pour(writer, b"", _INTERIM)
    finally:
        writer.close()


async def _pour(writer: asyncio.StreamWriter, first: bytes, again: bytes, *, every_s: float = 0) -> None:
    writer.write(first)
    while not writer.is_closing():
        writer.write(again)
        await writer.drain()
        await asyncio.sleep(every_s)

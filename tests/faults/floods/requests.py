"""Floods over HTTP: heads, connections, bodies, junk keys, uploads."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from contextlib import closing

from chassis.http1.limits import FIELDS
from faults.floods.address import Address, exchange, hold_each, side_by_side, slow_socket
from gateway.batches.upload_turns import MOST_OF_AN_OWNER
from gateway.identity.keys import new_key
from native.ports import HOST

_MIB = 1 << 20
# Eighty times what an address may have without a key, and ten times the places without one.
_OF_ONE_ADDRESS, _OF_ALL_ADDRESSES = 10_000, 15_000
# Connections that this process begins at a time.
_OPENING = 500
_LOGIN = "POST /v1/console/sessions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
_HALVES = (
    b"GET /healthz HTTP/1.1\r\nX-Half",
    f"{_LOGIN}Request-Timeout: 30\r\nContent-Length: 50\r\n\r\n{{".encode(),
)
# The largest of what is given without a key, and how often each connection requests one at once.
_DOCUMENTS, _AT_ONCE = ("/openapi.json", "/asyncapi.json", "/problems", "/docs/runbooks"), 20
_UPLOAD = ("POST /v1/batches?operation=echo", "Content-Type: application/x-ndjson")


async def heads(at: Address) -> str:
    """Send heads of 16 MiB, and of ten times as many fields as may be."""
    many = b"".join(b"X-%d: y\r\n" % number for number in range(10 * FIELDS))

    async def once(number: int) -> None:
        beginning = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n"
        if number % 4 == 0:
            await exchange(at, [beginning, many, b"\r\n"])
        else:
            long = (b"x" * 65_536 for _ in range(256))
            await exchange(at, (beginning, b"X-Long: ", *long), source=f"127.0.0.{2 + number % 4}")

    return f"{await side_by_side(at, 20, once)} heads"


async def connections(at: Address) -> str:
    """Open eighty times the connections that an address may have without a key, each with half a request."""
    return await _hold(at, [HOST.replace("0.1", "0.2")] * _OF_ONE_ADDRESS)


async def crowd(at: Address) -> str:
    """Open ten times as many connections without a key as there are places, from many addresses."""
    # Fewer of each address than it may have, so that it is the number of all places that is met.
    return await _hold(at, [f"127.0.1.{number % 200 + 1}" for number in range(_OF_ALL_ADDRESSES)])


async def documents(at: Address) -> str:
    """Request public documents without a key, 20 at once over each of 300 connections; half read nothing."""
    read = Counter[str]()

    async def once(number: int) -> None:
        request = f"GET {_DOCUMENTS[number % len(_DOCUMENTS)]} HTTP/1.1\r\nHost: gateway\r\n\r\n"
        source = f"127.0.3.{number % 50 + 1}"
        reader, writer = await asyncio.open_connection(HOST, at.gateway, local_addr=(source, 0), limit=1024)
        try:
            writer.write(request.encode() * _AT_ONCE)
            read["requests"] += _AT_ONCE
            if number % 2:
                await asyncio.sleep(min(3, at.left_s))
                return
            async with asyncio.timeout(min(10, at.left_s)):
                while part := await reader.read(_MIB):
                    read["bytes"] += len(part)
        finally:
            writer.transport.abort()

    await side_by_side(at, 300, once)
    return f"{read['requests']} requests, {read['bytes'] // _MIB} MiB read"


async def _hold(at: Address, sources: list[str]) -> str:
    """Open a connection from each source, and keep it; return what became of them."""
    ends: Counter[str] = Counter()
    loop = asyncio.get_running_loop()

    async def keep(number: int, begun: Callable[[], None]) -> None:
        end = "cut off"
        with closing(slow_socket(sources[number])) as client, contextlib.suppress(OSError, TimeoutError):
            try:
                async with asyncio.timeout(10):
                    await loop.sock_connect(client, (HOST, at.gateway))
                    await loop.sock_sendall(client, _HALVES[number % 2])
            finally:
                begun()
            try:
                end = "answered" if await loop.sock_recv(client, 12) else end
            except asyncio.CancelledError:
                end = "held to the end"
        ends[end] += 1

    await hold_each(at, len(sources), keep, within_s=0.8 * at.seconds, opening=_OPENING)
    told = ", ".join(f"{number} {end}" for end, number in sorted(ends.items()))
    return f"{ends.total()} connections: {told}"


async def bodies(at: Address) -> str:
    """Send JSON bodies of ten times the limit, with a length and in chunks, and nested ten times too deep."""
    large = b'{"to":["a@example.com"],"subject":"s","text":"' + b"x" * (10 * _MIB) + b'"}'
    deep = b'{"to":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

    async def once(number: int) -> None:
        body = deep if number % 3 == 0 else large
        kind = "Content-Type: application/json"
        if number % 3 == 1:
            chunk = b"%x\r\n%b\r\n" % (_MIB, large[:_MIB])
            head = at.head("POST /v1/emails", kind, "Transfer-Encoding: chunked")
            await exchange(at, [head, *[chunk] * 10, b"0\r\n\r\n"])
        else:
            head = at.head("POST /v1/emails", kind, f"Content-Length: {len(body)}")
            await exchange(at, [head, *(body[at : at + _MIB] for at in range(0, len(body), _MIB))])

    return f"{await side_by_side(at, 20, once)} bodies"


async def keys(at: Address) -> str:
    """Send keys that do not exist, over kept connections, from many addresses."""

    async def once(number: int) -> None:
        lines = []
        for _ in range(200):
            lines.append(
                b"GET /v1/me HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %b\r\n\r\n"
                % str(new_key()).encode()
            )
        await exchange(at, lines, source=f"127.0.2.{number + 1}", wait_s=0.5)

    return f"{200 * await side_by_side(at, 20, once)} requests with junk keys"


async def uploads(at: Address) -> str:
    """Send ten times the uploads that an owner may have at a time, with an id of its own in every line.

    The first ones are lines of ten times the limit.
    """
    await asyncio.gather(*(exchange(at, _long_line(at)) for _ in range(MOST_OF_AN_OWNER)))
    counts: Counter[str] = Counter()

    async def once(_: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, at.gateway, local_addr=("127.0.0.2", 0))
        try:
            counts["uploads"] += 1
            writer.write(at.head(*_UPLOAD, "Transfer-Encoding: chunked", "Expect: 100-continue"))
            async with asyncio.timeout(10):
                is_taken = b" 100 " in await reader.readline()
            counts["refused"] += not is_taken
            base = (counts["uploads"] << 40) + 1
            while is_taken and not at.is_over:
                run = b"".join(b'{"custom_id":"%x","payload":0}\n' % (base + each) for each in range(2000))
                base += 2000
                writer.write(b"%x\r\n%b\r\n" % (len(run), run))
                await writer.drain()
                counts["lines"] += 2000
        finally:
            writer.transport.abort()
        await asyncio.sleep(min(0.5, at.left_s))

    await side_by_side(at, 10 * MOST_OF_AN_OWNER, once)
    return f"{counts['lines']} lines in {counts['uploads']} uploads, {counts['refused']} of them refused"


def _long_line(at: Address) -> tuple[bytes, bytes]:
    line = b'{"payload":"' + b"x" * (2560 * 1024) + b'"}\n'
    return at.head(*_UPLOAD, f"Content-Length: {len(line)}"), line

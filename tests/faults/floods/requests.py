"""Floods over HTTP: heads, connections, bodies, junk keys, uploads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from chassis.http1.limits import FIELDS
from faults.floods.address import Address, exchange, side_by_side
from gateway.identity.keys import new_key
from native.ports import HOST

_MIB = 1 << 20


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
    """Open over ten times the connections that an address may have without a key, each half a request."""
    taken = await _hold(at, [HOST.replace("0.1", "0.2")] * 2000)
    return f"2000 connections, {taken} held"


async def crowd(at: Address) -> str:
    """Open more connections without a key than there are places for, from many addresses."""
    taken = await _hold(at, [f"127.0.1.{number % 100 + 1}" for number in range(4000)])
    return f"4000 connections of 100 addresses, {taken} held"


async def _hold(at: Address, sources: list[str]) -> int:
    held = 0
    login = "POST /v1/console/sessions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    halves = (
        b"GET /healthz HTTP/1.1\r\nX-Half",
        f"{login}Request-Timeout: 30\r\nContent-Length: 50\r\n\r\n{{".encode(),
    )

    async def one(number: int, source: str) -> None:
        nonlocal held
        # Not all in one moment: the queue of the listening socket is the system's.
        await asyncio.sleep(number * min(2.0, at.seconds / 3) / len(sources))
        while not at.is_over:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(HOST, at.gateway, local_addr=(source, 0))
                writer.write(halves[number % 2])
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), at.left_s)
                held += not reader.at_eof()
                writer.transport.abort()
            await asyncio.sleep(min(1.0, at.left_s))

    await asyncio.gather(*(one(number, source) for number, source in enumerate(sources)))
    return held


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
    """Send ten uploads at a time, with an id of its own in every line, and lines of ten times the limit."""
    lines = 0

    async def parts(number: int) -> AsyncIterator[bytes]:
        nonlocal lines
        yield at.head(
            "POST /v1/batches?operation=echo",
            "Content-Type: application/x-ndjson",
            "Transfer-Encoding: chunked",
        )
        base = number << 40
        while not at.is_over:
            run = b"".join(b'{"custom_id":"%x","payload":0}\n' % (base + each) for each in range(2000))
            base += 2000
            lines += 2000
            yield b"%x\r\n%b\r\n" % (len(run), run)

    async def once(number: int) -> None:
        if number == 10:
            line = b'{"payload":"' + b"x" * (2560 * 1024) + b'"}\n'
            head = at.head(
                "POST /v1/batches?operation=echo",
                "Content-Type: application/x-ndjson",
                f"Content-Length: {len(line)}",
            )
            await exchange(at, [head, line])
            return
        _, writer = await asyncio.open_connection(HOST, at.gateway, local_addr=("127.0.0.2", 0))
        try:
            async for part in parts(number):
                writer.write(part)
                await writer.drain()
        finally:
            writer.transport.abort()

    await side_by_side(at, 11, once)
    return f"{lines} lines in 10 uploads"

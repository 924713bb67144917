"""A TCP proxy that adds latency in each direction.

`python -m benchmarks.latency PORT TARGET_PORT DELAY_MS` serves it. A connection is accepted at once, so what
the handshake would have cost is waited for before the first octet: three ways until the server has it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from benchmarks.programs import python
from native.ports import HOST, free_port
from support.waiting import until

_HANDSHAKE_WAYS = 3


class _Way(asyncio.Protocol):
    """One direction of a connection: what comes in here goes out at `other` after the delay."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.other: asyncio.Transport | None = None
        # What came before there was a connection to the server.
        self.early: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.delay_s, self._pass_on, data)

    def connection_lost(self, error: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self.delay_s, self._end)

    def join(self, other: asyncio.Transport) -> None:
        """Send to `other` from now on."""
        self.other = other
        for data in self.early:
            other.write(data)

    def _pass_on(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        elif not self.other.is_closing():
            self.other.write(data)

    def _end(self) -> None:
        if self.other is not None:
            self.other.close()


class _FromClient(_Way):
    def __init__(self, target: int, delay_s: float) -> None:
        super().__init__(delay_s)
        self._target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client = cast(asyncio.Transport, transport)
        self._opening = asyncio.ensure_future(self._open(client))

    async def _open(self, client: asyncio.Transport) -> None:
        await asyncio.sleep(_HANDSHAKE_WAYS * self.delay_s)
        back = _Way(self.delay_s)
        back.join(client)
        try:
            server, _ = await asyncio.get_running_loop().create_connection(lambda: back, HOST, self._target)
        except OSError:
            client.abort()
            return
        self.join(server)
        if client.is_closing():
            self._end()


async def serve(port: int, target: int, delay_s: float) -> None:
    """Serve until cancelled."""
    server = await asyncio.get_running_loop().create_server(lambda: _FromClient(target, delay_s), HOST, port)
    await server.serve_forever()


@asynccontextmanager
async def delayed(target: int, *, delay_ms: int) -> AsyncIterator[int]:
    """Run the proxy in front of an SMTP server; yield its port. Raises when it does not delay as asked."""
    port = free_port()
    async with python("-m", "benchmarks.latency", str(port), str(target), str(delay_ms)):
        await until(lambda: _is_open(port), what=lambda: "the proxy listens")
        greeting_s, answer_s = await smtp_times(port)
        for ways, found_s in ((4, greeting_s), (2, answer_s)):
            if not ways * delay_ms <= 1000 * found_s:
                raise RuntimeError(f"{1000 * found_s:.1f} ms for {ways} ways of {delay_ms} ms")
        yield port


async def smtp_times(port: int) -> tuple[float, float]:
    """Return the seconds from connecting to the greeting of an SMTP server, and from NOOP to its answer."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        await reader.readuntil()
        greeted = time.perf_counter()
        writer.write(b"NOOP\r\n")
        await reader.readuntil()
        return greeted - started, time.perf_counter() - greeted
    finally:
        writer.close()


async def _is_open(port: int) -> bool:
    try:
        await smtp_times(port)
    except (OSError, asyncio.IncompleteReadError):
        return False
    return True


if __name__ == "__main__":
    # Not uvloop: its timers count whole milliseconds from the beginning of a turn, and can end too early.
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1000))

"""A TCP proxy that breaks connections in every way a network can: for all of them, or for one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

HOST = "127.0.0.1"
_PART = 64 * 1024
_MOST_PARTS_UNDER_WAY = 64


@dataclass(frozen=True)
class Conditions:
    """The weather on a connection.

    `latency_s` is added each way; `bytes_per_s` is the most that passes each way. `swallows` takes bytes and
    gives nothing, without closing: a peer that is gone. `stalls` takes nothing: a network that is cut, which
    loses no byte when it is whole again. `slow_close_s` delays the news that a side has closed.
    """

    latency_s: float = 0
    bytes_per_s: float | None = None
    swallows: bool = False
    stalls: bool = False
    slow_close_s: float = 0


CALM = Conditions()


@dataclass(eq=False)
class ProxiedConnection:
    """One connection through the proxy; its own `conditions` win over the proxy's."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    conditions: Conditions | None = None
    swallowed: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        """Cut it with an RST on both sides."""
        for writer in (self.client, self.server):
            if writer is not None:
                _abort(writer)

    def black_hole(self) -> None:
        """Discard all bytes of the present connection for ever, while others work."""
        self.conditions = Conditions(swallows=True)


class FaultProxy:
    """Listens on a free port and forwards to `target` on this machine, under changing conditions."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.conditions = CALM
        self.wires: set[ProxiedConnection] = set()
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Listen; after `refuse`, on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut everything and listen no more."""
        await self.refuse()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def set(self, **changes: float | bool | None) -> None:
        """Change the conditions of all connections, present and future."""
        self._become(replace(self.conditions, **changes))  # type: ignore[arg-type]  # the fields' own types

    def black_hole(self) -> None:
        """Swallow what comes, on every connection and every new one; close nothing."""
        self.set(swallows=True)

    def half_open(self) -> int:
        """Make a black hole of each present connection, for ever; new ones work. Return how many."""
        for wire in self.wires:
            wire.black_hole()
        return len(self.wires)

    def reset_all(self) -> int:
        """Cut every present connection with an RST; new ones work. Gives how many."""
        wires = list(self.wires)
        for wire in wires:
            wire.reset()
        return len(wires)

    async def refuse(self) -> None:
        """Refuse new connections and cut the present ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.reset_all()

    async def recover(self) -> None:
        """Listen and forward again. Connections that lost bytes are cut: their streams are broken."""
        for wire in list(self.wires):
            if wire.swallowed or wire.server is None:
                wire.reset()
        self._become(CALM)
        await self.start()

    @asynccontextmanager
    async def flapping(self, *, up_s: float, down_s: float) -> AsyncIterator[None]:
        """Go down and up in turn for the length of the block; up at the end."""
        task = asyncio.create_task(self._flap(up_s, down_s))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.recover()

    async def _flap(self, up_s: float, down_s: float) -> None:
        while True:
            await self.refuse()
            await asyncio.sleep(down_s)
            await self.start()
            await asyncio.sleep(up_s)

    def _become(self, conditions: Conditions) -> None:
        self.conditions = conditions
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.accepted += 1
        wire = ProxiedConnection(writer)
        self.wires.add(wire)
        try:
            await self._serve(wire, reader)
        except (OSError, asyncio.CancelledError):
            wire.reset()
        finally:
            self.wires.discard(wire)
            self._serving.discard(task)

    async def _serve(self, wire: ProxiedConnection, reader: asyncio.StreamReader) -> None:
        if self.conditions.swallows:
            # Nobody is there behind a black hole; a connection made inside of one never comes to life.
            wire.black_hole()
            await self._swallow(wire, reader)
            return
        server_reader, wire.server = await asyncio.open_connection(HOST, self.target)
        ways = [
            asyncio.create_task(self._carry(wire, reader, wire.server)),
            asyncio.create_task(self._carry(wire, server_reader, wire.client)),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for writer in (wire.client, wire.server):
                writer.close()

    async def _swallow(self, wire: ProxiedConnection, reader: asyncio.StreamReader) -> None:
        while part := await reader.read(_PART):
            wire.swallowed += len(part)
        wire.client.close()

    async def _carry(
        self, wire: ProxiedConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Move bytes one way: one task reads and stamps them, the other writes them when they are due."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_PARTS_UNDER_WAY)
        writing = asyncio.create_task(self._write(wire, under_way, writer))
        try:
            while part := await reader.read(_PART):
                await under_way.put((time.monotonic() + self._of(wire).latency_s, part))
            await under_way.put((time.monotonic() + self._of(wire).slow_close_s, b""))
            await writing
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _write(
        self,
        wire: ProxiedConnection,
        under_way: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
    ) -> None:
        while True:
            due, part = await under_way.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            while self._of(wire).stalls:
                await self._changed.wait()
            if self._of(wire).swallows:
                wire.swallowed += len(part)
            elif part:
                await self._pace(wire, part, writer)
            else:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return

    async def _pace(self, wire: ProxiedConnection, part: bytes, writer: asyncio.StreamWriter) -> None:
        rate = self._of(wire).bytes_per_s
        step = len(part) if rate is None else max(1, int(rate / 20))
        for start in range(0, len(part), step):
            piece = part[start : start + step]
            writer.write(piece)
            await writer.drain()
            if rate is not None:
                await asyncio.sleep(len(piece) / rate)

    def _of(self, wire: ProxiedConnection) -> Conditions:
        return wire.conditions or self.conditions


def _abort(writer: asyncio.StreamWriter) -> None:
    plug = writer.get_extra_info("socket")
    if plug is not None and plug.fileno() >= 0:
        # Linger for 0 seconds: the close becomes an RST.
        with contextlib.suppress(OSError):
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport = writer.transport
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


@asynccontextmanager
async def running(target: int) -> AsyncIterator[FaultProxy]:
    """Run a proxy to `target` for the length of the block."""
    proxy = FaultProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()

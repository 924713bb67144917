"""The gateway's WebSockets on loopback, over realtime parts without servers, and clients of raw bytes."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from websockets.frames import Frame, Opcode

from chassis import asgi
from chassis.http1.limits import ConnectionLimits
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.realtime.access import Access
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.connections import Connections
from gateway.realtime.slow_clients import SlowClients
from gateway.realtime.sockets import Sockets
from gateway.realtime.wire import WebSocketWire
from support.doubles.realtime import Broker, Gateway, Rooms
from support.waiting import until

_SMALL = 4096


def masked(payload: bytes, opcode: Opcode = Opcode.TEXT, **more: Any) -> bytes:
    """Return a frame of a client."""
    return Frame(opcode, payload, **more).serialize(mask=True)


async def _nobody(_: Principal) -> None:
    return None


@dataclass
class SocketSite:
    """The sockets of one gateway, and all that they must give back."""

    gateway: Gateway = field(default_factory=lambda: Gateway(Rooms(), Broker()))
    connections: Connections = field(default_factory=lambda: Connections(_nobody))
    limit: ConnectionLimit = field(default_factory=lambda: ConnectionLimit(total=1000, per_owner=1000))
    slow_clients: SlowClients = field(default_factory=SlowClients)
    limits: ConnectionLimits = field(default_factory=lambda: ConnectionLimits(most=2000, per_address=2000))
    server: Any = None

    def __post_init__(self) -> None:
        self.gateway.callers |= {
            f"key-{number}": Access(
                Principal(number, f"User {number}", "admin", f"key-{number}", frozenset(Scope))
            )
            for number in range(1, 4)
        }

    @property
    def port(self) -> int:
        """The port of the server."""
        return int(self.server.servers[0].sockets[0].getsockname()[1])

    @property
    def wires(self) -> list[WebSocketWire]:
        """The open WebSockets, on which the kernel stores little for a client that does not read."""
        return [one for one in self.server.server_state.connections if isinstance(one, WebSocketWire)]

    @asynccontextmanager
    async def opened(self, key: str | None = None, *, path: str = "/v1/realtime") -> AsyncIterator[RawClient]:
        """Yield an upgraded client; with a `key`, its `connect` takes no token."""
        socket = sockets.socket()
        socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, _SMALL)
        socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(socket, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=socket, limit=2 * _SMALL)
        authorization = "" if key is None else f"authorization: Bearer {key}\r\n"
        writer.write(
            f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n{authorization}"
            "sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )
        try:
            # A client must wait for the answer before it sends more.
            async with asyncio.timeout(20):
                head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            yield RawClient(reader, writer)
        finally:
            writer.transport.abort()


@dataclass
class RawClient:
    """A WebSocket whose every byte is the test's own."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, payload: bytes, opcode: Opcode = Opcode.TEXT, **more: Any) -> None:
        """Write a frame."""
        self.writer.write(masked(payload, opcode, **more))

    def stop_reading(self) -> None:
        """Leave what comes from now on to the kernel."""
        transport: Any = self.writer.transport
        transport.pause_reading()

    async def read_until(self, text: bytes) -> None:
        """Read until `text` has come."""
        async with asyncio.timeout(20):
            await self.reader.readuntil(text)

    async def connect(self) -> None:
        """Connect with the credential of the upgrade."""
        self.send(orjson.dumps({"id": 1, "connect": {}}))
        await self.read_until(b'"id":1')


@asynccontextmanager
async def running(site: SocketSite | None = None) -> AsyncIterator[SocketSite]:
    """Serve the sockets of `site` on a free port."""
    site = site or SocketSite()
    # The double makes it anew each time that it is read.
    realtime = replace(site.gateway.realtime)
    application = Sockets(
        realtime=realtime,
        connections=site.connections,
        limit=site.limit,
        slow_clients=site.slow_clients,
    )
    listener = asgi.Listener(
        application, "127.0.0.1", 0, websockets=WebSocketWire, limits=site.limits, turns=realtime.turns
    )
    site.server = asgi.create_server(listener, lifespan=False, grace_s=1)
    serving = asyncio.create_task(site.server.serve())
    await until(lambda: site.server.started)
    try:
        yield site
    finally:
        site.server.should_exit = True
        await serving

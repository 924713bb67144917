"""Measure how fast a publication reaches many sockets, and what an idle socket costs.

Run `python -m benchmarks.fan_out` for what an idle socket costs as well. The gateway's sockets run without
database and broker, beside `websockets.broadcast` with the same payload; the clients are a process of their
own that only reads. The CPU time of the server for each delivery is steady on a machine that does other work.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import selectors
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from benchmarks.load import LoadResult, median
from chassis import asgi, queries
from chassis.http1.limits import ConnectionLimits
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.realtime.access import Access
from gateway.realtime.command_rate import OwnerRates
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.connections import Connections
from gateway.realtime.slow_clients import SlowClients
from gateway.realtime.sockets import Sockets
from gateway.realtime.wire import WebSocketWire
from support.doubles.realtime import Broker, Gateway, Rooms

_SILENCE_S = 30
DATA = {"symbol": "AAPL", "price": 187.44, "text": "x" * 200}
UPGRADE = (
    b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nconnection: upgrade\r\n"
    b"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
COMMANDS = ({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "chat:lobby"}})


async def run_gateway(control: Connection) -> None:
    """Serve the gateway's sockets; publish when `control` says how often."""
    queries.load("gateway")
    gateway = Gateway(Rooms(), Broker())
    gateway.callers["k"] = Access(Principal(1, "B", "admin", "k", frozenset(Scope)))
    realtime = gateway.realtime
    sockets = Sockets(
        # One owner has all the sockets.
        realtime=replace(realtime, channels=gateway.channels, owner_rates=OwnerRates(100_000)),
        connections=Connections(_nobody),
        limit=ConnectionLimit(total=10_000, per_owner=10_000),
        slow_clients=SlowClients(),
    )
    limits = ConnectionLimits(most=20_000, per_address=20_000)
    listener = asgi.Listener(
        sockets, "127.0.0.1", 0, websockets=WebSocketWire, limits=limits, turns=realtime.turns
    )
    server = asgi.create_server(listener, lifespan=False, grace_s=1)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    control.send(server.servers[0].sockets[0].getsockname()[1])

    async def publish(number: int) -> None:
        # As fast as the listeners are served: of an ordered channel nothing may be left out.
        while gateway.hub.is_behind("chat:lobby"):
            await asyncio.sleep(0)
        publication = Publication("chat:lobby", ChannelPosition("epoch-1", number), DATA)
        gateway.hub.publish(publication, is_ordered=True)

    await _obey(control, publish)
    server.should_exit = True
    await task


async def run_broadcast(control: Connection) -> None:
    """Serve with `websockets`, which broadcasts when `control` says how often."""
    connections: set[ServerConnection] = set()

    async def hold(connection: ServerConnection) -> None:
        connections.add(connection)
        with suppress(ConnectionClosed):
            async for _ in connection:
                await connection.send("{}")
        connections.discard(connection)

    async with serve(hold, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        control.send(next(iter(server.sockets)).getsockname()[1])

        async def publish(number: int) -> None:
            document = {"data": DATA, "offset": number, "time": int(time.time() * 1000), "epoch": "epoch-1"}
            text = orjson.dumps({"push": {"channel": "chat:lobby", "pub": document}}).decode()
            broadcast(connections, text)

        await _obey(control, publish)


async def _obey(control: Connection, publish: Callable[[int], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    number = 0
    while (order := await loop.run_in_executor(None, control.recv)) is not None:
        for _ in range(order):
            number += 1
            await publish(number)
            # As ticks come from the broker: each on a turn of the loop of its own.
            await asyncio.sleep(0)
        control.send((_resident_bytes(), len(asyncio.all_tasks()), time.process_time()))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def _nobody(_: Principal) -> None:
    return None


def _serve(run: Callable[[Connection], Any], control: Connection) -> None:
    uvloop.run(run(control))


@contextmanager
def serving(run: Callable[[Connection], Any]) -> Iterator[tuple[Connection, int]]:
    """Run a server in a separate process; yield the connection to it and its port."""
    ours, theirs = multiprocessing.Pipe()
    # A daemon ends with this process.
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(run, theirs), daemon=True)
    process.start()
    try:
        yield ours, ours.recv()
    finally:
        ours.send(None)
        process.join()


def connected(port: int) -> socket.socket:
    """Open a socket that is logged in and subscribed."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(UPGRADE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    for number, command in enumerate(COMMANDS, start=1):
        client.sendall(Frame(Opcode.TEXT, orjson.dumps(command)).serialize(mask=True))
        seen = b""
        while b'"id":%d' % number not in seen and b"{}" not in seen:
            seen += client.recv(4096)
    client.setblocking(False)
    return client


def deliver(clients: list[socket.socket], control: Connection, count: int) -> float:
    """Publish `count` times and return the seconds until every client has read all of it."""
    selector = selectors.DefaultSelector()
    left = dict.fromkeys(clients, count)
    for one in clients:
        selector.register(one, selectors.EVENT_READ)
    started = time.perf_counter()
    control.send(count)
    while left:
        ready = selector.select(_SILENCE_S)
        if not ready:
            raise TimeoutError(f"{len(left)} clients have waited {_SILENCE_S} s for what was published")
        for key, _ in ready:
            client: Any = key.fileobj
            left[client] -= client.recv(1 << 20).count(b'{"push"')
            if left[client] <= 0:
                del left[client]
                selector.unregister(client)
    return time.perf_counter() - started


@dataclass(frozen=True)
class Fans:
    """Deliveries a second to many sockets, and the server's CPU for each in µs."""

    gateway: LoadResult
    broadcast: LoadResult


def compare(*, sockets: int = 500, publications: int = 400, rounds: int = 3) -> Fans:
    """Measure both servers in turns. Blocks, as its clients do nothing but read."""
    _allow_files()
    loads: dict[str, list[LoadResult]] = {"gateway": [], "broadcast": []}
    for _ in range(rounds):
        for name, run in (("gateway", run_gateway), ("broadcast", run_broadcast)):
            loads[name].append(_load(run, sockets, publications))
    return Fans(median(loads["gateway"]), median(loads["broadcast"]))


def _load(run: Callable[[Connection], Any], sockets: int, publications: int) -> LoadResult:
    with serving(run) as (control, port):
        clients = [connected(port) for _ in range(sockets)]
        deliver(clients, control, publications // 4)
        *_, cpu_before = control.recv()
        elapsed_s = deliver(clients, control, publications)
        *_, cpu_after = control.recv()
        for client in clients:
            client.close()
    count = sockets * publications
    return LoadResult(count / elapsed_s, 1e6 * (cpu_after - cpu_before) / count)


def _allow_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Measure the fan-out of publications, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--publications", type=int, default=400)
    parser.add_argument("--idle", type=int, default=2000)
    options = parser.parse_args()
    fans = compare(sockets=options.sockets, publications=options.publications, rounds=1)
    for name, load in (("gateway", fans.gateway), ("websockets.broadcast", fans.broadcast)):
        print(f"{name}: {load.per_second:,.0f} deliveries/s, {load.cpu_us or 0:.1f} µs of CPU each")
    for name, run in (("gateway", run_gateway), ("websockets.broadcast", run_broadcast)):
        with serving(run) as (control, port):
            control.send(0)
            before, tasks_before, _ = control.recv()
            idle = [connected(port) for _ in range(options.idle)]
            control.send(0)
            after, tasks_after, _ = control.recv()
            each = (after - before) / options.idle / 1024
            tasks = (tasks_after - tasks_before) / options.idle
            print(f"{name}: {each:.1f} KiB and {tasks:.2f} tasks for each of {options.idle} sockets")
            for client in idle:
                client.close()


if __name__ == "__main__":
    main()

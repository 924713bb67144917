"""The proxy does to connections what its documentation says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from faults import proxy as proxies
from faults.proxy import Conditions, FaultProxy
from support.waiting import until

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_OPEN: list[asyncio.StreamWriter] = []


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """Run a server that echoes its input; yield its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(65536):
                writer.write(part)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo: int) -> AsyncIterator[FaultProxy]:
    async with proxies.running(echo) as running:
        yield running


@pytest.fixture(autouse=True)
async def closed_at_the_end() -> AsyncIterator[None]:
    yield
    while _OPEN:
        _OPEN.pop().close()


async def connect(proxy: FaultProxy) -> Peer:
    peer = await asyncio.open_connection("127.0.0.1", proxy.port)
    _OPEN.append(peer[1])
    return peer


async def ask(peer: Peer, text: bytes, *, timeout_s: float = 5) -> bytes:
    reader, writer = peer
    writer.write(text)
    await writer.drain()
    return await asyncio.wait_for(reader.readexactly(len(text)), timeout_s)


async def is_mute(peer: Peer) -> bool:
    try:
        await ask(peer, b"hello?", timeout_s=0.3)
    except TimeoutError:
        return True
    return False


async def is_cut(peer: Peer) -> bool:
    try:
        return await asyncio.wait_for(peer[0].read(1), 5) == b""
    except ConnectionError:
        return True


async def test_a_calm_proxy_passes_every_byte(proxy: FaultProxy) -> None:
    peer = await connect(proxy)
    text = bytes(range(256)) * 4000
    assert await ask(peer, text) == text


async def test_latency_is_added_each_way(proxy: FaultProxy) -> None:
    peer = await connect(proxy)
    proxy.set(latency_s=0.2)
    started = time.monotonic()
    await ask(peer, b"x")
    assert time.monotonic() - started >= 0.4


async def test_latency_does_not_reduce_bandwidth(proxy: FaultProxy) -> None:
    reader, writer = await connect(proxy)
    proxy.set(latency_s=0.2)
    started = time.monotonic()
    for _ in range(20):
        writer.write(b"x")
        await asyncio.sleep(0.01)
    await asyncio.wait_for(reader.readexactly(20), 10)
    assert time.monotonic() - started < 20 * 0.4


async def test_bandwidth_is_bounded(proxy: FaultProxy) -> None:
    peer = await connect(proxy)
    proxy.set(bytes_per_s=20_000)
    started = time.monotonic()
    await ask(peer, b"x" * 10_000)
    assert time.monotonic() - started >= 0.4


async def test_a_reset_cuts_only_the_connections_that_are_open(proxy: FaultProxy) -> None:
    old = await connect(proxy)
    await ask(old, b"x")
    assert proxy.reset_all() == 1
    assert await is_cut(old)
    assert await ask(await connect(proxy), b"y") == b"y"


async def test_a_black_hole_takes_bytes_and_closes_nothing(proxy: FaultProxy) -> None:
    old = await connect(proxy)
    await ask(old, b"x")
    proxy.black_hole()
    fresh = await connect(proxy)
    assert await is_mute(old)
    assert await is_mute(fresh)
    assert not old[0].at_eof()
    assert sum(wire.swallowed for wire in proxy.wires) == 2 * len(b"hello?")


async def test_connections_that_lost_bytes_are_cut_at_the_recovery(proxy: FaultProxy) -> None:
    hurt, silent = await connect(proxy), await connect(proxy)
    await ask(hurt, b"x")
    await ask(silent, b"x")
    proxy.black_hole()
    assert await is_mute(hurt)
    await proxy.recover()
    assert await is_cut(hurt)
    assert await ask(silent, b"y") == b"y"
    assert await ask(await connect(proxy), b"z") == b"z"


async def test_half_open_connections_stay_dead_while_new_ones_live(proxy: FaultProxy) -> None:
    old = await connect(proxy)
    await ask(old, b"x")
    assert proxy.half_open() == 1
    assert await is_mute(old)
    assert await ask(await connect(proxy), b"y") == b"y"


async def test_a_stall_loses_nothing(proxy: FaultProxy) -> None:
    peer = await connect(proxy)
    proxy.set(stalls=True)
    assert await is_mute(peer)
    await proxy.recover()
    assert await asyncio.wait_for(peer[0].readexactly(6), 5) == b"hello?"


async def test_a_refusing_port_comes_back_as_the_same(proxy: FaultProxy) -> None:
    old, port = await connect(proxy), proxy.port
    await ask(old, b"x")
    await proxy.refuse()
    assert await is_cut(old)
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    await proxy.recover()
    assert proxy.port == port
    assert await ask(await connect(proxy), b"y") == b"y"


async def test_a_slow_close_reaches_the_peer_late(proxy: FaultProxy) -> None:
    reader, writer = await connect(proxy)
    await ask((reader, writer), b"x")
    proxy.set(slow_close_s=0.2)
    started = time.monotonic()
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert time.monotonic() - started >= 0.4


async def test_one_connection_can_fail_alone(proxy: FaultProxy) -> None:
    first = await connect(proxy)
    await ask(first, b"x")
    (wire,) = proxy.wires
    second = await connect(proxy)
    await ask(second, b"x")
    wire.conditions = Conditions(swallows=True)
    assert await is_mute(first)
    assert await ask(second, b"y") == b"y"


async def test_a_flapping_proxy_refuses_and_answers_in_turn(proxy: FaultProxy) -> None:
    async with proxy.flapping(up_s=0.02, down_s=0.02):
        refused = answered = 0

        async def both() -> bool:
            nonlocal refused, answered
            try:
                peer = await connect(proxy)
            except ConnectionError:
                refused += 1
            else:
                answered += 1
                peer[1].close()
            return refused > 0 and answered > 0

        await until(both)
    assert await ask(await connect(proxy), b"x") == b"x"


async def test_closed_connections_leave_nothing_behind(proxy: FaultProxy) -> None:
    for _ in range(5):
        peer = await connect(proxy)
        await ask(peer, b"x")
        peer[1].close()
    await until(lambda: not proxy.wires)
    assert proxy.accepted == 5

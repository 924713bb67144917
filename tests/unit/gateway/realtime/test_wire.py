"""A WebSocket counts all that it holds for its client, ends what would not end, and leaves nothing."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from websockets.frames import Opcode

from chassis.loop_turns import MOST_IN_PASS
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.publishing.text_frames import text_frame
from gateway.realtime import wire as wires
from gateway.realtime.wire import WebSocketWire
from support import socket_site
from support.socket_site import RawClient, SocketSite, masked
from support.waiting import until

SLOW = (3008).to_bytes(2, "big")
POST = orjson.dumps({"id": 2, "publish": {"channel": "chat:lobby", "data": {"text": "x"}}})


@pytest.fixture(scope="module")
async def shared_site() -> AsyncIterator[SocketSite]:
    async with socket_site.running() as running:
        yield running


@pytest.fixture
async def site(shared_site: SocketSite) -> AsyncIterator[SocketSite]:
    yield shared_site
    await until(lambda: not shared_site.wires)


async def only(site: SocketSite) -> WebSocketWire:
    """Return the one open WebSocket, for which the kernel stores little."""
    wire: WebSocketWire
    [wire] = await until(lambda: site.wires)
    wire.transport.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, 4096)
    return wire


def fill(wire: WebSocketWire) -> None:
    """Write until the kernel takes no more, and a little is left over."""
    frame = text_frame(bytes(2000))
    # Nothing is written after a close.
    while not wire.transport.get_write_buffer_size() and not wire.close_sent and not wire.disconnected:
        wire.write_frame(frame)


async def filled(wire: WebSocketWire) -> int:
    """Write until a little stays left over; return how much."""
    size = 0
    while not size or size != wire.transport.get_write_buffer_size():
        fill(wire)
        size = wire.transport.get_write_buffer_size()
        await asyncio.sleep(0.02)
    return size


class Held:
    """Posts that wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, site: SocketSite) -> None:
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()
        self.posts = 0
        monkeypatch.setattr(site.gateway.chat, "post", self.wait)

    async def wait(self, *_: Any, **__: Any) -> None:
        self.posts += 1
        self.begun.set()
        await self.let_go.wait()


async def test_the_first_bytes_that_wait_in_the_transport_are_counted(site: SocketSite) -> None:
    async with site.opened("key-1") as client:
        await client.connect()
        client.stop_reading()
        wire = await only(site)
        unread = await filled(wire)
        assert site.slow_clients.total == unread < 64 * 1024
        client.send(b"p" * 100, Opcode.PING)
        # The answer to a ping waits behind them.
        await until(lambda: site.slow_clients.total == unread + 102)
    await until(lambda: site.slow_clients.total == 0)


async def test_a_closed_socket_ends_although_its_client_reads_nothing(site: SocketSite) -> None:
    async with site.opened("key-1") as client:
        await client.connect()
        client.stop_reading()
        wire = await only(site)
        await filled(wire)
        wire.close_timeout = 0
        [session] = site.connections
        session.change_access(None)
        await until(lambda: not site.wires)
    await until(lambda: not site.limit.owners)


@pytest.mark.parametrize("key", ["key-1", None])
async def test_a_message_that_is_not_completed_in_time_closes_with_3008(
    site: SocketSite, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setattr(wires, "COMPLETE_WITHIN_S", 0)
    async with site.opened(key) as client:
        client.send(b'{"id":', fin=False)
        await client.read_until(SLOW)


async def test_a_frame_that_is_not_completed_in_time_closes_with_3008(
    site: SocketSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wires, "COMPLETE_WITHIN_S", 0)
    async with site.opened("key-1") as client:
        client.writer.write(b"\x81")
        await client.read_until(SLOW)


async def test_the_time_for_a_message_does_not_pass_while_the_gateway_does_not_read(
    site: SocketSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.opened("key-1") as client:
        await client.connect()
        with monkeypatch.context() as patched:
            held = Held(patched, site)
            patched.setattr(wires, "COMPLETE_WITHIN_S", 0)
            # In one piece, so that all is read before reading pauses.
            client.writer.write(2 * masked(POST) + masked(b'{"id":3,', fin=False))
            await held.begun.wait()
            # What is due now comes before what is due later.
            await asyncio.sleep(0.001)
        wire = await only(site)
        assert site.slow_clients.total > 2 * len(POST)
        assert not wire.close_sent
        held.let_go.set()
        await client.read_until(b'"id":2')
        client.send(b'"unsubscribe":{"channel":"chat:lobby"}}', Opcode.CONT)
        await client.read_until(b'"id":3')


async def test_incomplete_messages_share_a_number_of_bytes_and_the_owner_with_the_most_gives_way(
    site: SocketSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.slow_clients, "most_bytes", 100_000)
    async with site.opened("key-1") as one, site.opened("key-1") as two, site.opened("key-2") as neighbour:
        for client, size in ((neighbour, 30_000), (one, 40_000), (two, 29_000)):
            await client.connect()
            before = site.slow_clients.total
            # A fragment, and a frame of which some bytes are missing.
            client.send(b'{"' + bytes(size // 2 - 2), fin=False)
            client.writer.write(b"\x80\xfe\x7f\xff" + bytes(4) + bytes(size // 2))
            await until(lambda: site.slow_clients.total == before + size)  # noqa: B023
        two.writer.write(bytes(2000))
        await one.read_until(SLOW)
        await until(lambda: site.slow_clients.total == 61_000)
    await until(lambda: site.slow_clients.total == 0)


async def test_messages_that_wait_for_the_one_at_work_are_counted(
    site: SocketSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, site)
    async with site.opened("key-1") as client:
        await client.connect()
        client.send(POST)
        await held.begun.wait()
        assert site.slow_clients.total == len(POST)
        held.let_go.set()
        await client.read_until(b'"id":2')
        await until(lambda: site.slow_clients.total == 0)


async def test_a_pong_that_may_wait_behind_a_command_is_not_missed(
    site: SocketSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, site)
    async with site.opened("key-1") as client:
        await client.connect()
        wire = await only(site)
        client.writer.write(2 * masked(POST))
        await held.begun.wait()
        await until(lambda: wire.read_paused)
        wire.send_keepalive_ping()
        wire.keepalive_timeout()
        assert not wire.close_sent
        held.let_go.set()
        await client.read_until(b'"id":2')
        await until(lambda: not wire.read_paused)
        assert not wire.close_sent
        wire.keepalive_timeout()
        assert wire.close_sent


@pytest.mark.parametrize("path", ["/v1/realtime", "/ws"])
async def test_a_client_that_is_gone_leaves_nothing_although_its_command_is_at_work(
    site: SocketSite, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    held, hub = Held(monkeypatch, site), site.gateway.hub
    async with site.opened("key-1", path=path) as client:
        if path == "/v1/realtime":
            await client.connect()
            client.send(b'{"id":3,"subscribe":{"channel":"chat:lobby"}}')
            await client.read_until(b'"id":3')
        wire = await only(site)
        client.writer.write(3 * masked(POST))
        await held.begun.wait()
        wire.transport.abort()
        await until(lambda: not hub.has_listeners("chat:lobby"))
        assert len(site.connections) == 1
        held.let_go.set()
        await until(lambda: not len(site.connections))
    assert held.posts == 1


async def test_what_is_published_before_the_answer_to_an_upgrade_comes_after_it(
    site: SocketSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = site.gateway.channels
    join = channels.join

    async def join_late(*arguments: Any) -> Any:
        joined = await join(*arguments)
        channels.hub.publish(Publication("chat:lobby", ChannelPosition("epoch-1", 99), {"text": "early"}))
        return joined

    monkeypatch.setattr(channels, "join", join_late)
    async with site.opened("key-1", path="/ws") as client:
        await client.read_until(b"early")


def counters(site: SocketSite) -> dict[str, Any]:
    """Return everything that connections take and must give back."""
    return {
        "waiting": site.slow_clients.total,
        "queued": REGISTRY.get_sample_value("tickwire_realtime_queued_bytes"),
        "sockets": REGISTRY.get_sample_value("tickwire_realtime_sockets", {"transport": "websocket"}) or 0,
        "places": site.limit.owners.total(),
        "connections": len(site.connections),
        "listeners": site.gateway.hub.counts(),
        "wires": len(site.wires),
    }


def _subscribe(number: int) -> bytes:
    command = {"id": number + 10, "subscribe": {"channel": f"quotes:S{number}", "join_leave": True}}
    return orjson.dumps(command)


STEPS: dict[str, Callable[[RawClient, WebSocketWire | None], None]] = {
    "connect": lambda client, _: client.send(b'{"id":1,"connect":{}}'),
    "subscribe": lambda client, _: client.send(b"\n".join(map(_subscribe, range(5)))),
    "post": lambda client, _: client.send(POST),
    "join": lambda client, _: client.send(b'{"id":3,"subscribe":{"channel":"chat:lobby"}}'),
    "begin": lambda client, _: client.send(b'{"id":4,', fin=False),
    "go on": lambda client, _: client.send(b'"presence":{"channel":"chat:lobby"}', Opcode.CONT, fin=False),
    "complete": lambda client, _: client.send(b"}", Opcode.CONT),
    "half": lambda client, _: client.writer.write(b"\x81\xfe\x20\x00" + bytes(3000)),
    "ping": lambda client, _: client.send(b"p" * 100, Opcode.PING),
    "pong": lambda client, _: client.send(b"{}"),
    "nonsense": lambda client, _: client.send(b"nonsense"),
    "broken": lambda client, _: client.writer.write(b"\xff\xff"),
    "say goodbye": lambda client, _: client.send(b"\x03\xe8", Opcode.CLOSE),
    "abort": lambda client, _: client.writer.transport.abort(),
    "fill": lambda _, wire: None if wire is None or wire.transport.is_closing() else fill(wire),
    "shut down": lambda _, wire: None if wire is None else wire.shutdown(),
    "wait": lambda *_: None,
}


@settings(max_examples=40, suppress_health_check=[*HealthCheck], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(sorted(STEPS))), max_size=25))
async def test_whatever_order_frames_and_closes_come_in_nothing_is_left_behind(
    shared_site: SocketSite, steps: list[tuple[int, str]]
) -> None:
    await until(lambda: not shared_site.wires)
    before = counters(shared_site)
    async with (
        shared_site.opened("key-1") as one,
        shared_site.opened("key-1") as two,
        shared_site.opened("key-2") as three,
    ):
        for number, name in steps:
            wire = next(iter(shared_site.wires), None)
            STEPS[name]((one, two, three)[number], wire)
            if name == "wait":
                await asyncio.sleep(0.002)
    await until(lambda: counters(shared_site) == before, what=lambda: str(counters(shared_site)))


def hold_up(site: SocketSite) -> None:
    """Let another owner take the turns of very many passes of the loop."""
    site.gateway.turns.run("another", lambda: None, weight=5000 * MOST_IN_PASS)


async def something_waits(site: SocketSite) -> None:
    """Wait until something waits for its turn, which it may do for less than a look of `until`."""
    async with asyncio.timeout(20):
        while not site.gateway.turns.waiting:
            await asyncio.sleep(0)


async def test_frames_that_came_together_are_parsed_in_a_turn_of_their_owner(site: SocketSite) -> None:
    async with site.opened("key-1") as client:
        await client.connect()
        wire = await only(site)
        hold_up(site)
        client.writer.write(
            b"".join(masked(b'{"id":%d,"unsubscribe":{"channel":"alerts"}}' % n) for n in (2, 3, 4))
        )
        await something_waits(site)
        # They are counted, and nothing more is read before.
        assert wire.read_paused
        assert site.slow_clients.total > 3 * 40
        await client.read_until(b'"id":4')
    await until(lambda: site.slow_clients.total == 0)


@pytest.mark.parametrize(
    "frames",
    [masked(b"", Opcode.PING) * 2, masked(b'{"id":2,', fin=False) + masked(b" ", Opcode.CONT, fin=False)],
    # A mask is random, and would make another name in each process.
    ids=["pings", "fragments"],
)
async def test_a_connection_is_read_on_after_frames_that_are_no_whole_message(
    site: SocketSite, frames: bytes
) -> None:
    async with site.opened("key-1") as client:
        await client.connect()
        hold_up(site)
        client.writer.write(frames)
        await something_waits(site)
        rest = b'"unsubscribe":{"channel":"alerts"}}'
        if frames[0] & 0x0F == Opcode.TEXT:
            client.send(rest, Opcode.CONT)
        else:
            client.send(b'{"id":2,' + rest)
        await client.read_until(b'"id":2')


async def test_a_connection_that_ends_before_its_turn_leaves_nothing(site: SocketSite) -> None:
    async with site.opened("key-1") as client:
        await client.connect()
        hold_up(site)
        client.writer.write(masked(POST) * 3)
        await something_waits(site)
    await until(lambda: not site.wires and not site.gateway.turns.waiting)
    assert (site.slow_clients.total, site.gateway.hub.counts()) == (0, {})

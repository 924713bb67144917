"""The turns of the shared loop that a connection takes."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from chassis.http1.admission import Admission
from chassis.http1.connection import HttpConnection
from chassis.http1.limits import CHUNKS_A_TURN, USUAL_BYTES, ConnectionLimits
from chassis.loop_turns import MOST_IN_PASS, LoopTurns

MANY = ConnectionLimits(most=2000, per_address=2000)


class RecordingLoop:
    """The running loop, with a count of the calls that are scheduled on it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.scheduled = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_soon(self, callback: Any, *arguments: Any) -> asyncio.Handle:
        self.scheduled += 1
        return self._loop.call_soon(callback, *arguments)


class PeerTransport(asyncio.Transport):
    """A transport whose peer takes everything."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__({"peername": [address, 1], "sockname": ["127.0.0.1", 2]})
        self.reading: list[str] = []
        self.written = b""
        self.unsent = 0
        self.ended: list[str] = []

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading.append("paused")

    def resume_reading(self) -> None:
        self.reading.append("resumed")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def close(self) -> None:
        self.ended.append("closed")

    def abort(self) -> None:
        self.ended.append("aborted")

    def write_eof(self) -> None:
        return


class Upgraded(asyncio.Protocol):
    """Counts the connections that it took over."""

    count = 0

    def __init__(self, **_: Any) -> None:
        Upgraded.count += 1


async def read(scope: Any, receive: Any, send: Any) -> None:
    size, has_more = 0, True
    while has_more:
        message = await receive()
        size, has_more = size + len(message["body"]), message["more_body"]
    length = [(b"content-length", b"%d" % len(str(size)))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": str(size).encode()})


async def test_however_many_segments_come_one_turn_is_scheduled_for_their_chunks() -> None:
    config = uvicorn.Config(read, log_config=None)
    config.load()
    loop, wire = RecordingLoop(), PeerTransport()
    limits = Admission(ConnectionLimits())
    connection = HttpConnection(config, ServerState(), {}, loop, admission=limits)  # type: ignore[arg-type]
    connection.connection_made(wire)
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(40):
        connection.data_received(b"1\r\na\r\n" * CHUNKS_A_TURN)
    assert loop.scheduled == 1
    assert wire.reading == ["paused"]
    connection.data_received(b"0\r\n\r\n")
    while b"\r\n\r\n" not in wire.written:
        await asyncio.sleep(0)
    assert wire.written.endswith(b"\r\n\r\n%d" % (40 * CHUNKS_A_TURN))
    assert loop.scheduled > 40
    assert wire.reading == ["paused", "resumed"]
    connection.connection_lost(None)


@pytest.mark.parametrize(("unsent", "ended"), [(0, "closed"), (1, "aborted")])
async def test_one_that_gives_way_is_gone_at_once_though_its_client_does_not_read(
    unsent: int, ended: str
) -> None:
    config = uvicorn.Config(read, log_config=None)
    config.load()
    limits = Admission(ConnectionLimits(most=8, per_address=4, unauthenticated_share=0.25))
    wires = [PeerTransport(), PeerTransport()]
    wires[0].unsent = unsent
    for wire in wires:
        HttpConnection(config, ServerState(), {}, admission=limits).connection_made(wire)
    assert [wire.ended for wire in wires] == [[ended], []]


async def test_a_request_waits_until_the_answer_before_it_is_taken() -> None:
    begun: list[str] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    config, wire = uvicorn.Config(answer, log_config=None), PeerTransport()
    config.load()
    connection = HttpConnection(config, ServerState(), {}, admission=Admission(ConnectionLimits()))
    connection.connection_made(wire)
    wire.unsent = 1
    connection.pause_writing()
    connection.data_received(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
    await turns()
    assert begun == []
    wire.unsent = 0
    connection.resume_writing()
    await turns()
    assert begun == ["/late"]
    connection.connection_lost(None)


GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


async def test_owners_take_turns_at_heads_that_arrive_together() -> None:
    begun: list[str] = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        await read(scope, receive, send)

    config, admission = uvicorn.Config(note, log_config=None), Admission(MANY)
    config.load()
    connections = []
    for address in ["192.0.2.1"] * 200 + ["192.0.2.2"]:
        connection = HttpConnection(config, ServerState(), {}, admission=admission)
        connection.connection_made(PeerTransport(address))
        connection.data_received(GET % (b"neighbour" if address == "192.0.2.2" else b"many"))
        connections.append(connection)
    largest = 0
    while len(begun) < len(connections):
        before = len(begun)
        await asyncio.sleep(0)
        largest = max(largest, len(begun) - before)
    assert largest <= MOST_IN_PASS // 5
    # In the first pass after those that were read as they came.
    assert begun.index("/neighbour") <= MOST_IN_PASS // 5 + 1
    for connection in connections:
        connection.connection_lost(None)


async def test_only_a_few_upgrades_are_made_in_a_pass() -> None:
    config, Upgraded.count = uvicorn.Config(read, log_config=None), 0
    config.load()
    config.ws_protocol_class = Upgraded
    admission = Admission(MANY)
    connections = [HttpConnection(config, ServerState(), {}, admission=admission) for _ in range(100)]
    for connection in connections:
        connection.connection_made(PeerTransport())
        connection.data_received(UPGRADE)
    largest = Upgraded.count
    while Upgraded.count < len(connections):
        before = Upgraded.count
        await asyncio.sleep(0)
        largest = max(largest, Upgraded.count - before)
    assert largest <= MOST_IN_PASS // 30 + 1
    for connection in connections:
        connection.connection_lost(None)


async def test_a_request_that_waits_for_its_turn_at_a_stop_is_answered() -> None:
    config, wire, turns = uvicorn.Config(read, log_config=None), PeerTransport(), LoopTurns()
    config.load()
    connection = HttpConnection(config, ServerState(), {}, admission=Admission(MANY, turns))
    connection.connection_made(wire)
    turns.charge(3 * MOST_IN_PASS)
    connection.data_received(GET % b"")
    connection.shutdown()
    assert wire.ended == []
    while not wire.ended:
        await asyncio.sleep(0)
    assert wire.written.startswith(b"HTTP/1.1 200 ")
    connection.connection_lost(None)


async def test_a_request_that_waits_for_its_turn_does_not_give_way_to_a_newer_client() -> None:
    config, turns = uvicorn.Config(read, log_config=None), LoopTurns()
    config.load()
    admission = Admission(ConnectionLimits(most=8, per_address=8, unauthenticated_share=0.25), turns)
    wires = [PeerTransport() for _ in range(3)]
    connections = [HttpConnection(config, ServerState(), {}, admission=admission) for _ in wires]
    turns.charge(3 * MOST_IN_PASS)
    for connection, wire, head in zip(connections, wires, (GET % b"", GET[:10], b""), strict=True):
        connection.connection_made(wire)
        connection.data_received(head)
    assert [wire.ended for wire in wires] == [[], ["closed"], []]
    while turns.waiting or not wires[0].written:
        await asyncio.sleep(0)
    assert wires[0].written.startswith(b"HTTP/1.1 200 ")
    for connection in connections:
        connection.connection_lost(None)


async def test_a_body_that_waits_for_its_turn_does_not_give_way_to_a_newer_client() -> None:
    config, wire = uvicorn.Config(read, log_config=None), PeerTransport()
    config.load()
    connection = HttpConnection(config, ServerState(), {}, admission=Admission(MANY))
    connection.connection_made(wire)
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    await asyncio.sleep(0)
    connection.data_received(b"1\r\na\r\n" * (CHUNKS_A_TURN + 1) + b"0\r\n\r\n")
    assert not connection.give_way()
    while not wire.written:
        await asyncio.sleep(0)
    assert wire.written.endswith(b"\r\n\r\n%d" % (CHUNKS_A_TURN + 1))
    connection.connection_lost(None)


@pytest.mark.parametrize(
    ("head", "status"), [(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200), (b"GET / HT", 408)]
)
async def test_a_head_that_came_in_time_is_read_after_its_deadline(head: bytes, status: int) -> None:
    config, wire, turns = uvicorn.Config(read, log_config=None), PeerTransport(), LoopTurns()
    config.load()
    connection = HttpConnection(config, ServerState(), {}, admission=Admission(MANY, turns))
    connection.connection_made(wire)
    turns.charge(3 * MOST_IN_PASS)
    connection.data_received(head)
    too_late = asyncio.get_running_loop().time() + MANY.head_s
    connection.enforce_deadlines(too_late)
    assert wire.written == b""
    await asyncio.sleep(0)
    connection.enforce_deadlines(too_late)
    while not wire.written:
        await asyncio.sleep(0)
    assert wire.written.startswith(b"HTTP/1.1 %d " % status)
    connection.connection_lost(None)


async def test_waiting_heads_are_counted_and_that_of_a_closed_connection_is_not_read() -> None:
    config, wire, turns = uvicorn.Config(read, log_config=None), PeerTransport(), LoopTurns()
    config.load()
    admission = Admission(MANY, turns)
    connection = HttpConnection(config, ServerState(), {}, admission=admission)
    connection.connection_made(wire)
    turns.charge(MOST_IN_PASS)
    connection.data_received(GET % b"")
    connection.data_received(b"x" * USUAL_BYTES)
    assert admission.held_bytes.total > USUAL_BYTES
    connection.connection_lost(None)
    while turns.waiting:
        await asyncio.sleep(0)
    assert (wire.written, admission.held_bytes.total) == (b"", 0)


async def test_one_that_is_closing_gives_up_its_bytes_without_another_answer() -> None:
    config, wire = uvicorn.Config(read, log_config=None), PeerTransport()
    config.load()
    connection = HttpConnection(config, ServerState(), {}, admission=Admission(ConnectionLimits()))
    connection.connection_made(wire)
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    answer = wire.written
    assert answer.startswith(b"HTTP/1.1 400 ")
    connection.let_go()
    assert (wire.written, wire.ended) == (answer, ["aborted"])
    connection.connection_lost(None)


async def test_of_very_many_requests_whose_clients_leave_at_once_few_are_told_in_each_pass() -> None:
    begun = ended = 0

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        nonlocal begun, ended
        begun += 1
        while (await receive())["type"] != "http.disconnect":
            continue
        ended += 1

    config, admission = uvicorn.Config(wait, log_config=None), Admission(MANY)
    config.load()
    connections = [HttpConnection(config, ServerState(), {}, admission=admission) for _ in range(100)]
    for connection in connections:
        connection.connection_made(PeerTransport())
        connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while begun < len(connections) or admission.turns.waiting:
        await asyncio.sleep(0)
    for connection in connections:
        connection.connection_lost(None)
    told = [ended]
    while ended < len(connections):
        await asyncio.sleep(0)
        told.append(ended)
    assert max(after - before for before, after in pairwise(told)) <= 10

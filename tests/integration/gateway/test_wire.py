"""Abuse of the WebSocket protocol closes the connection with its code, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import orjson
import pytest
from websockets.frames import Frame, Opcode

from gateway.publishing.text_frames import text_frame
from gateway.realtime.session import ClientSession
from support.gateway_stack import OpenTalk, RunningGateway
from support.waiting import until

UPGRADE = {
    "host": "x",
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}
CONNECT = b'{"id":1,"connect":{}}'
IS_WAITED_FOR = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"


class RawSocket:
    """A WebSocket whose every byte is the test's own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, payload: bytes, opcode: Opcode = Opcode.TEXT, **more: Any) -> None:
        self.writer.write(Frame(opcode, payload, **more).serialize(mask=True))
        await self.writer.drain()

    async def flood(self, data: bytes) -> None:
        """Send until the other side has enough."""
        try:
            for _ in range(2000):
                self.writer.write(data)
                await self.writer.drain()
        except OSError:
            return

    async def close_code(self) -> int | None:
        """Return the code with which the gateway closes; None when it closes without a word."""
        data = b""
        async with asyncio.timeout(20):
            try:
                while more := await self.reader.read(65_536):
                    data += more
            except OSError:
                pass
        position = 0
        while position + 2 <= len(data):
            length, header = data[position + 1], 2
            if length == 126:
                length, header = int.from_bytes(data[position + 2 : position + 4], "big"), 4
            if data[position] == 0x88:
                return int.from_bytes(data[position + header : position + header + 2], "big")
            position += header + length
        return None


@asynccontextmanager
async def raw(listener: RunningGateway, changes: dict[str, str | None]) -> AsyncIterator[RawSocket]:
    host, port = listener.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = {**UPGRADE, **changes}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    writer.write(("\r\n".join(["GET /v1/realtime HTTP/1.1", *lines]) + "\r\n\r\n").encode())
    try:
        yield RawSocket(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def opened(listener: RunningGateway, *, key: str | None = None) -> AsyncIterator[RawSocket]:
    credentials: dict[str, str | None] = {} if key is None else {"authorization": f"Bearer {key}"}
    async with raw(listener, credentials) as socket:
        assert b" 101 " in await socket.reader.readuntil(b"\r\n\r\n")
        if key is not None:
            await socket.send(CONNECT)
        yield socket


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Frame(Opcode.TEXT, b"\xff\xfe\xfd").serialize(mask=True), 1007),
        (Frame(Opcode.TEXT, CONNECT).serialize(mask=False), 1002),
        (b"\xc1" + Frame(Opcode.TEXT, CONNECT).serialize(mask=True)[1:], 1002),
        (Frame(Opcode.CONT, b"x").serialize(mask=True), 1002),
        (Frame(Opcode.TEXT, b"x" * 70_000).serialize(mask=True), 1009),
        (
            Frame(Opcode.TEXT, b"x" * 40_000, fin=False).serialize(mask=True)
            + Frame(Opcode.CONT, b"x" * 40_000).serialize(mask=True),
            1009,
        ),
        (b"\x81\xff" + b"\x7f" + b"\xff" * 7 + bytes(4), 1009),
        (b"\x83\x80" + bytes(4), 1002),
        (b"\x89\xfe\x00\x7e" + bytes(4) + b"x" * 126, 1002),
        (b"\x81\xfe\x00\x05" + bytes(4) + b"hello", 1002),
        (b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\xff" + bytes(4) + b"x" * 255, 1002),
    ],
    ids=[
        *("utf-8", "unmasked", "rsv1", "no start", "too big", "fragments", "length", "opcode", "long ping"),
        *("short in two bytes", "short in eight bytes"),
    ],
)
async def test_a_broken_frame_closes_with_the_code_that_says_why(
    listener: RunningGateway, data: bytes, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(listener, key=listener.admin_key) as socket:
        socket.writer.write(data)
        assert await socket.close_code() == code
    assert "Traceback" not in capsys.readouterr().err


def masked(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=True)


FLOODS: dict[str, tuple[bytes, bytes]] = {
    "empty continuations": (masked(Opcode.TEXT, fin=False), masked(Opcode.CONT, fin=False)),
    "fragments of a byte": (masked(Opcode.TEXT, fin=False), masked(Opcode.CONT, b"x", fin=False)),
    "pings": (b"", masked(Opcode.PING, b"p" * 100)),
    "pongs": (b"", masked(Opcode.PONG)),
    "empty messages of no kind": (b"", masked(Opcode.TEXT, b"{}")),
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("is_known", [False, True])
async def test_a_flood_of_frames_closes_with_1008_and_others_are_answered_meanwhile(
    listener: RunningGateway, talk: OpenTalk, flood: str, is_known: bool
) -> None:
    first, frame = FLOODS[flood]
    async with (
        talk(listener) as neighbour,
        opened(listener, key=listener.admin_key if is_known else None) as socket,
    ):
        socket.writer.write(first)
        flooding = asyncio.create_task(socket.flood(frame * 5000))
        answers = [await neighbour.ask(unsubscribe={"channel": "chat:lobby"}) for _ in range(50)]
        code = await socket.close_code()
        flooding.cancel()
    assert code in ((1008,) if is_known or "kind" not in flood else (1008, 3501))
    assert answers == [{}] * 50


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"sec-websocket-key": None}, 400),
        ({"sec-websocket-key": "short"}, 400),
        ({"sec-websocket-version": "12"}, 426),
        ({"sec-websocket-version": None}, 426),
        ({"x-longer-than-a-line-may-be": "x" * 9000}, 431),
    ],
)
async def test_a_handshake_that_is_not_valid_is_a_problem(
    listener: RunningGateway, changes: dict[str, str | None], status: int
) -> None:
    async with raw(listener, changes) as socket:
        head = (await socket.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith(f"http/1.1 {status} ")
        assert "content-type: application/problem+json" in head
        document = orjson.loads(await socket.reader.read())
    assert document["status"] == status
    assert f"x-request-id: {document['instance']}" in head


async def test_a_client_that_closes_while_its_command_waits_can_be_closed_again(
    listener: RunningGateway,
) -> None:
    connections = listener.gateway.resources.connections
    before, room = set(connections), f"room-{uuid4().hex[:8]}"
    await listener.api.post("/v1/rooms", json={"name": room})
    post = orjson.dumps({"id": 2, "publish": {"channel": f"chat:{room}", "data": {"text": "x"}}})
    async with (
        opened(listener, key=listener.admin_key) as socket,
        listener.database.acquire() as connection,
        connection.transaction(),
    ):
        await connection.execute("SELECT 1 FROM rooms WHERE name = $1 FOR UPDATE", room)
        await socket.reader.readuntil(b"connect")
        [session] = set(connections) - before
        assert isinstance(session, ClientSession)
        # The close frame cannot leave behind so much that the client does not read.
        session.queue.put(text_frame(bytes(16 << 20)))
        closing = Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)
        socket.writer.write(Frame(Opcode.TEXT, post).serialize(mask=True) + closing)
        await until(lambda: connection.fetchval(IS_WAITED_FOR))
        session.change_access(None)
    async with asyncio.timeout(10):
        while len(connections) > len(before):
            await asyncio.sleep(0.01)


async def test_a_client_that_is_cut_off_in_a_fragment_leaves_nothing(listener: RunningGateway) -> None:
    connections = listener.gateway.resources.connections
    before = len(connections)
    async with opened(listener, key=listener.admin_key) as socket:
        await socket.send(b"{", fin=False)
    async with asyncio.timeout(10):
        while len(connections) > before:
            await asyncio.sleep(0.01)


async def test_random_bytes_never_hurt_the_listener(
    listener: RunningGateway, talk: OpenTalk, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(50):
        async with opened(listener, key=listener.admin_key) as socket:
            socket.writer.write(os.urandom(2000))
            socket.writer.write_eof()
            await socket.close_code()
    async with talk(listener) as client:
        assert await client.ask(unsubscribe={"channel": "chat:lobby"}) == {}
    assert "Traceback" not in capsys.readouterr().err

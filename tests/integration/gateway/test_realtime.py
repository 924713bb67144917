"""`/v1/realtime` over real WebSockets: pushes, slow readers, and how a connection ends."""

from __future__ import annotations

import asyncio
import socket as sockets
from dataclasses import replace
from typing import Any
from uuid import uuid4

import orjson
import pytest

from chassis.broker.envelope import Outgoing
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.realtime.wire import WebSocketWire
from support.gateway_stack import Connect, House, OpenTalk, RunningGateway
from support.pushes import bars, progress, ticks
from support.waiting import until

ROOT = Principal(1, "Root", "admin", "k", frozenset(Scope))
LONG = {"text": "x" * 4000, "more": "y" * 12_000}


async def new_room(listener: RunningGateway) -> str:
    name = f"room-{uuid4().hex[:8]}"
    await listener.api.post("/v1/rooms", json={"name": name})
    return name


async def test_quotes_are_conflated_and_chat_is_not(
    listener: RunningGateway, house: House, talk: OpenTalk
) -> None:
    room, symbol = await new_room(listener), f"Q{uuid4().hex[:6].upper()}"
    await house.publish([ticks(symbol, 1)])
    await until(lambda: listener.gateway.resources.book.last(symbol))
    async with talk(listener) as client:
        conflated = {"channel": f"quotes:{symbol.lower()}", "data": {"conflate_ms": 300}}
        joined = await client.ask(subscribe=conflated)
        assert joined["publications"][0]["data"]["price"] == 1
        await client.ask(subscribe={"channel": f"chat:{room}"})
        await house.publish([ticks(symbol, *range(2, 102))])
        for number in range(10):
            await client.ask(publish={"channel": f"chat:{room}", "data": {"text": str(number)}})
        pushes: list[dict[str, Any]] = []
        while not pushes or pushes[-1]["channel"].startswith("chat") or pushes[-1]["offset"] < 101:
            pushes.append(await client.push())
        while sum(push["channel"].startswith("chat") for push in pushes) < 10:
            pushes.append(await client.push())
    chat = [push for push in pushes if push["channel"] == f"chat:{room}"]
    quotes = [push for push in pushes if push["channel"] == f"quotes:{symbol}"]
    assert [push["data"]["text"] for push in chat] == [str(number) for number in range(10)]
    assert len(quotes) <= 3
    assert sum(1 + int(push.get("tags", {}).get("skipped", 0)) for push in quotes) == 100
    assert quotes[-1]["data"]["price"] == 101


class DeafClient:
    """A client that connects and subscribes, and then reads nothing until it is asked to."""

    def __init__(self, listener: RunningGateway, room: str) -> None:
        self._listener, self._room = listener, room
        self.received = b""

    async def __aenter__(self) -> DeafClient:
        host, port = self._listener.url.removeprefix("http://").split(":")
        socket = sockets.socket()
        socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(socket, (host, int(port)))
        self.reader, self.writer = await asyncio.open_connection(sock=socket, limit=2048)
        self.writer.write(
            f"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._listener.admin_key}\r\n"
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )
        assert b" 101 " in await self.reader.readuntil(b"\r\n\r\n")
        await self._say({"id": 1, "connect": {}})
        await self._say({"id": 2, "subscribe": {"channel": f"chat:{self._room}"}})
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def _say(self, command: dict[str, Any]) -> None:
        text = orjson.dumps(command)
        assert len(text) < 126
        # Masked with zeros, which leaves the text as it is.
        self.writer.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        await self.writer.drain()

    async def read_to_the_end(self) -> None:
        while data := await asyncio.wait_for(self.reader.read(65_536), 20):
            self.received += data


async def test_a_slow_reader_is_closed_with_3008_and_others_are_not(house: House, talk: OpenTalk) -> None:
    listener = await house.open(socket_buffer_bytes=65_536)
    room = await new_room(listener)
    hub = listener.gateway.resources.hub
    async with DeafClient(listener, room) as mute, talk(listener) as healthy:
        await healthy.ask(subscribe={"channel": f"chat:{room}"})
        await until(lambda: hub.counts().get(f"chat:{room}") == 2)
        count = 0
        while hub.counts().get(f"chat:{room}") == 2:
            count += 1
            assert count < 2000
            await listener.gateway.resources.chat.post(room, ROOT, LONG)
            assert (await healthy.push())["offset"] == count
        await mute.read_to_the_end()
    assert (3008).to_bytes(2, "big") + b"The client reads too slowly" in mute.received


async def test_slow_readers_together_are_bounded_and_the_one_with_the_most_is_cut_off(
    listener: RunningGateway, talk: OpenTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, hub = listener.gateway.resources.slow_clients, listener.gateway.resources.hub
    monkeypatch.setattr(slow, "most_bytes", 200_000)
    room = await new_room(listener)
    async with DeafClient(listener, room), DeafClient(listener, room), talk(listener) as healthy:
        await healthy.ask(subscribe={"channel": f"chat:{room}"})
        await until(lambda: hub.counts().get(f"chat:{room}") == 3)
        count = 0
        # Long before one of them has a megabyte of its own.
        while hub.counts().get(f"chat:{room}") == 3:
            count += 1
            assert count < 2000
            await listener.gateway.resources.chat.post(room, ROOT, LONG)
            assert (await healthy.push())["offset"] == count
            assert slow.total <= 200_000
        assert 0 < slow.total < 175_000
    await until(lambda: slow.total == 0)


async def test_a_reader_that_never_reads_is_cut_off(
    house: House, talk: OpenTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WebSocketWire, "patience_s", 0.5)
    listener = await house.open(socket_buffer_bytes=65_536)
    room = await new_room(listener)
    hub = listener.gateway.resources.hub
    async with DeafClient(listener, room), talk(listener):
        await until(lambda: hub.has_listeners(f"chat:{room}"))
        while hub.has_listeners(f"chat:{room}"):
            await listener.gateway.resources.chat.post(room, ROOT, LONG)
        connections = listener.server.server_state.connections
        await until(lambda: sum(isinstance(one, WebSocketWire) for one in connections) == 1)


async def test_a_connection_that_ends_leaves_nothing(
    listener: RunningGateway, connect: Connect, talk: OpenTalk
) -> None:
    room = await new_room(listener)
    hub = listener.gateway.resources.hub
    async with talk(listener) as client:
        await client.ask(subscribe={"channel": f"chat:{room}"})
        assert hub.has_listeners(f"chat:{room}")
    await until(lambda: not hub.has_listeners(f"chat:{room}"))
    async with connect(listener, "/v1/realtime") as socket:
        await socket.send('{"id":1,"connect":{}}')
        await socket.send(orjson.dumps({"id": 2, "subscribe": {"channel": f"chat:{room}"}}).decode())
        await socket.recv()
        await socket.recv()
        socket.transport.abort()
        await until(lambda: not hub.has_listeners(f"chat:{room}"))


async def test_a_subscription_whose_service_is_down_is_a_temporary_error_that_names_it(
    listener: RunningGateway, talk: OpenTalk
) -> None:
    async with talk(listener) as client:
        answer = await client.ask(subscribe={"channel": "quotes:NEVER"})
        assert (answer["code"], answer["temporary"]) == (100, True)
        assert "stocks.get-quotes.v1" in answer["message"]
        answer = await client.ask(subscribe={"channel": f"batch:{uuid4()}"})
        assert (answer["code"], answer["temporary"]) == (100, True)
        assert await client.ask(unsubscribe={"channel": "chat:lobby"}) == {}


async def test_a_batch_is_followed_by_its_owner(
    listener: RunningGateway, house: House, talk: OpenTalk
) -> None:
    id_ = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    async with talk(listener) as client:
        joined = await client.ask(subscribe={"channel": f"batch:{id_.upper()}"})
        assert joined["publications"][0]["data"]["status"] == "queued"
        await house.publish([progress(id_, 1, "running")])
        push = await client.push()
        assert (push["channel"], push["data"]["status"]) == (f"batch:{id_}", "running")
    async with talk(listener, await listener.new_key("batches:read")) as stranger:
        assert (await stranger.ask(subscribe={"channel": f"batch:{id_}"}))["code"] == 102


async def test_invalid_live_messages_are_skipped(
    listener: RunningGateway, house: House, talk: OpenTalk
) -> None:
    symbol = f"Z{uuid4().hex[:6].upper()}"
    for message_type, key in (
        ("stocks.ticked.v1", "quotes"),
        ("batch.progressed.v1", "batch.x"),
        ("gateway.chat-posted.v1", "chat"),
    ):
        for body in (
            b"",
            b"nonsense",
            b"[]",
            b"{}",
            b'{"quotes":[{"symbol":"A","stream":null}]}',
            b'{"batch":null}',
            b"\xff",
        ):
            await house.publish([Outgoing("live", key, body, message_type, "x", persistent=False)])
    await house.publish([ticks(symbol, 1)])
    await until(lambda: listener.gateway.resources.book.last(symbol))


async def test_a_broken_element_of_a_live_message_does_not_affect_the_others(
    listener: RunningGateway, house: House
) -> None:
    symbol = f"Y{uuid4().hex[:6].upper()}"
    for message, name in ((ticks(symbol, 1), "quotes"), (bars(symbol, 1), "bars")):
        broken: list[Any] = [None, 5, {}, {"symbol": []}, {"symbol": symbol, "stream": {"epoch": "e"}}]
        body = orjson.dumps({name: [*broken, *orjson.loads(message.body)[name]]})
        await house.publish([replace(message, body=body)])
    await until(lambda: listener.gateway.resources.book.last(symbol))
    await until(lambda: listener.gateway.resources.channels.bars.now(symbol))


async def test_an_operation_that_only_reads_is_called_over_the_socket(
    listener: RunningGateway, talk: OpenTalk
) -> None:
    async with talk(listener) as client:
        rooms = (await client.ask(rpc={"method": "listRooms", "data": {"limit": 1}}))["data"]
        assert len(rooms["data"]) == 1
        refused = await client.ask(rpc={"method": "listRooms", "data": {"limit": 0}})
        assert (refused["code"], refused["message"]) == (
            107,
            "bad request: /limit: must be greater than or equal to 1",
        )
        assert (await client.ask(rpc={"method": "listRooms", "data": {"moon": 1}}))["code"] == 107
        assert (await client.ask(rpc={"method": "createRoom", "data": {"name": "x"}}))["code"] == 104
        assert (await client.ask(rpc={"method": "streamQuotes", "data": {"symbols": "A"}}))["code"] == 104
    async with talk(listener, await listener.new_key("quotes:read")) as client:
        assert (await client.ask(rpc={"method": "listRooms"}))["code"] == 103

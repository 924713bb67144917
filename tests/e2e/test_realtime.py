"""Quotes, chat and batch progress that are pushed over a real WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from native.stack import Stack


class StackTalk:
    """One connection that speaks the protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.pushes: list[dict[str, Any]] = []

    async def ask(self, **command: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send(orjson.dumps({"id": self._number, **command}).decode())
        while True:
            frame = await self._frame()
            if frame.get("id") == self._number:
                return frame
            self.pushes.append(frame)

    async def push(self) -> dict[str, Any]:
        """Return the next publication, with its channel."""
        while True:
            frame = self.pushes.pop(0) if self.pushes else await self._frame()
            if "push" in frame:
                return {"channel": frame["push"]["channel"], **frame["push"]["pub"]}

    async def _frame(self) -> dict[str, Any]:
        async with asyncio.timeout(15):
            return dict(orjson.loads(await self._socket.recv()))


@asynccontextmanager
async def talk(stack: Stack, url: str | None = None) -> AsyncIterator[StackTalk]:
    address = (url or stack.url).replace("http", "ws") + "/v1/realtime"
    async with websockets.connect(address) as socket:
        yield StackTalk(socket)


async def test_quotes_are_pushed_to_a_subscriber(stack: Stack) -> None:
    async with talk(stack) as client:
        connected = await client.ask(connect={"token": stack.api_key})
        assert connected["connect"]["ping"] == 25
        joined = (await client.ask(subscribe={"channel": "quotes:AAPL"}))["subscribe"]
        assert joined["publications"][0]["data"]["symbol"] == "AAPL"
        offsets = [(await client.push())["offset"] for _ in range(3)]
        assert offsets == sorted(set(offsets))
        assert offsets[0] > joined["offset"]


async def test_conflated_quotes_say_how_many_were_skipped(stack: Stack) -> None:
    async with talk(stack) as client:
        await client.ask(connect={"token": stack.api_key})
        await client.ask(subscribe={"channel": "quotes:IBM", "data": {"conflate_ms": 2000}})
        last = await client.push()
        while "tags" not in last:
            following = await client.push()
            skipped = int(following.get("tags", {}).get("skipped", 0))
            assert following["offset"] - last["offset"] == skipped + 1
            last = following


async def test_chat_crosses_gateways_in_order_and_is_recovered(stack: Stack, api: httpx.AsyncClient) -> None:
    room = f"r{uuid4().hex[:8]}"
    assert (await api.post("/v1/rooms", json={"name": room})).status_code == 201
    name, ports = await stack.add_replica("gateway")
    channel = f"chat:{room}"
    async with talk(stack) as ann, talk(stack, f"http://127.0.0.1:{ports.gateway}") as bob:
        for client in (ann, bob):
            await client.ask(connect={"token": stack.api_key})
        joined = (await bob.ask(subscribe={"channel": channel}))["subscribe"]
        await ann.ask(subscribe={"channel": channel})
        for number in range(20):
            sender = (ann, bob)[number % 2]
            await sender.ask(publish={"channel": channel, "data": {"text": f"line {number}"}})
        for client in (ann, bob):
            pushes = [await client.push() for _ in range(20)]
            assert [push["offset"] for push in pushes] == list(range(1, 21))
            assert pushes[7]["data"]["text"] == "line 7"
        recover = {"recover": True, "epoch": joined["epoch"], "offset": 15}
        await bob.ask(unsubscribe={"channel": channel})
        again = (await bob.ask(subscribe={"channel": channel, **recover}))["subscribe"]
        assert again["recovered"] is True
        assert [p["offset"] for p in again["publications"]] == [16, 17, 18, 19, 20]
        lost = {"recover": True, "epoch": str(uuid4()), "offset": 15}
        await ann.ask(unsubscribe={"channel": channel})
        afresh = (await ann.ask(subscribe={"channel": channel, **lost}))["subscribe"]
        assert afresh["recovered"] is False
    await stack.stop(name)


async def test_a_batch_pushes_its_progress(stack: Stack, api: httpx.AsyncClient) -> None:
    wanted = {"operation": "echo", "items": [1, 2, 3]}
    batch_id = (await api.post("/v1/batches", json=wanted)).json()["id"]
    async with talk(stack) as client:
        await client.ask(connect={"token": stack.api_key})
        joined = (await client.ask(subscribe={"channel": f"batch:{batch_id}"}))["subscribe"]
        state = joined["publications"][0]["data"]
        while state["status"] != "completed":
            state = (await client.push())["data"]
        assert state["counts"]["succeeded"] == 3


async def test_wrong_commands_get_an_error_and_the_connection_stays_open(
    stack: Stack, reader: httpx.AsyncClient
) -> None:
    key = reader.headers["authorization"].removeprefix("Bearer ")
    async with talk(stack) as client:
        await client.ask(connect={"token": key})
        wrong: list[tuple[dict[str, Any], int]] = [
            ({"dance": {}}, 104),
            ({"subscribe": {}}, 107),
            ({"subscribe": {"channel": "moon:x"}}, 102),
            ({"subscribe": {"channel": f"batch:{uuid4()}"}}, 102),
            ({"publish": {"channel": "chat:lobby", "data": {"text": "hi"}}}, 103),
        ]
        for command, code in wrong:
            assert (await client.ask(**command))["error"]["code"] == code
        assert "unsubscribe" in await client.ask(unsubscribe={"channel": "quotes:AAPL"})


async def test_a_wrong_token_closes_the_connection_without_reconnect(stack: Stack) -> None:
    async with talk(stack) as client:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.ask(connect={"token": "tw_live_nonsense"})
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3500


async def test_the_short_socket_echoes_each_line_to_everyone(stack: Stack) -> None:
    address = stack.url.replace("http", "ws") + "/ws"
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with (
        websockets.connect(address, additional_headers=headers) as ann,
        websockets.connect(address, additional_headers=headers) as bob,
    ):
        await ann.send("good morning")
        async with asyncio.timeout(10):
            assert await ann.recv() == "Message received: good morning"
            assert await bob.recv() == "Message received: good morning"

"""Conversations over the gateway's sockets, each message of which is noted under its declared name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import websockets
from websockets.asyncio.client import ClientConnection

from native.stack import Stack
from support.waiting import until

CHANNEL = "realtime"
# Takes the channel, the name and the payload of a message.
Note = Callable[[str, str, Any], None]


class Conversation:
    """One client of `/v1/realtime`; `heard` has the names of its pushes and pings."""

    def __init__(self, socket: ClientConnection, note: Note) -> None:
        self._socket = socket
        self._note = note
        self._waiting: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self.heard: list[str] = []

    async def ask(self, **command: Any) -> Any:
        """Return the reply to a command: the member with its name, or its error."""
        (name,) = command
        number = len(self._waiting) + 1
        frame = {"id": number, **command}
        self._note(CHANNEL, f"{name}.command", frame)
        answered = asyncio.get_running_loop().create_future()
        self._waiting[number] = name, answered
        await self._socket.send(orjson.dumps(frame).decode())
        async with asyncio.timeout(20):
            reply = await answered
        return reply[name] if name in reply else reply["error"]

    async def hear(self, name: str) -> None:
        """Wait for a push or a ping of this name."""
        await until(lambda: name in self.heard, timeout_s=30, what=lambda: f"{name} among {self.heard}")

    async def listen(self) -> None:
        """Read frames until cancelled."""
        async for frame in self._socket:
            for line in frame.splitlines():
                await self._take(orjson.loads(line))

    async def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            name, answered = self._waiting[message["id"]]
            self._note(CHANNEL, "error.reply" if "error" in message else f"{name}.reply", message)
            answered.set_result(message)
            return
        if not message:
            await self._socket.send("{}")
        name = _name_of(message)
        self._note(CHANNEL, name, message)
        self.heard.append(name)


def _name_of(message: dict[str, Any]) -> str:
    if not message:
        return "ping"
    push = message["push"]
    if "pub" in push:
        return f"{push['channel'].partition(':')[0]}.publication"
    return "unsubscribed" if "unsubscribe" in push else next(name for name in push if name != "channel")


@asynccontextmanager
async def talking(stack: Stack, note: Note, key: str) -> AsyncIterator[Conversation]:
    """Yield a client that has connected with `key`."""
    address = stack.url.replace("http", "ws") + f"/v1/{CHANNEL}"
    async with websockets.connect(address) as socket:
        client = Conversation(socket, note)
        listening = asyncio.create_task(client.listen())
        try:
            await client.ask(connect={"token": key})
            yield client
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

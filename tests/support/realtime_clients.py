"""The real clients of the protocol, npm `centrifuge` and PyPI `centrifuge-python`, behind one interface."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import centrifuge
from centrifuge import handlers

SCRIPT = Path(__file__).parent / "clients" / "centrifuge_client.mjs"
Event = dict[str, Any]


class ClientError(Exception):
    """The server has answered a command with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class RealtimeClient(Protocol):
    """A client as the tests use it; `events` records in order what happens to it."""

    events: list[Event]

    async def open(self, url: str, token: str, *, refreshed: Sequence[str] | None = None) -> None: ...
    async def subscribe(self, channel: str, data: Any = None, *, join_leave: bool = False) -> None: ...
    async def call(self, act: str, **arguments: Any) -> Any: ...
    async def close(self) -> None: ...


async def wait_for(client: RealtimeClient, seen: Callable[[Event], bool], count: int = 1) -> list[Event]:
    """Wait until `count` events match, and return them."""
    async with asyncio.timeout(30):
        while len(found := [event for event in client.events if seen(event)]) < count:
            await asyncio.sleep(0.02)
    return found


def is_event(name: str, **values: Any) -> Callable[[Event], bool]:
    """Return a test for events of a name with these values."""
    return lambda event: event["event"] == name and all(event.get(k) == v for k, v in values.items())


class PythonClient:
    """`centrifuge-python`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._client: Any = None
        self._subscriptions: dict[str, Any] = {}

    async def open(self, url: str, token: str, *, refreshed: Sequence[str] | None = None) -> None:
        reported, tokens = self.events, list(refreshed or ())

        async def next_token() -> str:
            reported.append({"event": "token wanted"})
            return tokens.pop(0) if tokens else token

        class Events(handlers.ClientEventHandler):  # type: ignore[misc]  # the package is untyped
            async def on_connecting(self, ctx: Any) -> None:
                reported.append({"event": "connecting", "code": ctx.code})

            async def on_connected(self, ctx: Any) -> None:
                reported.append({"event": "connected"})

            async def on_disconnected(self, ctx: Any) -> None:
                reported.append({"event": "disconnected", "code": ctx.code})

        self._client = centrifuge.Client(
            url,
            events=Events(),
            token=token,
            get_token=None if refreshed is None else next_token,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.5,
            proxy=None,
        )
        await self._client.connect()

    async def subscribe(self, channel: str, data: Any = None, *, join_leave: bool = False) -> None:
        reported = self.events

        class Events(handlers.SubscriptionEventHandler):  # type: ignore[misc]
            async def on_publication(self, ctx: Any) -> None:
                pub = {"offset": ctx.pub.offset, "data": ctx.pub.data, "tags": ctx.pub.tags}
                sender = None if ctx.pub.info is None else ctx.pub.info.client
                reported.append({"event": "publication", "channel": channel, **pub, "sender": sender})

            async def on_subscribed(self, ctx: Any) -> None:
                recovery = {"recovered": ctx.recovered, "was_recovering": ctx.was_recovering}
                reported.append({"event": "subscribed", "channel": channel, **recovery})

            async def on_unsubscribed(self, ctx: Any) -> None:
                reported.append({"event": "unsubscribed", "channel": channel, "code": ctx.code})

            async def on_join(self, ctx: Any) -> None:
                who = {"client": ctx.info.client, "user": ctx.info.user}
                reported.append({"event": "join", "channel": channel, **who})

            async def on_leave(self, ctx: Any) -> None:
                who = {"client": ctx.info.client, "user": ctx.info.user}
                reported.append({"event": "leave", "channel": channel, **who})

        subscription = self._client.new_subscription(
            channel, events=Events(), data=data, recoverable=True, join_leave=join_leave
        )
        self._subscriptions[channel] = subscription
        await subscription.subscribe()

    async def call(self, act: str, **arguments: Any) -> Any:
        try:
            return await getattr(self, f"_{act}")(**arguments)
        except centrifuge.exceptions.ReplyError as error:
            raise ClientError(error.code, error.message) from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.disconnect()

    async def _publish(self, channel: str, data: Any) -> None:
        await self._client.publish(channel, data)

    async def _history(
        self, channel: str, limit: int, since: Any = None, reverse: bool = False
    ) -> dict[str, Any]:
        position = centrifuge.StreamPosition(since["offset"], since["epoch"]) if since else None
        found = await self._client.history(channel, limit=limit, since=position, reverse=reverse)
        publications = [
            {"offset": pub.offset, "data": pub.data, "info": pub.info and {"client": pub.info.client}}
            for pub in found.publications
        ]
        return {"publications": publications, "epoch": found.epoch, "offset": found.offset}

    async def _presence(self, channel: str) -> dict[str, Any]:
        found = await self._client.presence(channel)
        return {"clients": {name: {"user": info.user} for name, info in found.clients.items()}}

    async def _presence_stats(self, channel: str) -> dict[str, Any]:
        found = await self._client.presence_stats(channel)
        return {"numClients": found.num_clients, "numUsers": found.num_users}

    async def _rpc(self, method: str, data: Any) -> Any:
        return {"data": (await self._client.rpc(method, data)).data}

    async def _subscribe_all(self, channels: Sequence[str]) -> None:
        for channel in channels:
            await self.subscribe(channel)

    async def _unsubscribe(self, channel: str) -> None:
        await self._subscriptions[channel].unsubscribe()


class JavaScriptClient:
    """npm `centrifuge`, in a Node process; `modules` is the folder that it was installed into."""

    def __init__(self, modules: Path) -> None:
        self.events: list[Event] = []
        self._modules = modules
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self, url: str, token: str, *, refreshed: Sequence[str] | None = None) -> None:
        node = shutil.which("node")
        assert node is not None
        self._process = await asyncio.create_subprocess_exec(
            node, str(SCRIPT), str(self._modules), stdin=PIPE, stdout=PIPE
        )
        self._reading = asyncio.create_task(self._read())
        await self.call("open", url=url, token=token, refreshed=refreshed)

    async def subscribe(self, channel: str, data: Any = None, *, join_leave: bool = False) -> None:
        await self.call("subscribe", channel=channel, data=data, join_leave=join_leave)

    async def call(self, act: str, **arguments: Any) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        answered = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"n": number, "act": act, **arguments}).encode() + b"\n")
        async with asyncio.timeout(20):
            return await answered

    async def close(self) -> None:
        if self._process is None or self._reading is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            document = json.loads(line)
            if "event" in document:
                self.events.append(document)
            elif "error" in document:
                error = ClientError(document["error"]["code"], document["error"]["message"])
                self._waiting.pop(document["n"]).set_exception(error)
            else:
                self._waiting.pop(document["n"]).set_result(document["answer"])

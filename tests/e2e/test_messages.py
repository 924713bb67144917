"""What AsyncAPI describes is what is really sent, and everything that it describes is really sent.

The broker itself records what the services publish, while the product is used in every way.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
import websockets

from contracts.topology import SERVICES
from native.stack import Stack
from support import broker_tap, every_message
from support.deployed import Deployed
from support.every_message import RequestCaller
from support.message_reference import MessageReference
from support.socket_talk import Conversation, talking
from support.waiting import until
from support.walking import Walked

# Empty, and received by no queue: a service asks whether the broker accepts messages.
PROBE = "probe"
# Messages that no use causes, with the reason.
NOT_SENT = {
    **dict.fromkeys(
        [("email.excess", "email.send.v1"), ("email.excess", "email.send-packed.v1")],
        "a thousand mails of an owner would have to wait: tests/integration/emailer/test_masses.py",
    ),
    ("stock-data.parked", "parked"): "stock-data handles no messages that it could park",
}
# A ping comes at a random time, from 8 s on: among several clients, one is soon pinged.
IDLE_CLIENTS = 6
STREAMS = {"batch": "followBatch", "task": "followTask", "email": "followEmail"}


@dataclass
class Use:
    """A use of the product, and everything about it in which the document is wrong."""

    stack: Stack
    caller: RequestCaller
    reference: MessageReference
    wrong: list[str] = field(default_factory=list)

    def note(self, channel: str, name: str, payload: Any) -> None:
        """Compare a message of a socket or a stream with its declaration."""
        try:
            self.reference.compare(channel, name, payload)
        except Exception as error:  # each is told, and does not keep the others from being compared
            self.wrong.append(f"{channel} {name}: {error}: {payload}")

    def compare(self, sent: broker_tap.Sent) -> None:
        """Compare a message of the broker with its declaration."""
        try:
            self.reference.compare_sent(sent)
        except Exception as error:  # as above
            self.wrong.append(f"{sent.exchange} {sent.message_type}: {error!r}: {sent.headers} {sent.body!r}")


async def talk_in_a_room(use: Use, key: str) -> None:
    """Post and read in a private room, from which a member is removed."""
    room, caller = f"r{uuid4().hex[:8]}", use.caller
    user = await caller.make("/v1/users", {"name": "X", "email": f"{uuid4().hex}@example.com"})
    wanted = {"name": "member", "scopes": ["chat:read"], "user_id": int(user)}
    member_key = (await caller.ask("POST", "/v1/api-keys", json=wanted))["key"]
    await caller.ask("POST", "/v1/rooms", json={"name": room, "private": True})
    await caller.ask("POST", f"/v1/rooms/{room}/members", json={"user_id": int(user)})
    chat = {"channel": f"chat:{room}"}
    async with (
        talking(use.stack, use.note, key) as manager,
        talking(use.stack, use.note, member_key) as member,
    ):
        await manager.ask(subscribe={**chat, "join_leave": True})
        await member.ask(subscribe=chat)
        await manager.hear("join")
        await manager.ask(publish={**chat, "data": {"text": "hi"}})
        await caller.ask("POST", f"/v1/rooms/{room}/messages", json={"text": "over HTTP"})
        await until(lambda: member.heard.count("chat.publication") == 2)
        for command in ("presence", "presence_stats"):
            await manager.ask(**{command: chat})
        await manager.ask(history={**chat, "limit": 5})
        recovered = {"recover": True, "offset": 0, "epoch": (await manager.ask(history=chat))["epoch"]}
        await manager.ask(unsubscribe=chat)
        assert (await manager.ask(subscribe={**chat, **recovered, "join_leave": True}))["publications"]
        await caller.ask("DELETE", f"/v1/rooms/{room}/members/{user}", headers=every_message.AS_READ)
        await member.hear("unsubscribed")
        await manager.hear("leave")


async def follow_prices(use: Use, client: Conversation) -> None:
    """Subscribe to quotes, bars and alerts until each of them has come, and read a stream of quotes."""
    for channel in ("quotes:AAPL", "bars:AAPL", "alerts"):
        await client.ask(subscribe={"channel": channel})
    price = (await use.caller.ask("GET", "/v1/stocks/AAPL"))["price"]
    alerts = [
        await use.caller.make("/v1/alerts", {"symbol": "AAPL", "condition": {kind: price}})
        for kind in ("above", "below")
    ]
    await read_stream(use, "streamQuotes", "/v1/stocks/stream?symbols=AAPL", most=2)
    for name in ("quotes", "bars", "alerts"):
        await client.hear(f"{name}.publication")
    for alert in alerts:
        await use.caller.ask("DELETE", f"/v1/alerts/{alert}")


async def follow_work(use: Use, client: Conversation) -> None:
    """Follow a batch, a task and a mail over the socket and over streams, until they have ended."""
    async with asyncio.TaskGroup() as reading:
        async with every_message.waiting_work(use.caller) as waiting:
            for kind, id_ in waiting.items():
                await client.ask(subscribe={"channel": f"{kind}:{id_}"})
                plural = {"batch": "batches"}.get(kind, f"{kind}s")
                reading.create_task(read_stream(use, STREAMS[kind], f"/v1/{plural}/{id_}/events"))
        for kind in waiting:
            await client.hear(f"{kind}.publication")


async def read_stream(use: Use, name: str, path: str, *, most: int = 100) -> None:
    """Read a stream of events until its end, or `most` events of it."""
    async with use.caller.api.stream("GET", path) as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                use.note(name, f"{name}.event", orjson.loads(line.removeprefix("data: ")))
                most -= 1
            if not most:
                return


async def use_sockets(use: Use) -> None:
    """Use every command and every channel of the sockets."""
    token = (await use.caller.ask("POST", "/v1/realtime/tokens", json={}))["token"]
    key = use.stack.api_key
    async with AsyncExitStack() as stack:
        idle = [
            await stack.enter_async_context(talking(use.stack, use.note, key)) for _ in range(IDLE_CLIENTS)
        ]
        client = await stack.enter_async_context(talking(use.stack, use.note, token))
        await client.ask(refresh={"token": key})
        await client.ask(rpc={"method": "getQuote", "data": {"symbol": "AAPL"}})
        await client.ask(subscribe={"channel": "moon:x"})
        await asyncio.gather(
            talk_in_a_room(use, key), follow_prices(use, client), follow_work(use, client), use_the_lobby(use)
        )
        await until(lambda: any("ping" in each.heard for each in (client, *idle)), timeout_s=30)


async def use_the_lobby(use: Use) -> None:
    """Post one line over the short route, and get it."""
    headers = {"Authorization": f"Bearer {use.stack.api_key}"}
    async with websockets.connect(
        use.stack.url.replace("http", "ws") + "/ws", additional_headers=headers
    ) as socket:
        use.note("lobby", "lobby.line", "good morning")
        await socket.send("good morning")
        use.note("lobby", "lobby.shown", await socket.recv())


@pytest.fixture(scope="module")
async def use(stack: Stack | Deployed, api: httpx.AsyncClient, walked: Walked) -> Use:
    """Use everything, and compare all that was sent."""
    if isinstance(stack, Deployed):
        pytest.skip("the broker of a stack that runs somewhere is not this test's")
    used = Use(stack, RequestCaller(api), MessageReference((await api.get("/asyncapi.json")).json()))
    async with broker_tap.recording(stack.rabbitmq) as sent:
        async with asyncio.TaskGroup() as group:
            for using in (
                use_sockets(used),
                every_message.lose_rights(used.caller),
                every_message.end_things(used.caller, stack),
                every_message.park_messages(used.caller, stack.rabbitmq.url),
                every_message.steer_batches(used.caller),
            ):
                group.create_task(using)
        await every_message.restart_services(used.caller, stack)
        # The last one of all.
        await until(lambda: any(one.message_type == "operations.announced.v1" for one in sent))
    for one in (*walked.sent, *sent):
        if one.message_type != PROBE and one.user in SERVICES:
            used.compare(one)
    return used


async def test_everything_that_is_sent_is_described(use: Use) -> None:
    assert use.wrong == []


async def test_everything_that_is_described_is_sent(use: Use) -> None:
    assert use.reference.unseen == NOT_SENT.keys()


async def test_a_service_that_is_said_to_send_a_message_sends_it(use: Use) -> None:
    assert use.reference.unused == set()

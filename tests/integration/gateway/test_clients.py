"""The real clients of the protocol, unchanged, against two gateway processes behind one address."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.http.principal import Principal
from gateway.identity import keys
from gateway.realtime import tokens
from native.ports import Ports
from support import pushes
from support.gateway_stack import PEPPER, Gate, House, RunningGateway
from support.realtime_clients import (
    ClientError,
    JavaScriptClient,
    PythonClient,
    RealtimeClient,
    is_event,
    wait_for,
)
from support.waiting import until

Open = Callable[..., Any]


@dataclass
class Two:
    """Two gateway processes; `gate` is the address that clients know, which leads to the first."""

    processes: list[Process]
    ports: list[int]
    gate: Gate
    key: str
    api: httpx.AsyncClient

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.gate.port}/v1/realtime"

    def direct(self, index: int) -> str:
        return f"ws://127.0.0.1:{self.ports[index]}/v1/realtime"

    async def new_room(self, *, private: bool = False) -> str:
        name = f"room-{uuid4().hex[:8]}"
        answer = await self.api.post("/v1/rooms", json={"name": name, "private": private})
        assert answer.status_code == 201, answer.text
        return name

    async def new_member(self, *scopes: str) -> tuple[int, str]:
        """Return a new user, and a key of theirs."""
        user = {"name": "Member", "email": f"{uuid4().hex}@example.com"}
        user_id = int((await self.api.post("/v1/users", json=user)).json()["id"])
        return user_id, await self.new_key(*scopes, user_id=user_id)

    async def new_key(self, *scopes: str, user_id: int = 1) -> str:
        answer = await self.api.post(
            "/v1/api-keys", json={"name": "test", "scopes": scopes, "user_id": user_id}
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])


@asynccontextmanager
async def gateways(house: House) -> AsyncIterator[Two]:
    key, dsn = str(keys.new_key()), await house.database()
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(gateway_process(house, dsn, key)) for _ in range(2)]
        processes, ports = [process for process, _ in opened], [port for _, port in opened]
        gate = await house.gate("127.0.0.1", ports[0])
        headers, url = {"authorization": f"Bearer {key}"}, f"http://127.0.0.1:{ports[1]}"
        client = httpx.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False)
        api = await stack.enter_async_context(client)
        for port in ports:
            await until(lambda port=port: _is_ready(port))
        yield Two(processes, ports, gate, key, api)


@asynccontextmanager
async def gateway_process(house: House, dsn: str, key: str) -> AsyncIterator[tuple[Process, int]]:
    """Yield a gateway in a process of its own, and its port; it is stopped unless it has ended by itself."""
    found = Ports.free()
    environment = {
        "PATH": os.environ["PATH"],
        "RABBITMQ_URL": house.rabbitmq_url,
        "POSTGRES_DSN": dsn,
        "MEMCACHED_ADDRESS": house.memcached_address,
        "GATEWAY_PORT": str(found.gateway),
        "GATEWAY_OPS_PORT": str(found.gateway_ops),
        "GATEWAY_KEY_PEPPER": PEPPER,
        "GATEWAY_BOOTSTRAP_KEY": key,
        "SHUTDOWN_GRACE_S": "2",
        "LOG_LEVEL": "WARNING",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "gateway", env=environment)
    try:
        yield process, found.gateway
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _is_ready(port: int) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
async def two(module_house: House) -> AsyncIterator[Two]:
    async with gateways(module_house) as found:
        yield found


@pytest.fixture(params=["python", "javascript"])
def new_client(request: pytest.FixtureRequest) -> Callable[[], RealtimeClient]:
    """Return a function that makes clients of one kind."""
    if request.param == "python":
        return PythonClient
    return partial(JavaScriptClient, request.getfixturevalue("modules"))


@pytest.fixture
async def open_client(new_client: Callable[[], RealtimeClient]) -> AsyncIterator[Open]:
    """Yield a function that connects clients, which are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(url: str, token: str, **options: Any) -> RealtimeClient:
            client = new_client()
            stack.push_async_callback(client.close)
            await client.open(url, token, **options)
            return client

        yield open_one


def texts(client: RealtimeClient, channel: str) -> list[str]:
    return [
        event["data"]["text"]
        for event in client.events
        if event["event"] == "publication" and event["channel"] == channel
    ]


async def _lists_all(client: RealtimeClient, channel: str, connections: set[str]) -> bool:
    present = await client.call("presence", channel=channel)
    return set(present["clients"]) == connections


async def test_a_post_of_one_client_is_received_on_the_other_gateway(two: Two, open_client: Open) -> None:
    channel = f"chat:{await two.new_room()}"
    ann, bob = await open_client(two.direct(0), two.key), await open_client(two.direct(1), two.key)
    for client in (ann, bob):
        await client.subscribe(channel)
        await wait_for(client, is_event("subscribed", channel=channel))
    for number in range(20):
        await (ann, bob)[number % 2].call("publish", channel=channel, data={"text": str(number)})
    for client in (ann, bob):
        await wait_for(client, is_event("publication"), 20)
        assert texts(client, channel) == [str(number) for number in range(20)]
        heard = [event for event in client.events if event["event"] == "publication"]
        assert [event["offset"] for event in heard] == list(range(1, 21))
        assert len(senders := {event["sender"] for event in heard[::2]}) == 1
        assert len(senders | {event["sender"] for event in heard[1::2]}) == 2
    await until(lambda: _lists_all(ann, channel, {event["sender"] for event in heard}))
    newest = await bob.call("history", channel=channel, limit=2, reverse=True)
    assert [one["info"]["client"] for one in newest["publications"]] == [
        event["sender"] for event in (heard[-1], heard[-2])
    ]


async def test_history_goes_forwards_from_a_position_and_backwards(two: Two, open_client: Open) -> None:
    channel = f"chat:{await two.new_room()}"
    client = await open_client(two.direct(0), two.key)
    for number in range(1, 6):
        await client.call("publish", channel=channel, data={"text": str(number)})
    newest = await client.call("history", channel=channel, limit=2, reverse=True)
    assert [one["offset"] for one in newest["publications"]] == [5, 4]
    since = {"offset": 1, "epoch": newest["epoch"]}
    following = await client.call("history", channel=channel, limit=3, since=since)
    assert [one["offset"] for one in following["publications"]] == [2, 3, 4]
    assert following["offset"] == 5


async def test_bars_are_pushed_to_clients_of_both_gateways_and_conflated_by_minute(
    two: Two, module_house: House, open_client: Open
) -> None:
    symbol = f"B{uuid4().hex[:6].upper()}"
    channel, next_minute = f"bars:{symbol}", {"t": pushes.NOW + timedelta(minutes=1)}
    await module_house.publish([pushes.bars(symbol, 1, partial=True)])
    clients = [await open_client(two.direct(index), two.key) for index in range(2)]
    for client in clients:
        await client.subscribe(channel, {"conflate_ms": 500})
        await wait_for(client, is_event("publication", offset=1))
    ends = [pushes.bars(symbol, 4, closed=True), pushes.bars(symbol, 5, 6, **next_minute)]
    await module_house.publish([pushes.bars(symbol, 2, 3), *ends])
    for client in clients:
        await wait_for(client, is_event("publication", offset=6))
        heard = [event["data"] for event in client.events if event["event"] == "publication"]
        assert [bar["o"] for bar in heard if bar["closed"]] == [4]
        assert {bar["state"] for bar in heard} == {"live"}
        assert heard[0]["partial"]
        assert sorted(bar["stream"]["offset"] for bar in heard) == [bar["stream"]["offset"] for bar in heard]


async def test_presence_covers_all_gateways(two: Two, open_client: Open) -> None:
    channel = f"chat:{await two.new_room()}"
    clients = [await open_client(two.direct(index), two.key) for index in (0, 0, 1)]
    for client in clients:
        await client.subscribe(channel)
        await wait_for(client, is_event("subscribed"))
    for client in clients:
        listed = await client.call("presence", channel=channel)
        assert [one["user"] for one in listed["clients"].values()] == ["1", "1", "1"]
        stats = await client.call("presence_stats", channel=channel)
        assert (stats["numClients"], stats["numUsers"]) == (3, 1)


async def test_joins_and_leaves_are_pushed_to_clients_of_both_gateways(two: Two, open_client: Open) -> None:
    channel, (user_id, key) = f"chat:{await two.new_room()}", await two.new_member("chat:read")
    here, there = [await open_client(two.direct(index), two.key) for index in (0, 1)]
    other = await open_client(two.direct(1), key)
    for client in (here, there):
        await client.subscribe(channel, join_leave=True)
        await wait_for(client, is_event("subscribed"))
    await other.subscribe(channel)
    await wait_for(other, is_event("subscribed"))
    [joined] = await wait_for(there, is_event("join", user=str(user_id)))
    assert joined["channel"] == channel
    await wait_for(here, is_event("join", client=joined["client"]))
    await other.call("unsubscribe", channel=channel)
    for client in (here, there):
        [left] = await wait_for(client, is_event("leave"))
        assert (left["client"], left["user"]) == (joined["client"], str(user_id))
    assert [event for event in other.events if event["event"] in ("join", "leave")] == []


async def test_a_private_room_is_for_its_members_on_both_gateways(two: Two, open_client: Open) -> None:
    room = await two.new_room(private=True)
    channel, (user_id, key) = f"chat:{room}", await two.new_member("chat:read", "chat:write")
    stranger = await open_client(two.direct(0), key)
    await stranger.subscribe(channel)
    [refused] = await wait_for(stranger, is_event("unsubscribed"))
    assert refused["code"] == 102
    answer = await two.api.post(f"/v1/rooms/{room}/members", json={"user_id": user_id, "role": "reader"})
    assert answer.status_code == 200, answer.text
    member, manager = await open_client(two.direct(0), key), await open_client(two.direct(1), two.key)
    await member.subscribe(channel)
    await wait_for(member, is_event("subscribed"))
    await manager.call("publish", channel=channel, data={"text": "among us"})
    await wait_for(member, is_event("publication"))
    with pytest.raises(ClientError) as error:
        await member.call("publish", channel=channel, data={"text": "x"})
    assert error.value.code == 103
    assert (await two.api.delete(f"/v1/rooms/{room}/members/{user_id}")).status_code == 204
    [ended] = await wait_for(member, is_event("unsubscribed"))
    assert ended["code"] == 2000


async def test_two_hundred_channels_are_subscribed_to_in_one_batch(two: Two, open_client: Open) -> None:
    rooms = [f"chat:{await two.new_room()}" for _ in range(10)]
    unknown = [f"chat:none-{number}" for number in range(190)]
    client = await open_client(two.direct(0), two.key)
    await wait_for(client, is_event("connected"))
    await client.call("subscribe_all", channels=rooms + unknown)
    await wait_for(client, is_event("subscribed"), 10)
    refused = await wait_for(client, is_event("unsubscribed"), 190)
    assert {event["code"] for event in refused} == {102}
    await client.call("publish", channel=rooms[0], data={"text": "still here"})
    await wait_for(client, is_event("publication", channel=rooms[0]))


async def test_a_wrong_key_ends_the_connection_and_a_missing_right_only_fails_its_command(
    two: Two, open_client: Open
) -> None:
    stranger = await open_client(two.direct(0), "tw_live_nonsense")
    [refused] = await wait_for(stranger, is_event("disconnected"))
    assert refused["code"] == 3500
    reader = await open_client(two.direct(0), await two.new_key("chat:read"))
    await reader.subscribe("chat:lobby")
    await wait_for(reader, is_event("subscribed"))
    with pytest.raises(ClientError) as error:
        await reader.call("publish", channel="chat:lobby", data={"text": "x"})
    assert error.value.code == 103
    await reader.subscribe("quotes:AAPL")
    [denied] = await wait_for(reader, is_event("unsubscribed"))
    assert denied["code"] == 103


async def test_a_token_is_refreshed_before_it_ends(two: Two, open_client: Open) -> None:
    principal = Principal(1, "", "admin", two.key.split("_")[2], frozenset())
    service = tokens.TokenService(PEPPER, authenticate=_nobody, find=_nobody)
    short, _ = service.issue(principal, ttl_s=6)
    long, _ = service.issue(principal, ttl_s=600)
    client = await open_client(two.direct(0), short, refreshed=[long])
    await client.subscribe("chat:lobby")
    await wait_for(client, is_event("token wanted"))
    await asyncio.sleep(4)
    assert [event for event in client.events if event["event"] == "disconnected"] == []
    assert len([event for event in client.events if event["event"] == "connected"]) == 1
    await client.call("presence_stats", channel="chat:lobby")


async def test_a_client_that_comes_with_an_expired_token_gets_in_with_its_next_one(
    listener: RunningGateway, open_client: Open
) -> None:
    key_id, now = listener.admin_key.split("_")[2], int(time.time())
    expired, good = (
        tokens.sign(tokens.signing_keys(PEPPER)[0], tokens.Grant(key_id, now + s, None, None))
        for s in (-5, 600)
    )
    url = f"{listener.socket_url}/v1/realtime"
    client = await open_client(url, expired, refreshed=[good])
    await wait_for(client, is_event("connected"))
    assert [event for event in client.events if event["event"] == "disconnected"] == []
    assert len([event for event in client.events if event["event"] == "token wanted"]) == 1
    stranger = await open_client(url, expired)
    await wait_for(stranger, is_event("disconnected"))


async def _nobody(*_: Any) -> Any:
    return None


async def test_a_killed_gateway_loses_no_message_and_repeats_none(house: House, open_client: Open) -> None:
    async with gateways(house) as two:
        channel = f"chat:{await two.new_room()}"
        hearer = await open_client(two.url, two.key)
        await hearer.subscribe(channel)
        await wait_for(hearer, is_event("subscribed"))
        speaker = await open_client(two.direct(1), two.key)
        for number in range(300):
            if number == 100:
                two.processes[0].send_signal(signal.SIGKILL)
                await two.processes[0].wait()
                two.gate.lead_to("127.0.0.1", two.ports[1])
            await speaker.call("publish", channel=channel, data={"text": str(number)})
        await wait_for(hearer, is_event("publication"), 300)
        assert texts(hearer, channel) == [str(number) for number in range(300)]
        again = [event for event in hearer.events if event["event"] == "subscribed"][-1]
        assert (again["was_recovering"], again["recovered"]) == (True, True)

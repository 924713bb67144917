"""All connections of an owner share a rate of commands; those over it can be repeated, and close none."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from gateway.realtime.access import Access
from gateway.realtime.command_rate import OWNER_BURST, OwnerRates
from gateway.realtime.commands import MOST_CHANNELS
from gateway.realtime.lobby import LobbySession
from gateway.realtime.session import ClientSession
from gateway.settings import GatewaySettings
from support.clocks import Clock
from support.doubles.realtime import Client, Gateway, connected, payload

PER_S = 50
BURST = 400


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gateway(gateway: Gateway, clock: Clock) -> Gateway:
    gateway.owner_rates = OwnerRates(PER_S, burst=BURST, pause_s=0, clock=clock)
    return gateway


async def send(client: Client, count: int) -> tuple[int, int]:
    """Send commands in one frame; return how many were done, and how many refused for now."""
    lines = [b'{"id":%d,"unsubscribe":{"channel":"chat:lobby"}}' % number for number in range(1, count + 1)]
    client.frames.clear()
    await client.session.receive(b"\n".join(lines))
    errors = [frame["error"] for frame in client.frames if "error" in frame]
    assert {(error["code"], error["temporary"]) for error in errors} <= {(111, True)}
    return len(client.frames) - len(errors), len(errors)


async def test_all_connections_of_an_owner_share_a_rate_and_others_have_theirs(
    gateway: Gateway, clock: Clock, ann: Access, nobody: Access
) -> None:
    clients = [await connected(gateway, ann) for _ in range(3)]
    other = await connected(gateway, nobody)
    found = [await send(client, 200) for client in clients]
    assert [sum(pair) for pair in zip(*found, strict=True)] == [BURST - 3, 203]
    assert await send(other, 200) == (200, 0)
    clock.now += 2
    # What was refused has cost nothing.
    assert [await send(client, 60) for client in clients] == [(60, 0), (40, 20), (0, 60)]
    assert not any(client.closed for client in clients)


async def test_a_connect_over_the_rate_of_its_owner_takes_no_place_and_can_be_repeated(
    gateway: Gateway, clock: Clock, ann: Access
) -> None:
    first = await connected(gateway, ann)
    for _ in range(2):
        await send(first, 199)
    admitted: list[Access] = []
    late = Client(gateway, ann, admit=admitted.append)
    # One is left, and it asks for two channels.
    subs: dict[str, dict[str, str]] = {"chat:lobby": {}, "quotes:A": {}}
    error = await late.ask(connect={"subs": subs})
    assert (error["code"], error["temporary"], admitted, late.closed) == (111, True, [], [])
    clock.now += 1
    assert "client" in await late.ask(connect={"subs": subs})
    assert admitted == [ann]


async def test_lines_of_the_lobby_count_in_the_rate_of_their_owner(gateway: Gateway, ann: Access) -> None:
    heard: list[bytes] = []
    lines = [
        LobbySession(gateway.realtime, ann, write=heard.append, close_connection=lambda *_: None)
        for _ in range(2)
    ]
    for _ in range(BURST):
        gateway.owner_rates.take(ann.principal.owner_id, 1)
    for line in lines:
        await line.receive("hello")
    assert all(b"too many requests" in payload(frame) for frame in heard)
    assert (len(heard), gateway.rooms.messages) == (2, [])


async def test_a_connection_over_the_rate_of_its_owner_is_not_read_for_a_while(
    gateway: Gateway, ann: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another connection asks, as one alone is over its own rate first.
    clients = [await connected(gateway, ann) for _ in range(2)]
    assert await send(clients[0], BURST - 2) == (BURST - 2, 0)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    gateway.owner_rates.pause_s = 7
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", note)
        lines = [orjson.dumps({"id": number, "subscribe": {"channel": "alerts"}}) for number in range(1, 5)]
        await clients[1].session.receive(b"\n".join(lines))
    # Once for all that were refused together.
    assert pauses == [7]


async def test_what_has_come_while_a_connection_was_not_read_is_refused_without_another_pause(
    gateway: Gateway, clock: Clock, ann: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [await connected(gateway, ann) for _ in range(2)]
    await send(clients[0], BURST - 2)
    begun, client = clock.now, clients[1]

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    gateway.owner_rates.pause_s, gateway.owner_rates.per_s = 1, 0.001
    frames = [orjson.dumps({"id": number, "subscribe": {"channel": "alerts"}}) for number in range(1, 201)]
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", sleep)
        for frame in frames:
            await client.session.receive(frame)
        assert (clock.now - begun, len(client.frames)) == (1, 200)
        # Whoever goes on is not read again.
        clock.now += 1
        for frame in frames[:10]:
            await client.session.receive(frame)
    assert clock.now - begun == 3


@pytest.mark.parametrize("is_lobby", [False, True])
async def test_nobody_waits_for_a_client_that_is_gone(
    gateway: Gateway, ann: Access, monkeypatch: pytest.MonkeyPatch, is_lobby: bool
) -> None:
    def write(frame: bytes) -> None:
        if b"error" in frame.lower():
            session.release()

    parts: dict[str, Any] = {"write": write, "close_connection": lambda *_: None}
    session: ClientSession | LobbySession
    if is_lobby:
        session = LobbySession(gateway.realtime, ann, **parts)
        gateway.owner_rates.take(ann.principal.owner_id, 1)
    else:
        session = ClientSession(gateway.realtime, offered=ann, **parts)
        await session.receive('{"id":1,"connect":{}}')
    assert gateway.owner_rates.take(ann.principal.owner_id, BURST - 1)
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", note)
        await session.receive('{"id":2,"subscribe":{"channel":"alerts"}}')
    assert pauses == []


def test_an_owner_that_has_asked_for_nothing_for_long_is_forgotten(clock: Clock) -> None:
    rates = OwnerRates(PER_S, burst=BURST, clock=clock)
    for number in range(1000):
        assert rates.take(str(number), 1)
        clock.now += 1
    assert len(rates) <= BURST / PER_S + 1


def test_what_is_refused_takes_nothing_from_its_owner(clock: Clock) -> None:
    rates = OwnerRates(PER_S, burst=BURST, clock=clock)
    assert [rates.take("a", BURST), rates.take("a", 1)] == [True, False]
    clock.now += 1
    assert [rates.take("a", PER_S + 1), rates.take("a", PER_S), rates.take("a", 1)] == [False, True, False]


def test_an_owner_may_subscribe_to_all_that_it_may_have_at_once(clock: Clock) -> None:
    rates = OwnerRates(500, clock=clock)
    most_of_owner = GatewaySettings.model_fields["most_subscriptions"].default // 2
    connections = most_of_owner // MOST_CHANNELS
    assert connections * MOST_CHANNELS == OWNER_BURST
    assert all(rates.take("a", MOST_CHANNELS) for _ in range(connections))
    assert not rates.take("a", 1)

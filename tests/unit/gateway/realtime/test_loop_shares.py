"""However much one owner sends at once, others are served after a few of its commands and frames."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from chassis.errors import Unauthenticated
from chassis.loop_turns import MOST_IN_PASS, USUAL_WEIGHT
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.realtime.access import Access
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.connections import Connections
from gateway.realtime.slow_clients import SlowClients
from gateway.realtime.sockets import Sockets
from gateway.realtime.wire import EXTENSION
from support.doubles.realtime import Client, Gateway, connected, quote

CONNECTIONS, COMMANDS = 40, 100
# The commands that one pass of the loop begins.
SHARE = MOST_IN_PASS // USUAL_WEIGHT


@pytest.fixture
def bob() -> Access:
    """Return somebody else."""
    return Access(Principal(9, "Bob", "member", "k9", frozenset(Scope)))


@pytest.fixture
def symbols(gateway: Gateway) -> list[str]:
    found = [f"S{number}" for number in range(COMMANDS)]
    gateway.book.push([quote(symbol, 1) for symbol in found])
    return found


def subscribes(symbols: list[str]) -> bytes:
    """Return a frame that subscribes to the quotes of all symbols."""
    lines = [
        {"id": number, "subscribe": {"channel": f"quotes:{symbol}"}}
        for number, symbol in enumerate(symbols, start=10)
    ]
    return b"\n".join(map(orjson.dumps, lines))


async def largest_share(clients: list[Client], sending: list[asyncio.Task[None]]) -> int:
    """Return the most answers that come in one pass of the loop until all is done."""
    largest, before = 0, 0
    while not all(task.done() for task in sending):
        await asyncio.sleep(0)
        now = sum(len(client.frames) for client in clients)
        largest, before = max(largest, now - before), now
    return largest


@pytest.mark.parametrize("form", ["one frame", "frames of one command", "unsubscribe"])
async def test_the_loop_is_free_after_a_few_of_an_owners_commands(
    gateway: Gateway, ann: Access, symbols: list[str], form: str
) -> None:
    clients = [await connected(gateway, ann) for _ in range(CONNECTIONS)]
    frame = subscribes(symbols)

    async def send(client: Client) -> None:
        if form == "one frame":
            await client.session.receive(frame)
            return
        for line in frame.split(b"\n"):
            await client.session.receive(
                line.replace(b"subscribe", form.encode()) if " " not in form else line
            )

    before = sum(len(client.frames) for client in clients)
    sending = [asyncio.create_task(send(client)) for client in clients]
    assert await largest_share(clients, sending) <= 2 * SHARE
    answered = sum(len(client.frames) for client in clients) - before
    assert answered == CONNECTIONS * COMMANDS


async def test_the_loop_is_free_after_a_few_of_the_channels_that_connects_name(
    gateway: Gateway, ann: Access, symbols: list[str]
) -> None:
    clients = [Client(gateway, ann) for _ in range(CONNECTIONS)]
    frame = orjson.dumps({"id": 1, "connect": {"subs": {f"quotes:{symbol}": {} for symbol in symbols}}})
    sending = [asyncio.create_task(client.session.receive(frame)) for client in clients]
    largest, before = 0, 0
    while not all(task.done() for task in sending):
        await asyncio.sleep(0)
        now = sum(gateway.hub.counts().values())
        largest, before = max(largest, now - before), now
    assert before == CONNECTIONS * COMMANDS
    assert largest <= 2 * SHARE


async def test_a_neighbours_command_is_run_after_a_few_of_those_that_wait(
    gateway: Gateway, ann: Access, bob: Access, symbols: list[str]
) -> None:
    clients = [await connected(gateway, ann) for _ in range(CONNECTIONS)]
    neighbour = await connected(gateway, bob)
    frame = subscribes(symbols)
    sending = [asyncio.create_task(client.session.receive(frame)) for client in clients]
    while not any(client.frames for client in clients):
        await asyncio.sleep(0)
    assert await neighbour.ask(unsubscribe={"channel": "chat:lobby"}) == {}
    assert sum(len(client.frames) for client in clients) <= 5 * SHARE
    await asyncio.gather(*sending)


async def test_connections_that_end_at_once_end_their_subscriptions_in_turns(
    gateway: Gateway, ann: Access, symbols: list[str]
) -> None:
    clients = [await connected(gateway, ann) for _ in range(CONNECTIONS)]
    for client in clients:
        await client.session.receive(subscribes(symbols))
    await asyncio.sleep(0)
    for client in clients:
        client.session.release()
    counts = [sum(gateway.hub.counts().values())]
    while counts[-1]:
        await asyncio.sleep(0)
        counts.append(sum(gateway.hub.counts().values()))
    ended = [before - after for before, after in pairwise(counts)]
    assert counts[0] >= (CONNECTIONS - 2) * COMMANDS
    assert max(ended) <= 2 * MOST_IN_PASS


async def test_what_is_published_after_the_end_of_a_connection_is_not_written(
    gateway: Gateway, ann: Access, symbols: list[str]
) -> None:
    clients = [await connected(gateway, ann) for _ in range(10)]
    for client in clients:
        await client.session.receive(subscribes(symbols))
        client.frames.clear()
    for client in clients:
        client.session.release()
    gateway.book.push([quote(symbols[0], 2)])
    gateway.hub.publish(Publication("chat:lobby", ChannelPosition("epoch-1", 1), {"text": "x"}))
    await asyncio.sleep(0)
    assert [client.frames for client in clients] == [[] for _ in clients]


async def test_nothing_is_subscribed_to_once_a_connection_has_ended(gateway: Gateway, ann: Access) -> None:
    client = await connected(gateway, ann)
    client.session.release()
    subscriptions = client.session.subscriptions
    frame = subscribes(["S1"])
    await client.session.receive(frame)
    assert (len(subscriptions), gateway.hub.counts()) == (0, {})


async def test_the_loop_is_free_after_a_few_of_the_upgrades_that_came_together(
    gateway: Gateway, ann: Access
) -> None:
    authenticated, answered = 0, 0

    async def authenticate(token: str | None, address: str | None = None) -> Access:
        nonlocal authenticated
        authenticated += 1
        raise Unauthenticated("The key is not known.")

    async def connect() -> Any:
        return {"type": "websocket.connect"}

    async def answer(message: Any) -> None:
        nonlocal answered
        answered += message["type"] == "websocket.http.response.body"

    sockets = Sockets(
        realtime=replace(gateway.realtime, authenticate=authenticate),
        connections=Connections(renew_nobody),
        limit=ConnectionLimit(total=1000, per_owner=1000),
        slow_clients=SlowClients(),
    )
    scope = {
        "type": "websocket",
        "path": "/v1/realtime",
        "raw_path": b"/v1/realtime",
        "query_string": b"",
        "headers": [(b"host", b"x"), (b"authorization", b"Bearer k")],
        "client": ("192.0.2.1", 1),
        "subprotocols": [],
        "extensions": {EXTENSION: SimpleNamespace()},
    }
    upgrading = [asyncio.create_task(sockets(dict(scope), connect, answer)) for _ in range(200)]
    largest, before = 0, 0
    while not all(task.done() for task in upgrading):
        await asyncio.sleep(0)
        largest, before = max(largest, authenticated - before), authenticated
    assert (authenticated, answered) == (200, 200)
    assert largest <= SHARE


async def renew_nobody(_: Principal) -> None:
    return None

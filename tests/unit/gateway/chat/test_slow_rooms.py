"""A room whose listeners are slow holds up nobody: neither who posts there, nor other rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chassis.loop_turns import LoopTurns
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.publishing.hub import Hub
from gateway.publishing.publications import Publication
from gateway.publishing.signals import Signal
from support.doubles.realtime import Broker, Gateway, Rooms

ANN = Principal(7, "Ann", "member", "k7", frozenset({Scope("chat:write")}))
MANY = 500


class Listeners:
    """The listeners of one owner in the lobby, and what each has heard."""

    def __init__(self, gateway: Gateway, owner: str, number: int) -> None:
        self.heard: list[list[int]] = [[] for _ in range(number)]
        self.signals: list[Signal] = []
        for offsets in self.heard:
            gateway.hub.listen("chat:lobby", self._hear(offsets), owner=owner, on_signal=self.signals.append)

    def _hear(self, offsets: list[int]) -> Callable[[Publication], None]:
        return lambda publication: offsets.append(publication.position.offset)


def slow_gateway(rooms: Rooms | None = None, exchange: Broker | None = None) -> Gateway:
    """Return a gateway that serves few listeners in a pass of its loop."""
    return Gateway(rooms or Rooms(), exchange or Broker(), hub=Hub(turns=LoopTurns(most=10)))


async def until_heard(listeners: Listeners, offset: int) -> None:
    async with asyncio.timeout(60):
        while any(not one or one[-1] < offset for one in listeners.heard):
            await asyncio.sleep(0)


async def test_all_that_is_posted_reaches_a_crowd_however_slow_it_is() -> None:
    gateway = slow_gateway()
    crowd = Listeners(gateway, "1", MANY)
    await gateway.chat.follow("lobby", ANN)
    posts = [gateway.chat.post("lobby", ANN, {"text": "x"}) for _ in range(100)]
    await asyncio.gather(*posts)
    # Nobody waited until the crowd had heard all.
    assert crowd.heard[0] != [*range(1, 101)]
    await until_heard(crowd, 100)
    assert crowd.heard == [[*range(1, 101)]] * MANY
    assert crowd.signals == []


async def test_a_crowd_gets_what_it_missed_page_by_page_and_loses_nothing() -> None:
    gateway = slow_gateway()
    crowd = Listeners(gateway, "1", MANY)
    await gateway.chat.follow("lobby", ANN)
    for _ in range(1500):
        await gateway.rooms.insert_message("lobby", "7", "Ann", '{"text": "x"}', None, None)
    async with asyncio.timeout(60):
        while crowd.heard[-1][-1:] != [1500]:
            # It ends, however slow the crowd is: nobody waits behind it.
            await gateway.chat.look()
            await asyncio.sleep(0)
    assert crowd.heard == [[*range(1, 1501)]] * MANY
    assert crowd.signals == []


async def test_one_who_keeps_up_does_not_wait_for_a_crowd() -> None:
    gateway = slow_gateway()
    crowd, neighbour = Listeners(gateway, "1", MANY), Listeners(gateway, "2", 1)
    await gateway.chat.follow("lobby", ANN)
    for _ in range(20):
        await gateway.chat.post("lobby", ANN, {"text": "x"})
    await until_heard(neighbour, 20)
    assert neighbour.heard == [[*range(1, 21)]]
    assert sum(map(len, crowd.heard)) < 10 * MANY
    await until_heard(crowd, 20)
    assert crowd.heard == [[*range(1, 21)]] * MANY


async def test_a_client_that_claims_to_be_ahead_costs_a_slow_crowd_nothing() -> None:
    gateway = slow_gateway()
    crowd = Listeners(gateway, "1", MANY)
    await gateway.chat.follow("lobby", ANN)
    for _ in range(1500):
        await gateway.rooms.insert_message("lobby", "7", "Ann", '{"text": "x"}', None, None)
    # A page, and the next ones once the crowd has taken it.
    await gateway.chat.follow("lobby", ANN, at_least=2**62)
    assert crowd.signals == []
    async with asyncio.timeout(60):
        while crowd.heard[-1][-1:] != [1500]:
            await gateway.chat.look()
            await asyncio.sleep(0)
    assert crowd.heard == [[*range(1, 1501)]] * MANY
    assert crowd.signals == []


async def test_what_a_slow_crowd_has_missed_comes_before_what_is_announced_and_not_all_at_once() -> None:
    rooms, exchange = Rooms(), Broker()
    here, there = Gateway(rooms, exchange), slow_gateway(rooms, exchange)
    crowd = Listeners(there, "1", MANY)
    await there.chat.follow("lobby", ANN)
    exchange.loses = True
    for _ in range(600):
        await here.chat.post("lobby", ANN, {"text": "x"})
    exchange.loses = False
    for _ in range(3):
        await here.chat.post("lobby", ANN, {"text": "x"})
    assert crowd.signals == []
    async with asyncio.timeout(60):
        while crowd.heard[-1][-1:] != [603]:
            await there.chat.look()
            await asyncio.sleep(0)
    assert crowd.heard == [[*range(1, 604)]] * MANY
    assert crowd.signals == []

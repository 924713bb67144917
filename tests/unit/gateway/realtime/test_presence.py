"""Presence over all gateways: asked for at the time of the answer, and bounded."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from chassis import shares
from gateway.realtime import presence as module
from gateway.realtime.presence import MOST_ASKED_OF_OWNER, MOST_LISTED
from support.doubles.realtime import Broker, Gateway


async def know_each_other(*gateways: Gateway) -> None:
    for gateway in gateways:
        await gateway.presence.greet()


async def test_a_single_gateway_reports_its_own_connections(gateway: Gateway) -> None:
    gateway.presence.join("chat:lobby", "c1", "7")
    gateway.presence.join("chat:lobby", "c2", "7")
    found = await gateway.presence.of("chat:lobby")
    assert (found.users, found.num_clients, found.num_users) == ({"c1": "7", "c2": "7"}, 2, 1)
    gateway.presence.leave("chat:lobby", "c1")
    gateway.presence.leave("chat:lobby", "c2")
    gateway.presence.leave("chat:lobby", "c2")
    assert (await gateway.presence.of("chat:lobby")).num_clients == 0


async def test_all_gateways_report_the_same_presence(gateway: Gateway, other_gateway: Gateway) -> None:
    await know_each_other(gateway, other_gateway)
    gateway.presence.join("chat:lobby", "c1", "7")
    other_gateway.presence.join("chat:lobby", "c2", "9")
    for one in (gateway, other_gateway):
        found = await one.presence.of("chat:lobby")
        assert (found.users, found.num_users, found.is_partial) == ({"c1": "7", "c2": "9"}, 2, False)


async def test_a_gateway_that_has_just_started_learns_of_the_others_at_once(
    gateway: Gateway, other_gateway: Gateway
) -> None:
    other_gateway.presence.join("chat:lobby", "c2", "9")
    await gateway.presence.greet()
    assert (await gateway.presence.of("chat:lobby")).num_clients == 1


async def test_a_gateway_that_does_not_answer_makes_the_answer_partial(
    gateway: Gateway,
    other_gateway: Gateway,
    exchange: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.01)
    await know_each_other(gateway, other_gateway)
    gateway.presence.join("chat:lobby", "c1", "7")
    exchange.loses = True
    found = await gateway.presence.of("chat:lobby")
    assert (found.num_clients, found.is_partial) == (1, True)


async def test_a_gateway_that_ended_is_not_waited_for(
    gateway: Gateway,
    other_gateway: Gateway,
    exchange: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await know_each_other(gateway, other_gateway)
    exchange.loses = True
    monkeypatch.setattr(module, "ALIVE_FOR_S", 0)
    assert not (await gateway.presence.of("chat:lobby")).is_partial


async def test_questions_at_the_same_time_share_one(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker
) -> None:
    await know_each_other(gateway, other_gateway)
    exchange.sent.clear()
    await asyncio.gather(*(gateway.presence.of("chat:lobby") for _ in range(50)))
    assert len(exchange.sent) == 2


async def test_the_counts_are_of_all_and_the_list_is_bounded(gateway: Gateway) -> None:
    for number in range(MOST_LISTED + 5):
        gateway.presence.join("quotes:A", f"c{number}", "7")
    found = await gateway.presence.of("quotes:A")
    assert (len(found.users), found.num_clients) == (MOST_LISTED, MOST_LISTED + 5)


class Watched(str):
    """The name of a user that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        Watched.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)

    def __lt__(self, other: str) -> bool:
        Watched.looks += 1
        return super().__lt__(other)


async def test_a_query_of_a_crowded_channel_does_not_look_at_all_its_connections(
    gateway: Gateway,
) -> None:
    for number in range(20_000):
        gateway.presence.join("quotes:A", f"c{number}", Watched(number % 5))
    Watched.looks = 0
    found = await gateway.presence.of("quotes:A")
    assert (found.num_clients, found.num_users) == (20_000, 5)
    assert Watched.looks < 100


async def test_an_owner_asks_a_few_questions_at_a_time_and_keeps_nobody_waiting(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker
) -> None:
    await know_each_other(gateway, other_gateway)
    exchange.loses = True
    exchange.sent.clear()

    async def ask(owner: str, number: int) -> None:
        shares.current.set(owner)
        await gateway.presence.of(f"chat:{owner}-{number}")

    asking = [asyncio.create_task(ask("a", number)) for number in range(200)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(exchange.sent) == MOST_ASKED_OF_OWNER
    asking.append(asyncio.create_task(ask("b", 1)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert orjson.loads(exchange.sent[-1])["channel"] == "chat:b-1"
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_nobody_waits_for_a_gateway_that_has_taken_its_leave(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker
) -> None:
    await know_each_other(gateway, other_gateway)
    other_gateway.presence.join("chat:lobby", "c2", "9", is_told=True)
    await other_gateway.presence.tell_moves()
    other_gateway.presence.leave("chat:lobby", "c2", is_told=True)
    exchange.loses = True
    asking = asyncio.create_task(gateway.presence.of("chat:lobby"))
    while len(exchange.sent) < 4:
        await asyncio.sleep(0)
    exchange.loses = False
    heard: list[bytes] = []
    gateway.presence.moves.listen("chat:lobby", heard.append)
    await other_gateway.presence.take_leave()
    found = await asking
    assert (found.num_clients, found.is_partial) == (0, False)
    # The last leaves came before.
    await gateway.presence.tell_moves()
    assert b'"leave"' in b"".join(heard)
    exchange.sent.clear()
    # It says nothing more, and so nobody expects it back.
    await other_gateway.presence.greet()
    await gateway.presence.greet()
    other_gateway.presence.join("chat:lobby", "c3", "9", is_told=True)
    await other_gateway.presence.tell_moves()
    assert not (await gateway.presence.of("chat:lobby")).is_partial
    assert {orjson.loads(one)["gateway"] for one in exchange.sent} == {gateway.presence.gateway}


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"gateway":"x","question":"1"}', b"nonsense"])
async def test_an_unknown_message_raises_an_error_that_the_feed_catches(
    gateway: Gateway, body: bytes
) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        await gateway.presence.heard(body)


async def test_a_stop_sends_the_leaves_of_an_owner_with_many_connections(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker
) -> None:
    await know_each_other(gateway, other_gateway)
    shares.current.set("9")
    for number in range(300):
        other_gateway.presence.join("chat:lobby", f"c{number}", "9", is_told=True)
    for _ in range(30):
        await other_gateway.presence.tell_moves()
    exchange.sent.clear()
    for number in range(300):
        other_gateway.presence.leave("chat:lobby", f"c{number}", is_told=True)
    await other_gateway.presence.take_leave()
    told = [orjson.loads(message) for message in exchange.sent]
    left = {client for message in told for _, client, _, joins in message.get("moves") or () if not joins}
    assert left == {f"c{number}" for number in range(300)}
    assert told[-1]["alive"] is False


async def test_a_round_that_is_being_told_at_a_stop_reaches_the_others_before_the_farewell(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker
) -> None:
    await know_each_other(gateway, other_gateway)
    presence = other_gateway.presence
    # Pushing to so many takes several passes of the loop.
    for _ in range(500):
        presence.moves.listen("chat:lobby", lambda _: None)
    presence.join("chat:lobby", "c1", "9", is_told=True)
    exchange.sent.clear()
    telling = asyncio.create_task(presence.tell_moves())
    await asyncio.sleep(0)
    presence.leave("chat:lobby", "c1", is_told=True)
    await presence.take_leave()
    await telling
    told = [orjson.loads(message) for message in exchange.sent]
    moves = [(client, joins) for message in told for _, client, _, joins in message.get("moves") or ()]
    assert moves == [("c1", True), ("c1", False)]
    assert [message.get("alive") for message in told] == [None, None, False]

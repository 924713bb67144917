"""Pushes of joins and leaves of a channel, over all gateways."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import orjson
import pytest

from gateway.realtime.access import Access
from gateway.realtime.codes import CloseCode
from gateway.realtime.commands import MOST_CHANNELS
from gateway.realtime.moves import MOST_HEARD, MOST_IN_ROUND, MOST_OF_OWNER, MOST_WAITING_OF_OWNER
from support.doubles.realtime import Client, Gateway, connected, payloads


async def listening(gateway: Gateway, access: Access, *, user_id: int, join_leave: bool = True) -> Client:
    """Return a connection of a user that listens to the lobby; what came so far is forgotten."""
    principal = replace(access.principal, user_id=user_id)
    client = await connected(gateway, replace(access, principal=principal))
    answer = await client.ask(subscribe={"channel": "chat:lobby", "join_leave": join_leave})
    assert answer["recoverable"]
    return client


def moves(client: Client) -> list[Any]:
    """Return the joins and leaves that were pushed since the last call: the kind and the user."""
    return [
        (kind, push[kind]["info"]["user"])
        for push in client.pushes()
        for kind in ("join", "leave")
        if kind in push
    ]


async def told(*gateways: Gateway) -> None:
    """Push what waits on the gateways, and then what they have heard of each other."""
    for gateway in gateways * 2:
        await gateway.presence.tell_moves()


async def test_a_subscriber_can_be_notified_of_joins_and_leaves_on_any_gateway(
    gateway: Gateway, other_gateway: Gateway, ann: Access
) -> None:
    here = await listening(gateway, ann, user_id=1)
    deaf = await listening(gateway, ann, user_id=2, join_leave=False)
    there = await listening(other_gateway, ann, user_id=3)
    await told(gateway, other_gateway)
    assert moves(here) == [("join", "1"), ("join", "2"), ("join", "3")]
    await deaf.ask(unsubscribe={"channel": "chat:lobby"})
    there.session.close(CloseCode.EXPIRED)
    await told(gateway, other_gateway)
    assert moves(here) == [("leave", "2"), ("leave", "3")]
    assert moves(deaf) == []


async def test_a_push_names_the_connection_and_the_user(gateway: Gateway, ann: Access) -> None:
    here = await listening(gateway, ann, user_id=1)
    await told(gateway)
    here.pushes()
    other = await listening(gateway, ann, user_id=9)
    await told(gateway)
    [push] = here.pushes()
    assert push == {"channel": "chat:lobby", "join": {"info": {"user": "9", "client": other.session.id}}}


async def test_a_connection_joins_behind_its_reply_and_a_refused_one_never(
    gateway: Gateway, ann: Access
) -> None:
    here = await listening(gateway, ann, user_id=1)
    await told(gateway)
    here.pushes()
    stranger = await connected(gateway, replace(ann, channels=frozenset({"chat:other"})))
    assert (await stranger.ask(subscribe={"channel": "chat:lobby", "join_leave": True}))["code"] == 103
    stranger.session.release()
    await told(gateway)
    assert moves(here) == []


async def test_only_channels_of_rooms_announce_joins_and_leaves(gateway: Gateway, ann: Access) -> None:
    quote = {"symbol": "AAPL", "as_of": "2026-01-01T00:00:00Z", "stream": {"epoch": "feed", "offset": 1}}
    gateway.book.push([quote])
    client = await connected(gateway, ann)
    await client.ask(subscribe={"channel": "quotes:AAPL", "join_leave": True})
    other = await connected(gateway, ann)
    await other.ask(subscribe={"channel": "quotes:AAPL"})
    await gateway.presence.tell_moves()
    assert moves(client) == []
    assert gateway.exchange.sent == []


def pushed(gateway: Gateway) -> list[bytes]:
    """Return the list to which the pieces for a subscriber of the lobby are added."""
    pieces: list[bytes] = []
    gateway.presence.moves.listen("chat:lobby", pieces.append)
    return pieces


def clients(piece: bytes) -> list[str]:
    pushes = [orjson.loads(text)["push"] for text in payloads(piece)]
    return [(push.get("join") or push["leave"])["info"]["client"] for push in pushes]


async def test_only_subscribers_that_asked_for_joins_and_leaves_are_visited(
    gateway: Gateway, ann: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To whatever is signalled, all subscribers of a room listen.
    visited: list[Any] = []
    monkeypatch.setattr(gateway.hub, "signal", visited.append)
    asked = await listening(gateway, ann, user_id=1)
    for number in range(20):
        await listening(gateway, ann, user_id=2 + number, join_leave=False)
    await told(gateway)
    assert len(moves(asked)) == 21
    assert visited == []


async def test_the_connections_of_one_owner_do_not_delay_the_moves_of_others(
    gateway: Gateway,
) -> None:
    pieces = pushed(gateway)
    for number in range(5000):
        gateway.presence.join("chat:lobby", f"c{number}", "7", is_told=True)
    gateway.presence.join("chat:lobby", "d", "8", is_told=True)
    await told(gateway)
    # The newest wait, and each round has some of each owner.
    first = 5000 - MOST_WAITING_OF_OWNER
    assert clients(pieces[0]) == [f"c{first + n}" for n in range(MOST_OF_OWNER)] + ["d"]
    assert clients(pieces[1]) == [f"c{first + MOST_OF_OWNER + n}" for n in range(MOST_OF_OWNER)]
    while gateway.presence.moves.are_due.is_set():
        await told(gateway)
    assert sum(len(clients(piece)) for piece in pieces) == MOST_WAITING_OF_OWNER + 1


async def test_a_round_is_bounded_and_the_other_owners_are_next(gateway: Gateway) -> None:
    pieces = pushed(gateway)
    owners = [f"{owner}" for owner in range(MOST_IN_ROUND + 50)]
    for owner in owners:
        for number in range(2):
            gateway.presence.join("chat:lobby", f"{owner}-{number}", owner, is_told=True)
    while gateway.presence.moves.are_due.is_set():
        await told(gateway)
    assert max(len(clients(piece)) for piece in pieces) <= MOST_IN_ROUND + MOST_OF_OWNER
    assert sorted(client for piece in pieces for client in clients(piece)) == sorted(
        f"{owner}-{number}" for owner in owners for number in range(2)
    )


async def test_of_a_connection_that_comes_and_goes_within_a_round_only_the_newest_move_is_pushed(
    gateway: Gateway,
) -> None:
    pieces = pushed(gateway)
    gateway.presence.join("chat:lobby", "stays", "7", is_told=True)
    await told(gateway)
    pieces.clear()
    for _ in range(500):
        gateway.presence.join("chat:lobby", "c", "7", is_told=True)
        gateway.presence.leave("chat:lobby", "c", is_told=True)
        gateway.presence.leave("chat:lobby", "stays", is_told=True)
        gateway.presence.join("chat:lobby", "stays", "7", is_told=True)
    await told(gateway)
    pushes = [orjson.loads(text)["push"] for text in payloads(b"".join(pieces))]
    assert [push["leave"]["info"]["client"] for push in pushes if "leave" in push] == ["c"]
    assert [push["join"]["info"]["client"] for push in pushes if "join" in push] == ["stays"]


async def test_whoever_subscribes_between_two_moves_of_a_connection_hears_the_second(
    gateway: Gateway, ann: Access
) -> None:
    gateway.presence.join("chat:lobby", "a", "7")
    gateway.presence.join("chat:lobby", "b", "8", is_told=True)
    gateway.presence.leave("chat:lobby", "a", is_told=True)
    between = await listening(gateway, ann, user_id=1)
    assert set((await gateway.presence.of("chat:lobby")).users) == {"b", between.session.id}
    gateway.presence.join("chat:lobby", "a", "7", is_told=True)
    gateway.presence.leave("chat:lobby", "b", is_told=True)
    await told(gateway)
    assert sorted(moves(between)) == [("join", "1"), ("join", "7"), ("leave", "8")]


async def test_nothing_is_lost_of_a_connection_with_all_the_rooms_it_may_have_and_its_successor(
    gateway: Gateway,
) -> None:
    pieces: list[bytes] = []
    rooms = [f"chat:{number}" for number in range(MOST_CHANNELS)]
    for room in rooms:
        gateway.presence.moves.listen(room, pieces.append)
        gateway.presence.join(room, "old", "7")
    for room in rooms:
        gateway.presence.leave(room, "old", is_told=True)
    for room in rooms:
        gateway.presence.join(room, "new", "7", is_told=True)
    while gateway.presence.moves.are_due.is_set():
        await told(gateway)
    heard = [client for piece in pieces for client in clients(piece)]
    assert heard == ["old"] * MOST_CHANNELS + ["new"] * MOST_CHANNELS


async def test_a_subscriber_hears_nothing_of_the_time_before_it_and_its_own_join_first(
    gateway: Gateway, ann: Access
) -> None:
    gateway.presence.join("chat:lobby", "early", "5", is_told=True)
    first = await listening(gateway, ann, user_id=1)
    gateway.presence.join("chat:lobby", "between", "6", is_told=True)
    second = await listening(gateway, ann, user_id=2)
    gateway.presence.leave("chat:lobby", "early", is_told=True)
    gateway.presence.join("chat:lobby", "late", "7", is_told=True)
    await told(gateway)
    assert moves(first) == [("join", "1"), ("join", "6"), ("join", "2"), ("leave", "5"), ("join", "7")]
    assert moves(second) == [("join", "2"), ("leave", "5"), ("join", "7")]


async def test_other_work_goes_on_while_a_room_is_told(gateway: Gateway) -> None:
    told_of: list[int] = []
    for number in range(400):
        gateway.presence.moves.listen("chat:lobby", partial(lambda number, _: told_of.append(number), number))
    gateway.presence.join("chat:lobby", "c", "7", is_told=True)
    telling = asyncio.create_task(gateway.presence.tell_moves())
    steps = [0]
    while not telling.done():
        await asyncio.sleep(0)
        steps.append(len(told_of))
    assert max(after - before for before, after in pairwise(steps)) <= 50
    assert told_of == list(range(400))


async def test_who_stops_listening_while_a_room_is_told_gets_nothing_more_and_a_failure_is_its_own(
    gateway: Gateway,
) -> None:
    def fail(_: bytes) -> None:
        stop()
        raise RuntimeError

    gateway.presence.moves.listen("chat:lobby", fail)
    gone: list[bytes] = []
    stop = gateway.presence.moves.listen("chat:lobby", gone.append)
    pieces = pushed(gateway)
    gateway.presence.join("chat:lobby", "c", "7", is_told=True)
    await told(gateway)
    assert (len(pieces), gone) == (1, [])


async def test_subscribers_here_do_not_wait_for_the_broker(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, before = pushed(gateway), []

    async def send(_: object) -> None:
        before.append(len(pieces))

    monkeypatch.setattr(gateway.exchange, "send", send)
    gateway.presence.join("chat:lobby", "c", "7", is_told=True)
    await gateway.presence.tell_moves()
    assert before == [1]


async def test_joins_and_leaves_of_other_gateways_are_one_message_of_a_bounded_number(
    gateway: Gateway, other_gateway: Gateway
) -> None:
    pieces = pushed(other_gateway)
    for owner in range(30):
        gateway.presence.join("chat:lobby", f"c{owner}", f"{owner}", is_told=True)
    await told(gateway, other_gateway)
    moved = [body for body in gateway.exchange.sent if b'"moves"' in body]
    assert len(moved) == 1
    assert [len(clients(piece)) for piece in pieces] == [30]
    # The release before sends up to a thousand at once.
    moves = [["chat:lobby", f"d{number}", "7", True] for number in range(MOST_HEARD + 500)]
    await other_gateway.presence.heard(orjson.dumps({"gateway": "old", "moves": moves}))
    await told(other_gateway)
    assert clients(pieces[-1]) == [f"d{500 + number}" for number in range(MOST_HEARD)]


@pytest.mark.parametrize("body", [b'{"gateway":"x","moves":[1]}', b'{"gateway":"x","moves":[["a","b"]]}'])
async def test_invalid_joins_and_leaves_raise_the_error_that_the_feed_catches(
    gateway: Gateway, body: bytes
) -> None:
    with pytest.raises((TypeError, ValueError)):
        await gateway.presence.heard(body)

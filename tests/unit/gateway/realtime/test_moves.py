"""Pushes of joins and leaves of a channel, over all gateways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.realtime.access import Access
from gateway.realtime.codes import CloseCode
from support.doubles.realtime import Client, Gateway, connected


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


async def test_a_subscriber_can_be_notified_of_joins_and_leaves_on_any_gateway(
    gateway: Gateway, other_gateway: Gateway, ann: Access
) -> None:
    here = await listening(gateway, ann, user_id=1)
    deaf = await listening(gateway, ann, user_id=2, join_leave=False)
    there = await listening(other_gateway, ann, user_id=3)
    for one in (gateway, other_gateway):
        await one.presence.tell_moves()
    assert moves(here) == [("join", "1"), ("join", "2"), ("join", "3")]
    await deaf.ask(unsubscribe={"channel": "chat:lobby"})
    there.session.close(CloseCode.EXPIRED)
    for one in (gateway, other_gateway):
        await one.presence.tell_moves()
    assert moves(here) == [("leave", "2"), ("leave", "3")]
    assert moves(deaf) == []


async def test_a_push_names_the_connection_and_the_user(gateway: Gateway, ann: Access) -> None:
    here = await listening(gateway, ann, user_id=1)
    here.pushes()
    other = await listening(gateway, ann, user_id=9)
    [push] = here.pushes()
    assert push == {"channel": "chat:lobby", "join": {"info": {"user": "9", "client": other.session.id}}}


async def test_a_connection_joins_behind_its_reply_and_a_refused_one_never(
    gateway: Gateway, ann: Access
) -> None:
    here = await listening(gateway, ann, user_id=1)
    here.pushes()
    stranger = await connected(gateway, replace(ann, channels=frozenset({"chat:other"})))
    assert (await stranger.ask(subscribe={"channel": "chat:lobby", "join_leave": True}))["code"] == 103
    stranger.session.release()
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


async def test_joins_and_leaves_that_come_together_are_one_message_of_a_bounded_size(
    gateway: Gateway, other_gateway: Gateway
) -> None:
    heard: list[Any] = []
    other_gateway.hub.listen("chat:lobby", lambda _: None, on_signal=heard.append)
    for number in range(1500):
        gateway.presence.join("chat:lobby", f"c{number}", "7", is_told=True)
    await gateway.presence.tell_moves()
    await gateway.presence.tell_moves()
    moved = [body for body in gateway.exchange.sent if b'"moves"' in body]
    assert len(moved) == 1
    assert [heard[0].client, heard[-1].client, len(heard)] == ["c500", "c1499", 1000]


@pytest.mark.parametrize("body", [b'{"gateway":"x","moves":[1]}', b'{"gateway":"x","moves":[["a","b"]]}'])
async def test_invalid_joins_and_leaves_raise_the_error_that_the_feed_catches(
    gateway: Gateway, body: bytes
) -> None:
    with pytest.raises((TypeError, ValueError)):
        await gateway.presence.heard(body)

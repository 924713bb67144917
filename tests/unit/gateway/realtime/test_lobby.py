"""`/ws` takes chat lines, sends those of everybody, and is guarded like any interface of the lobby."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from chassis.errors import Forbidden, Overloaded
from chassis.loop_turns import LoopTurns
from contracts.scopes import Scope
from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.realtime.access import Access
from gateway.realtime.codes import CloseCode
from gateway.realtime.lobby import LobbySession
from support.doubles.realtime import Broker, Gateway, Rooms, payload


class LobbyConnection:
    """A connection of `/ws`."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self.heard: list[str] = []
        self.closed: list[CloseCode] = []
        self.session = LobbySession(
            gateway.realtime,
            access,
            write=lambda frame: self.heard.append(payload(frame).decode()),
            close_connection=lambda code, _: self.closed.append(code),
        )


class SlowRooms(Rooms):
    """A database that takes some passes of the loop to find a room."""

    async def get_room(self, name: str, user_id: int) -> dict[str, Any] | None:
        for _ in range(20):
            await asyncio.sleep(0)
        return await super().get_room(name, user_id)


async def opened(gateway: Gateway, access: Access) -> LobbyConnection:
    line = LobbyConnection(gateway, access)
    await line.session.open()
    return line


def without(access: Access, *scopes: Scope) -> Access:
    return replace(access, principal=replace(access.principal, scopes=access.principal.scopes - set(scopes)))


async def test_a_line_comes_back_to_everybody(gateway: Gateway, ann: Access) -> None:
    here, there = await opened(gateway, ann), await opened(gateway, ann)
    await here.session.receive("hello")
    await there.session.receive("grüße".encode())
    assert here.heard == there.heard == ["Message received: hello", "Message received: grüße"]


async def test_it_works_in_the_share_of_its_owner(gateway: Gateway, ann: Access) -> None:
    line = LobbyConnection(gateway, ann)
    await asyncio.create_task(line.session.open())
    await asyncio.create_task(line.session.receive("hello"))
    assert gateway.rooms.lent_to == [ann.principal.owner_id] * 2


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "x" * 4001])
async def test_a_line_that_cannot_be_kept_is_an_error_and_the_connection_lives(
    gateway: Gateway, ann: Access, text: str
) -> None:
    line = await opened(gateway, ann)
    await line.session.receive(text)
    await line.session.receive("good")
    assert line.heard[0].startswith("Error: ")
    assert (line.heard[1:], line.closed) == (["Message received: good"], [])


async def test_a_socket_without_the_right_to_read_the_lobby_is_refused(gateway: Gateway, ann: Access) -> None:
    with pytest.raises(Forbidden):
        await opened(gateway, without(ann, Scope.CHAT_READ))
    assert gateway.hub.counts() == {}


@pytest.mark.parametrize(
    ("in_pass", "number"),
    [pytest.param(5_000, 1_001, id="with more than is held"), pytest.param(1, 1_100, id="behind others")],
)
async def test_a_socket_that_falls_behind_while_it_opens_is_refused_and_leaves_nothing(
    ann: Access, in_pass: int, number: int
) -> None:
    gateway = Gateway(SlowRooms(), Broker(), hub=Hub(turns=LoopTurns(most=in_pass)))
    opening = asyncio.create_task(opened(gateway, ann))
    await asyncio.sleep(0)
    for offset in range(1, number + 1):
        news = Publication("chat:lobby", ChannelPosition("epoch-1", offset), {"text": "x"})
        gateway.hub.publish(news, is_ordered=True)
    with pytest.raises(Overloaded):
        await opening
    assert gateway.hub.counts() == {}


async def test_without_the_right_to_write_a_line_is_refused(gateway: Gateway, ann: Access) -> None:
    line = await opened(gateway, without(ann, Scope.CHAT_WRITE))
    await line.session.receive("hello")
    assert len(line.heard) == 1
    assert "chat:write" in line.heard[0]
    assert gateway.rooms.messages == []


async def test_a_right_that_is_lost_ends_what_it_allowed(gateway: Gateway, ann: Access) -> None:
    writer, reader, revoked = [await opened(gateway, ann) for _ in range(3)]
    writer.session.change_access(without(ann, Scope.CHAT_WRITE))
    await writer.session.receive("hello")
    reader.session.change_access(without(ann, Scope.CHAT_READ))
    revoked.session.change_access(None)
    assert "chat:write" in writer.heard[0]
    assert (writer.closed, reader.closed, revoked.closed) == (
        [],
        [CloseCode.PERMISSION_DENIED],
        [CloseCode.INVALID_TOKEN],
    )
    assert gateway.hub.counts() == {"chat:lobby": 1}


async def test_lines_that_were_here_before_a_key_was_revoked_are_not_posted(
    gateway: Gateway, ann: Access
) -> None:
    line = await opened(gateway, ann)
    line.session.change_access(None)
    await line.session.receive("late")
    assert (gateway.rooms.messages, line.heard) == ([], [])


async def test_lines_that_come_too_fast_are_refused_and_then_close(gateway: Gateway, ann: Access) -> None:
    line = await opened(gateway, without(ann, Scope.CHAT_WRITE))
    for _ in range(1000):
        await line.session.receive("x")
    assert any("too many requests" in text for text in line.heard)
    assert line.closed == [CloseCode.TOO_MANY_REQUESTS]


async def test_a_connection_ends_with_its_token(gateway: Gateway, ann: Access) -> None:
    line = await opened(gateway, replace(ann, expires_at=1.0))
    line.session.tick(0.0)
    assert line.closed == [CloseCode.EXPIRED]

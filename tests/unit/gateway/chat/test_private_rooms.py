"""Private rooms do not exist for anybody who is no member, and former members receive nothing more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.errors import Forbidden, NotFound, TooManyAtOnce
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.realtime.access import Access
from support.doubles.realtime import Broker, Client, Gateway, Rooms, connected

SCOPES = frozenset({Scope.CHAT_READ, Scope.CHAT_WRITE})
MANAGER, WRITER, READER, STRANGER = (
    Principal(number, name, "member", f"k{number}", SCOPES)
    for number, name in enumerate(("Mia", "Will", "Rae", "Sam"), start=1)
)
COMMANDS = ("subscribe", "publish", "history", "presence", "presence_stats")


@pytest.fixture(autouse=True)
def _board(rooms: Rooms) -> None:
    rooms.epochs["board"] = "epoch-2"
    rooms.members["board"] = {
        MANAGER.user_id: "manager",
        WRITER.user_id: "writer",
        READER.user_id: "reader",
    }


async def client_of(gateway: Gateway, principal: Principal) -> Client:
    return await connected(gateway, Access(principal))


@pytest.mark.parametrize("command", COMMANDS)
async def test_no_command_of_a_stranger_finds_the_room(gateway: Gateway, command: str) -> None:
    data = {"data": {"text": "x"}} if command == "publish" else {}
    # Also when the room is shown here to others.
    member = await client_of(gateway, READER)
    await member.ask(subscribe={"channel": "chat:board"})
    stranger = await client_of(gateway, STRANGER)
    private = await stranger.ask(**{command: {"channel": "chat:board", **data}})
    missing = await stranger.ask(**{command: {"channel": "chat:nowhere", **data}})
    assert private["code"] == missing["code"] == 102
    assert private["message"].replace("board", "nowhere") == missing["message"]


async def test_a_reader_receives_messages_and_may_not_post(gateway: Gateway) -> None:
    reader, writer = await client_of(gateway, READER), await client_of(gateway, WRITER)
    assert (await reader.ask(subscribe={"channel": "chat:board"}))["recoverable"]
    assert (await reader.ask(publish={"channel": "chat:board", "data": {"text": "x"}}))["code"] == 103
    assert await writer.ask(publish={"channel": "chat:board", "data": {"text": "hi"}}) == {}
    assert reader.offsets() == [1]
    assert len((await reader.ask(history={"channel": "chat:board", "limit": 9}))["publications"]) == 1


async def test_the_right_to_post_is_that_of_the_member(gateway: Gateway) -> None:
    with pytest.raises(Forbidden):
        await gateway.chat.post("board", READER, {"text": "x"})
    with pytest.raises(NotFound):
        await gateway.chat.post("board", STRANGER, {"text": "x"})
    assert (await gateway.chat.post("board", MANAGER, {"text": "x"})).offset == 1


async def test_a_removed_member_is_notified_and_receives_nothing_more_on_any_gateway(
    gateway: Gateway, other_gateway: Gateway, rooms: Rooms
) -> None:
    stays, goes = await client_of(gateway, WRITER), await client_of(other_gateway, READER)
    for client in (stays, goes):
        await client.ask(subscribe={"channel": "chat:board"})
    del rooms.members["board"][READER.user_id]
    await gateway.chat.announce_members("board")
    [push] = goes.pushes()
    assert (push["channel"], push["unsubscribe"]["code"]) == ("chat:board", 2000)
    assert "board" in push["unsubscribe"]["reason"]
    await gateway.chat.post("board", WRITER, {"text": "among us"})
    assert (goes.frames, stays.offsets()) == ([], [1])
    assert (await goes.ask(subscribe={"channel": "chat:board"}))["code"] == 102


async def test_a_removal_whose_announcement_was_lost_ends_the_subscription_at_the_next_check(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker, rooms: Rooms
) -> None:
    goes = await client_of(other_gateway, READER)
    await goes.ask(subscribe={"channel": "chat:board"})
    exchange.loses = True
    del rooms.members["board"][READER.user_id]
    await gateway.chat.announce_members("board")
    assert goes.pushes() == []
    await other_gateway.chat.look()
    [push] = goes.pushes()
    assert push["unsubscribe"]["code"] == 2000
    await other_gateway.chat.look()


async def test_only_those_who_listen_are_compared_with_the_members(gateway: Gateway, rooms: Rooms) -> None:
    rooms.members["board"] |= dict.fromkeys(range(100, 1000), "reader")
    for _ in range(3):
        client = await client_of(gateway, READER)
        await client.ask(subscribe={"channel": "chat:board"})
    await gateway.chat.look()
    assert rooms.looked_up == [("board", READER.user_id)]
    client.session.release()
    assert gateway.hub.signalled("chat:board") == {str(READER.user_id)}


async def test_while_the_database_is_away_members_stay(gateway: Gateway, rooms: Rooms) -> None:
    client = await client_of(gateway, READER)
    await client.ask(subscribe={"channel": "chat:board"})
    rooms.is_away = True
    await gateway.chat.look()
    assert client.pushes() == []


async def test_a_change_of_members_stands_though_they_cannot_be_read(gateway: Gateway, rooms: Rooms) -> None:
    client = await client_of(gateway, READER)
    await client.ask(subscribe={"channel": "chat:board"})
    rooms.failure = TooManyAtOnce("512 of your requests wait.")
    await gateway.chat.announce_members("board")
    assert client.pushes() == []


async def test_a_token_of_a_channel_opens_no_room_to_a_stranger(gateway: Gateway) -> None:
    bound = Access(STRANGER, channels=frozenset({"chat:board"}))
    client = await connected(gateway, bound)
    assert (await client.ask(subscribe={"channel": "chat:board"}))["code"] == 102
    client = await connected(gateway, replace(bound, principal=READER))
    assert "epoch" in await client.ask(subscribe={"channel": "chat:board"})

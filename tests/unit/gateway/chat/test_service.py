"""Chat: stored before it is shown, shown in order, gaps filled, on every gateway."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import shares
from chassis.errors import InvalidInput, NotFound, TooManyAtOnce
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.publishing.positions import ChannelPosition
from support.doubles.realtime import Broker, Gateway, Rooms

ANN = Principal(7, "Ann", "member", "k7", frozenset({Scope("chat:write")}))


def listen(gateway: Gateway, room: str = "lobby") -> list[tuple[int, str]]:
    heard: list[tuple[int, str]] = []
    gateway.hub.listen(f"chat:{room}", lambda p: heard.append((p.position.offset, p.data["text"])))
    return heard


async def say(gateway: Gateway, *texts: str) -> None:
    for text in texts:
        await gateway.chat.post("lobby", ANN, {"text": text})


async def test_a_message_is_shown_here_and_on_the_other_gateway_once(
    gateway: Gateway, other_gateway: Gateway
) -> None:
    here, there = listen(gateway), listen(other_gateway)
    await gateway.chat.follow("lobby", ANN)
    await other_gateway.chat.follow("lobby", ANN)
    await say(gateway, "one", "two")
    await say(other_gateway, "three")
    assert here == there == [(1, "one"), (2, "two"), (3, "three")]


async def test_every_publication_names_its_publisher_and_over_http_that_is_the_user(
    gateway: Gateway, other_gateway: Gateway
) -> None:
    heard: list[Any] = []
    for one in (gateway, other_gateway):
        await one.chat.follow("lobby", ANN)
        one.hub.listen("chat:lobby", lambda p: heard.append(p.document()["info"]))
    await gateway.chat.post("lobby", ANN, {"text": "one", "info": "mine"}, client="c1")
    await say(gateway, "two")
    assert heard == [{"user": "7", "client": "c1"}] * 2 + [{"user": "7"}] * 2


async def test_a_room_that_nobody_follows_here_is_not_shown(gateway: Gateway, other_gateway: Gateway) -> None:
    there = listen(other_gateway)
    await say(gateway, "one")
    assert there == []


async def test_a_lost_announcement_is_made_good_by_the_next(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker
) -> None:
    there = listen(other_gateway)
    await other_gateway.chat.follow("lobby", ANN)
    exchange.loses = True
    await say(gateway, "one", "two")
    assert there == []
    exchange.loses = False
    await say(gateway, "three")
    assert there == [(1, "one"), (2, "two"), (3, "three")]


async def test_a_gap_of_many_pages_is_filled(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker, rooms: Rooms
) -> None:
    there = listen(other_gateway)
    await other_gateway.chat.follow("lobby", ANN)
    exchange.loses = True
    await say(gateway, *[str(number) for number in range(1, 701)])
    exchange.loses = False
    await say(gateway, "701")
    assert there == [(number, str(number)) for number in range(1, 702)]


async def test_announcements_in_the_wrong_order_are_shown_in_the_right_one(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker
) -> None:
    there = listen(other_gateway)
    await other_gateway.chat.follow("lobby", ANN)
    exchange.loses = True
    await say(gateway, "one", "two", "three")
    for body in reversed(exchange.sent):
        await other_gateway.chat.heard(body)
    assert there == [(1, "one"), (2, "two"), (3, "three")]


async def test_posts_at_the_same_time_are_shown_in_the_order_of_their_offsets(gateway: Gateway) -> None:
    heard = listen(gateway)
    await gateway.chat.follow("lobby", ANN)
    await asyncio.gather(*(say(gateway, f"m{number}") for number in range(50)))
    assert [offset for offset, _ in heard] == list(range(1, 51))


async def test_a_follower_begins_at_the_present_offset_of_the_room(gateway: Gateway) -> None:
    await say(gateway, "old")
    heard = listen(gateway)
    assert await gateway.chat.follow("lobby", ANN) == ChannelPosition("epoch-1", 1)
    await say(gateway, "new")
    assert heard == [(2, "new")]


async def test_a_client_that_has_seen_more_elsewhere_makes_this_gateway_read_the_database(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker
) -> None:
    there = listen(other_gateway)
    await other_gateway.chat.follow("lobby", ANN)
    exchange.loses = True
    await say(gateway, "one", "two")
    assert (await other_gateway.chat.follow("lobby", ANN)).offset == 0
    assert (await other_gateway.chat.follow("lobby", ANN, at_least=2)).offset == 2
    assert there == [(1, "one"), (2, "two")]


async def follow_as(owner_id: str, gateway: Gateway, at_least: int) -> int:
    shares.current.set(owner_id)
    return (await gateway.chat.follow("lobby", ANN, at_least=at_least)).offset


async def test_clients_with_made_up_offsets_cost_one_read_in_no_share(gateway: Gateway, rooms: Rooms) -> None:
    await gateway.chat.follow("lobby", ANN)
    rooms.lent_to.clear()
    asked = [asyncio.create_task(follow_as("7", gateway, 2**62)) for _ in range(30)]
    assert await asyncio.gather(*asked) == [0] * 30
    assert (rooms.reads, rooms.lent_to) == (1, [""])


async def test_the_next_made_up_offset_waits_before_it_is_read_and_delays_no_message(
    gateway: Gateway, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.chat.service.AHEAD_EVERY_S", 3600)
    heard = listen(gateway)
    await asyncio.create_task(follow_as("7", gateway, 2**62))
    again = asyncio.create_task(follow_as("7", gateway, 2**62))
    await say(gateway, "one")
    await gateway.chat.look()
    assert heard == [(1, "one")]
    # Of the first of the two clients: the look finds no more than was announced.
    assert (rooms.reads, again.done()) == (1, False)
    again.cancel()


async def test_rooms_with_clients_that_are_ahead_are_read_in_turns_of_a_page(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.chat.service.AHEAD_EVERY_S", 0)
    shown = await missed(gateway, other_gateway, rooms, exchange, {"deep": 700, "a": 10})
    asked = [other_gateway.chat.follow(room, ANN, at_least=2**62) for room in ("deep", "a")]
    positions = await asyncio.gather(*asked)
    assert [position.offset for position in positions] == [700, 10]
    assert shown == ["deep"] * 150 + ["a"] * 10 + ["deep"] * 550


async def test_a_client_that_is_ahead_waits_for_a_limited_time(
    gateway: Gateway, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.chat.service.AHEAD_WITHIN_S", 0.05)
    await gateway.chat.follow("lobby", ANN)
    await gateway.rooms.insert_message("lobby", "7", "Ann", '{"text": "x"}', None, None)
    rooms.hold = asyncio.Event()
    async with asyncio.timeout(30):
        assert (await gateway.chat.follow("lobby", ANN, at_least=5)).offset == 0
    rooms.hold.set()
    await gateway.chat.look()


async def test_the_error_of_a_database_that_takes_too_long_reaches_the_client(
    gateway: Gateway, rooms: Rooms
) -> None:
    await gateway.chat.follow("lobby", ANN)
    rooms.failure = TimeoutError("the statement")
    with pytest.raises(TimeoutError, match="statement"):
        await gateway.chat.follow("lobby", ANN, at_least=5)


async def test_very_many_missed_messages_are_read_over_several_looks_and_none_is_left_out(
    gateway: Gateway, other_gateway: Gateway, rooms: Rooms, exchange: Broker
) -> None:
    there = listen(other_gateway)
    await missed(gateway, other_gateway, rooms, exchange, {"lobby": 1_800})
    exchange.loses = False
    await say(gateway, "last")
    # The announced one comes after those that are missing before it.
    assert [offset for offset, _ in there] == [*range(1, 1_501)]
    await other_gateway.chat.look()
    assert [offset for offset, _ in there] == [*range(1, 1_802)]


async def test_a_client_that_is_ahead_is_not_answered_from_a_read_that_began_before(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.chat.service.AHEAD_EVERY_S", 0)
    await other_gateway.chat.follow("lobby", ANN)
    exchange.loses = True
    rooms.hold = asyncio.Event()
    first = asyncio.create_task(follow_as("7", other_gateway, 2**62))
    while not rooms.reads:
        await asyncio.sleep(0)
    await say(gateway, "one")
    second = asyncio.create_task(follow_as("8", other_gateway, 1))
    await asyncio.sleep(0)
    rooms.hold.set()
    assert (await asyncio.gather(first, second))[1] == 1


async def test_a_room_that_does_not_exist_is_not_found(gateway: Gateway) -> None:
    with pytest.raises(NotFound):
        await gateway.chat.follow("nowhere", ANN)
    with pytest.raises(NotFound):
        await gateway.chat.post("nowhere", ANN, {"text": "x"})


async def test_without_the_broker_a_message_is_stored_and_shown_here(
    gateway: Gateway, exchange: Broker, rooms: Rooms
) -> None:
    heard = listen(gateway)
    await gateway.chat.follow("lobby", ANN)
    exchange.is_away = True
    await say(gateway, "one")
    assert heard == [(1, "one")]
    assert len(rooms.messages) == 1


async def test_an_announcement_raises_no_error_while_the_database_is_away(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker, rooms: Rooms
) -> None:
    there = listen(other_gateway)
    await other_gateway.chat.follow("lobby", ANN)
    exchange.loses = True
    await say(gateway, "one", "two")
    rooms.is_away = True
    await other_gateway.chat.heard(exchange.sent[-1])
    assert there == []
    rooms.is_away = False
    await other_gateway.chat.heard(exchange.sent[-1])
    assert there == [(1, "one"), (2, "two")]


@pytest.mark.parametrize(
    "failure",
    [TooManyAtOnce("512 of your requests wait."), TimeoutError(), asyncpg.DataCorruptedError("a page")],
)
async def test_a_stored_message_is_posted_though_the_ones_before_it_cannot_be_read(
    gateway: Gateway, other_gateway: Gateway, exchange: Broker, rooms: Rooms, failure: Exception
) -> None:
    here, there = listen(gateway), listen(other_gateway)
    await gateway.chat.follow("lobby", ANN)
    exchange.loses = True
    await say(other_gateway, "one")
    exchange.loses = False
    await other_gateway.chat.follow("lobby", ANN)
    rooms.failure = failure
    await say(gateway, "two")
    assert (here, there) == ([], [(2, "two")])
    rooms.failure = None
    await gateway.chat.look()
    assert here == [(1, "one"), (2, "two")]


async def missed(
    gateway: Gateway, other_gateway: Gateway, rooms: Rooms, exchange: Broker, counts: dict[str, int]
) -> list[str]:
    """Post to rooms what the other gateway does not hear of; return a list of what it will show."""
    shown: list[str] = []
    for room in counts:
        rooms.epochs[room] = "epoch-1"
        other_gateway.hub.listen(f"chat:{room}", lambda one: shown.append(one.channel.removeprefix("chat:")))
        await other_gateway.chat.follow(room, ANN)
    exchange.loses = True
    for room, count in counts.items():
        for number in range(count):
            await gateway.chat.post(room, ANN, {"text": str(number)})
    rooms.lent_to.clear()
    return shown


async def test_rooms_without_news_cost_one_statement_together(
    gateway: Gateway, other_gateway: Gateway, rooms: Rooms, exchange: Broker
) -> None:
    counts = dict.fromkeys((f"r{number}" for number in range(400)), 0) | {"busy": 2}
    shown = await missed(gateway, other_gateway, rooms, exchange, counts)
    await other_gateway.chat.look()
    assert (shown, rooms.reads, len(rooms.lent_to)) == (["busy"] * 2, 1, 2)


async def test_a_room_with_very_many_missed_messages_delays_no_other(
    gateway: Gateway, other_gateway: Gateway, rooms: Rooms, exchange: Broker
) -> None:
    counts = {"deep": 700, "a": 1, "b": 2}
    shown = await missed(gateway, other_gateway, rooms, exchange, counts)
    await other_gateway.chat.look()
    assert shown == ["deep"] * 150 + ["a", "b", "b"] + ["deep"] * 550


async def test_a_room_that_cannot_be_published_keeps_nothing_from_the_others(
    gateway: Gateway, other_gateway: Gateway, rooms: Rooms, exchange: Broker
) -> None:
    shown = await missed(gateway, other_gateway, rooms, exchange, {"bad": 1, "good": 1})
    rooms.messages[0] = replace(rooms.messages[0], created_at=None)  # type: ignore[arg-type]
    await other_gateway.chat.look()
    assert shown == ["good"]


async def test_other_work_goes_on_while_missed_messages_are_published(
    gateway: Gateway, other_gateway: Gateway, rooms: Rooms, exchange: Broker
) -> None:
    shown = await missed(gateway, other_gateway, rooms, exchange, {"deep": 300})
    looking, steps = asyncio.create_task(other_gateway.chat.look()), [0]
    while not looking.done():
        await asyncio.sleep(0)
        steps.append(len(shown))
    assert max(after - before for before, after in pairwise(steps)) == 1
    assert len(shown) == 300


async def test_a_sender_cannot_take_another_name(gateway: Gateway) -> None:
    seen: list[Any] = []
    gateway.hub.listen("chat:lobby", seen.append)
    await gateway.chat.follow("lobby", ANN)
    await gateway.chat.post("lobby", ANN, {"text": "x", "user": "Root", "user_id": "1", "colour": "red"})
    assert seen[0].data == {"text": "x", "user": "Ann", "user_id": "7", "colour": "red"}


async def test_a_message_sent_again_under_its_id_is_the_same_message(gateway: Gateway, rooms: Rooms) -> None:
    heard = listen(gateway)
    await gateway.chat.follow("lobby", ANN)
    first = await gateway.chat.post("lobby", ANN, {"text": "once", "id": "m1"})
    again = await gateway.chat.post("lobby", ANN, {"text": "once", "id": "m1"})
    other = await gateway.chat.post("lobby", ANN, {"text": "once", "id": "m2"})
    assert (first.offset, again.offset, other.offset) == (1, 1, 2)
    assert [offset for offset, _ in heard] == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        None,
        "text",
        [],
        {},
        {"text": 7},
        {"text": "  \n"},
        {"text": "x" * 4001},
        {"text": "x", "more": "y" * 17_000},
        {"text": "a\0b"},
        {"text": "x", "id": 5},
        {"text": "x", "id": ""},
        {"text": "x", "id": "i" * 65},
    ],
)
async def test_a_message_is_an_object_with_a_text_of_bounded_length(gateway: Gateway, data: Any) -> None:
    with pytest.raises(InvalidInput):
        await gateway.chat.post("lobby", ANN, data)


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"gateway":"x"}', b'{"gateway":"x","room":"lobby","offset":1}']
)
async def test_an_invalid_announcement_raises_the_error_that_the_feed_catches(
    gateway: Gateway, body: bytes
) -> None:
    await gateway.chat.follow("lobby", ANN)
    with pytest.raises((KeyError, TypeError, ValueError)):
        await gateway.chat.heard(body)


@given(st.data())
async def test_whatever_is_lost_or_late_each_message_is_shown_once_and_in_order(data: st.DataObject) -> None:
    rooms, exchange = Rooms(), Broker()
    here, there = Gateway(rooms, exchange), Gateway(rooms, exchange)
    heard = listen(there)
    await there.chat.follow("lobby", ANN)
    exchange.loses = True
    count = data.draw(st.integers(1, 8))
    await say(here, *[str(number) for number in range(1, count + 1)])
    for body in [*data.draw(st.lists(st.sampled_from(exchange.sent), max_size=12)), exchange.sent[-1]]:
        await there.chat.heard(body)
    assert heard == [(number, str(number)) for number in range(1, count + 1)]

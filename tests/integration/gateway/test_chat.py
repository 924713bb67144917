"""Chat over two gateways on one database and one broker: every message once, in order, on both."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from gateway.identity import keys
from support.gateway_stack import Connect, House, OpenTalk, RunningGateway
from support.pages import all_pages
from support.problems import assert_problem
from support.waiting import until


@pytest.fixture(scope="module")
async def two(module_house: House) -> tuple[RunningGateway, RunningGateway]:
    """Yield two gateways; the second hears the broker through a gate."""
    dsn, key = await module_house.database(), str(keys.new_key())
    gate = await module_house.gate(*module_house.broker_place)
    first = await module_house.open(dsn=dsn, bootstrap_key=key)
    second = await module_house.open(
        dsn=dsn, bootstrap_key=key, rabbitmq_url=module_house.broker_url_by(gate)
    )
    second.gate = gate
    return first, second


@pytest.fixture
async def room(two: tuple[RunningGateway, RunningGateway]) -> str:
    name = f"room-{uuid4().hex[:8]}"
    assert (await two[0].api.post("/v1/rooms", json={"name": name})).status_code == 201
    return name


async def say(listener: RunningGateway, room: str, *texts: str) -> None:
    for text in texts:
        answer = await listener.api.post(f"/v1/rooms/{room}/messages", json={"text": text})
        assert answer.status_code == 201, answer.text


async def test_a_message_is_received_on_both_gateways_once_and_in_order(
    two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    first, second = two
    async with talk(first) as here, talk(second) as there:
        for client in (here, there):
            joined = await client.ask(subscribe={"channel": f"chat:{room}"})
            assert joined["offset"] == 0
        await asyncio.gather(
            *(
                say(listener, room, f"{name}-{number}")
                for number in range(20)
                for name, listener in (("a", first), ("b", second))
            )
        )
        heard_here = [await here.push() for _ in range(40)]
        heard_there = [await there.push() for _ in range(40)]
    assert [push["offset"] for push in heard_here] == list(range(1, 41))
    assert heard_here == heard_there
    assert len({push["data"]["text"] for push in heard_here}) == 40


async def test_old_messages_are_removed_and_a_position_before_them_is_not_recovered(
    two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    first, _ = two
    # More than one step removes.
    await say(first, room, *(str(number) for number in range(1, 121)))
    await first.database.execute(
        "UPDATE chat_messages SET created_at = now() - make_interval(days => $2)"
        ' WHERE room = $1 AND "offset" < 118',
        *(room, first.settings.chat_retention_days + 1),
    )
    counted = REGISTRY.get_sample_value("tickwire_gateway_removed_total", {"kind": "message"}) or 0
    await first.gateway.resources.chat_upkeep.remove_old()
    counted -= REGISTRY.get_sample_value("tickwire_gateway_removed_total", {"kind": "message"}) or 0
    assert counted == -117
    left = (await first.api.get(f"/v1/rooms/{room}/messages")).json()["data"]
    assert sorted(message["offset"] for message in left) == [118, 119, 120]
    async with talk(first) as client:
        epoch = (await client.ask(subscribe={"channel": f"chat:{room}"}))["epoch"]
    for offset, is_recovered in ((116, False), (117, True)):
        async with talk(first) as client:
            recover = {"recover": True, "epoch": epoch, "offset": offset}
            again = await client.ask(subscribe={"channel": f"chat:{room}", **recover})
            assert again["recovered"] is is_recovered
            assert [one["offset"] for one in again["publications"]] == [118, 119, 120][: 3 * is_recovered]


async def test_a_client_that_comes_back_to_another_gateway_recovers_the_messages_that_it_missed(
    two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    first, second = two
    async with talk(first) as client:
        joined = await client.ask(subscribe={"channel": f"chat:{room}"})
        await say(first, room, "one", "two")
        assert [(await client.push())["offset"] for _ in range(2)] == [1, 2]
    await say(first, room, "three", "four")
    recover = {"recover": True, "epoch": joined["epoch"], "offset": 2}
    async with talk(second) as client:
        again = await client.ask(subscribe={"channel": f"chat:{room}", **recover})
        assert (again["recovered"], again["epoch"], again["offset"]) == (True, joined["epoch"], 4)
        assert [found["data"]["text"] for found in again["publications"]] == ["three", "four"]
        await say(second, room, "five")
        assert (await client.push())["offset"] == 5
    async with talk(second) as client:
        stale = {"recover": True, "epoch": "another", "offset": 2}
        lost = await client.ask(subscribe={"channel": f"chat:{room}", **stale})
        assert (lost["recovered"], lost["publications"]) == (False, [])


async def test_a_gateway_that_does_not_hear_the_broker_catches_up(
    two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    first, second = two
    async with talk(second) as client:
        await client.ask(subscribe={"channel": f"chat:{room}"})
        assert second.gate is not None
        await second.gate.shut()
        try:
            await say(first, room, "one", "two", "three")
            # Longer than the pause between two looks at the database.
            heard = [await client.push() for _ in range(3)]
            await say(second, room, "four")
            heard.append(await client.push())
        finally:
            await second.gate.open()
            await second.ready()
    assert [push["offset"] for push in heard] == [1, 2, 3, 4]


async def test_the_history_is_the_same_on_both_gateways(
    two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    first, second = two
    await say(first, room, *[str(number) for number in range(1, 8)])
    async with talk(second) as client:
        channel = f"chat:{room}"
        newest_first = await client.ask(history={"channel": channel, "limit": 3, "reverse": True})
        since = {"offset": 2, "epoch": newest_first["epoch"]}
        following = await client.ask(history={"channel": channel, "limit": 3, "since": since})
        position = await client.ask(history={"channel": channel})
    assert [p["offset"] for p in newest_first["publications"]] == [7, 6, 5]
    assert [p["offset"] for p in following["publications"]] == [3, 4, 5]
    assert (position["publications"], position["offset"]) == ([], 7)
    newest = (await second.api.get(f"/v1/rooms/{room}/messages?limit=4")).json()
    assert [(message["offset"], message["text"]) for message in newest["data"]] == [
        (7, "7"),
        (6, "6"),
        (5, "5"),
        (4, "4"),
    ]
    last = (await second.api.get(f"/v1/rooms/{room}/messages?cursor={newest['next_cursor']}")).json()
    assert ([m["offset"] for m in last["data"]], last["next_cursor"]) == ([3, 2, 1], None)


async def test_reading_many_large_messages_is_bounded_in_bytes(
    two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    first, _ = two
    async with talk(first) as client:
        before = await client.ask(subscribe={"channel": f"chat:{room}"})
        await client.ask(unsubscribe={"channel": f"chat:{room}"})
        await say(first, room, *["\N{GRINNING FACE}" * 4000] * 40)
        channel = f"chat:{room}"
        oldest = await client.ask(history={"channel": channel, "limit": 300})
        newest = await client.ask(history={"channel": channel, "limit": 300, "reverse": True})
        missed = {"channel": channel, "recover": True, "epoch": before["epoch"], "offset": 0}
        joined = await client.ask(subscribe=missed)
    offsets = [one["offset"] for one in oldest["publications"]]
    assert offsets == list(range(1, 1 + len(offsets)))
    assert 20 < len(offsets) < 40
    assert [one["offset"] for one in newest["publications"]] == list(range(40, 40 - len(offsets), -1))
    assert not joined.get("recovered"), "the client reads the history in parts"
    page = (await first.api.get(f"/v1/rooms/{room}/messages?limit=300")).json()
    assert len(page["data"]) == len(offsets)
    read = await all_pages(first.api, f"/v1/rooms/{room}/messages", limit=300)
    assert [message["offset"] for message in read] == list(range(40, 0, -1))


async def test_the_history_has_every_message_in_the_order_in_which_it_was_written(
    two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    first, _ = two
    said = {"zone": "Z", "text": "hi", "a": [2.5, 10, "\u00e9"], "nested": {"y": 1, "x": None}}
    async with talk(first) as client:
        await client.ask(publish={"channel": f"chat:{room}", "data": said})
        history = await client.ask(history={"channel": f"chat:{room}", "limit": 1})
    [publication] = history["publications"]
    heard = {name: value for name, value in publication["data"].items() if name in said}
    assert json.dumps(heard) == json.dumps(said)


async def test_the_sender_of_a_message_is_the_user_of_the_key(
    two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    first, _ = two
    user = await first.new_user("Mallory")
    async with talk(first, await first.new_key("chat:write", user_id=user)) as client:
        data = {"text": "hi", "user": "Administrator", "user_id": "1", "offset": 99}
        assert await client.ask(publish={"channel": f"chat:{room}", "data": data}) == {}
    [message] = (await first.api.get(f"/v1/rooms/{room}/messages")).json()["data"]
    assert (message["user"], message["user_id"], message["offset"]) == ("Mallory", str(user), 1)


async def test_a_message_that_is_posted_again_is_shown_only_to_a_key_that_may_read(
    two: tuple[RunningGateway, RunningGateway], room: str
) -> None:
    listener, path = two[0], f"/v1/rooms/{room}/messages"
    first = await listener.api.post(path, json={"id": "a", "text": "Between us"})
    guess = {"id": "a", "text": "x"}
    assert (await listener.api.post(path, json=guess)).json() == first.json()
    async with listener.client(await listener.new_key("chat:write", user_id=1)) as client:
        answer = await client.post(path, json=guess)
    assert answer.status_code == 201
    assert answer.json() == {n: first.json()[n] for n in ("offset", "user_id", "user", "created_at")}


async def test_rooms_are_made_once_and_listed_by_name(
    two: tuple[RunningGateway, RunningGateway], room: str
) -> None:
    first, second = two
    assert_problem(await second.api.post("/v1/rooms", json={"name": room}), 409, "conflict")
    assert_problem(
        await first.api.post("/v1/rooms", json={"name": "No Spaces"}), 422, "invalid-input", "/name"
    )
    assert_problem(await first.api.post("/v1/rooms/nowhere/messages", json={"text": "x"}), 404, "not-found")
    assert_problem(await first.api.get("/v1/rooms/nowhere/messages"), 404, "not-found")
    names = [found["name"] for found in await all_pages(second.api, "/v1/rooms", limit=2)]
    assert names == sorted(set(names))
    assert {"lobby", room} <= set(names)


async def test_the_lobby_answers_each_line_to_everybody(
    two: tuple[RunningGateway, RunningGateway], connect: Connect
) -> None:
    first, second = two
    async with connect(first, "/ws") as here, connect(second, "/ws") as there:
        await here.send("hello")
        assert await here.recv() == "Message received: hello"
        assert await there.recv() == "Message received: hello"
        await there.send("grüße, 世界".encode())
        assert await here.recv() == "Message received: grüße, 世界"
        await here.send("")
        assert str(await here.recv()).startswith("Error: ")
        await here.send("still here")
        assert await here.recv() == "Message received: still here"
    hub = first.gateway.resources.hub
    await until(lambda: not hub.has_listeners("chat:lobby"))

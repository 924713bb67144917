"""Private rooms over two gateways on one database: no interface lets strangers or former members in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.chat import repository as chat_repository
from gateway.chat import room_service
from gateway.chat.inputs import RoomsQuery
from gateway.identity import keys
from support.explained import Explained, buffers
from support.gateway_stack import House, OpenTalk, RunningGateway
from support.problems import assert_problem


@dataclass(frozen=True)
class Person:
    """A user of both gateways with a key for chat."""

    id: int
    key: str
    api: httpx.AsyncClient


@dataclass(frozen=True)
class People:
    manager: Person
    writer: Person
    reader: Person
    stranger: Person


@pytest.fixture(scope="module")
async def two(module_house: House) -> tuple[RunningGateway, RunningGateway]:
    dsn, key = await module_house.database(), str(keys.new_key())
    return (
        await module_house.open(dsn=dsn, bootstrap_key=key),
        await module_house.open(dsn=dsn, bootstrap_key=key),
    )


@pytest.fixture(scope="module")
async def people(two: tuple[RunningGateway, RunningGateway]) -> AsyncIterator[People]:
    async with AsyncExitStack() as stack:

        async def person(listener: RunningGateway) -> Person:
            id_ = await listener.new_user()
            key = await listener.new_key("chat:read", "chat:write", user_id=id_)
            return Person(id_, key, await stack.enter_async_context(listener.client(key)))

        yield People(*[await person(listener) for listener in (*two, *two)])


@pytest.fixture
async def room(people: People) -> str:
    """Return a private room with a member of each role."""
    name = f"board-{uuid4().hex[:8]}"
    answer = await people.manager.api.post("/v1/rooms", json={"name": name, "private": True})
    assert (answer.status_code, answer.json()["private"], answer.json()["role"]) == (201, True, "manager")
    for member, role in ((people.writer, "writer"), (people.reader, "reader")):
        await let_in(people, name, member, role)
    return name


async def let_in(people: People, room: str, member: Person, role: str) -> None:
    body = {"user_id": member.id, "role": role}
    answer = await people.manager.api.post(f"/v1/rooms/{room}/members", json=body)
    assert (answer.status_code, answer.json()["role"]) == (200, role), answer.text


async def names(person: Person) -> set[str]:
    return {
        room["name"] for room in (await person.api.get("/v1/rooms", params={"limit": 200})).json()["data"]
    }


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/messages", None),
        ("POST", "/messages", {"text": "x"}),
        ("GET", "/members", None),
        ("POST", "/members", {"user_id": 1}),
        ("GET", "/members/1", None),
        ("PATCH", "/members/1", {"role": "reader"}),
        ("DELETE", "/members/1", None),
    ],
)
async def test_a_private_room_is_not_found_by_a_stranger_over_http(
    people: People, two: tuple[RunningGateway, RunningGateway], room: str, method: str, path: str, body: Any
) -> None:
    for api in (people.stranger.api, two[1].api):
        answer = await api.request(
            method, f"/v1/rooms/{room}{path}", json=body, headers={"if-match": "*"} if body else {}
        )
        assert_problem(answer, 404, "not-found")
    assert room not in await names(people.stranger)
    assert room in await names(people.reader)


async def test_a_private_room_is_not_found_by_a_stranger_over_the_socket(
    people: People, two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    channel = {"channel": f"chat:{room}"}
    for listener in two:
        async with (
            talk(listener, people.reader.key) as member,
            talk(listener, people.stranger.key) as stranger,
        ):
            assert "epoch" in await member.ask(subscribe=channel)
            for command in ("subscribe", "history", "presence", "presence_stats"):
                assert (await stranger.ask(**{command: channel}))["code"] == 102, command
            assert (await stranger.ask(publish={**channel, "data": {"text": "x"}}))["code"] == 102
            called = await stranger.ask(rpc={"method": "getRoom", "data": {"room": room}})
            assert called["code"] == 102


async def test_each_role_has_its_rights_and_no_others(people: People, room: str) -> None:
    path = f"/v1/rooms/{room}"
    posted = {
        name: (await getattr(people, name).api.post(f"{path}/messages", json={"text": name})).status_code
        for name in ("manager", "writer", "reader")
    }
    assert posted == {"manager": 201, "writer": 201, "reader": 403}
    read = (await people.reader.api.get(f"{path}/messages")).json()["data"]
    assert [message["text"] for message in read] == ["writer", "manager"]
    for member in (people.writer, people.reader):
        refused = await member.api.post(f"{path}/members", json={"user_id": people.stranger.id})
        assert_problem(refused, 403, "forbidden")
        assert_problem(await member.api.delete(f"{path}/members/{people.manager.id}"), 403, "forbidden")
    members = (await people.reader.api.get(f"{path}/members", params={"limit": 2})).json()
    following = {"cursor": members["next_cursor"]}
    rest = (await people.reader.api.get(f"{path}/members", params=following)).json()
    assert {one["user_id"]: one["role"] for one in members["data"] + rest["data"]} == {
        people.manager.id: "manager",
        people.writer.id: "writer",
        people.reader.id: "reader",
    }


async def test_a_member_is_changed_or_removed_only_by_a_caller_that_has_read_the_role(
    people: People, two: tuple[RunningGateway, RunningGateway], room: str
) -> None:
    path, manager = f"/v1/rooms/{room}/members/{people.writer.id}", people.manager.api
    seen = await people.reader.api.get(path)
    assert (seen.json()["user_id"], seen.json()["role"]) == (people.writer.id, "writer")
    read, reader = {"if-match": seen.headers["etag"]}, {"role": "reader"}
    unchanged = await manager.get(path, headers={"if-none-match": seen.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert_problem(await manager.patch(path, json=reader), 428, "precondition-required")
    assert_problem(await people.writer.api.patch(path, json=reader, headers=read), 403, "forbidden")
    assert (await manager.patch(path, json={}, headers=read)).headers["etag"] == seen.headers["etag"]
    changed = await manager.patch(path, json=reader, headers=read)
    assert (changed.status_code, changed.json()) == (200, {**seen.json(), "role": "reader"})
    for late in (
        await manager.patch(path, json={"role": "manager"}, headers=read),
        await manager.delete(path, headers=read),
    ):
        assert changed.headers["etag"] in assert_problem(late, 412, "precondition-failed")["detail"]
    assert (await manager.delete(path, headers={"if-match": changed.headers["etag"]})).status_code == 204
    trail = (await two[0].api.get("/v1/admin/audit", params={"target": f"room:{room}", "limit": 2})).json()
    was, became = ({"user_id": people.writer.id, "role": role} for role in ("writer", "reader"))
    assert [(entry["action"], entry["before"], entry["after"]) for entry in trail["data"]] == [
        ("room.member-removed", became, None),
        ("room.member-changed", was, became),
    ]
    for gone in (
        await manager.get(path),
        await manager.patch(path, json=reader, headers=read),
        await manager.delete(path, headers=read),
    ):
        assert_problem(gone, 404, "not-found")


async def test_a_removed_member_loses_its_subscription_on_the_other_gateway_at_once(
    people: People, two: tuple[RunningGateway, RunningGateway], room: str, talk: OpenTalk
) -> None:
    path = f"/v1/rooms/{room}"
    async with talk(two[1], people.reader.key) as client:
        await client.ask(subscribe={"channel": f"chat:{room}"})
        removed = await people.manager.api.delete(f"{path}/members/{people.reader.id}")
        assert removed.status_code == 204
        push = await client.push()
        assert (push["channel"], push["unsubscribe"]["code"]) == (f"chat:{room}", 2000)
        assert (await client.ask(subscribe={"channel": f"chat:{room}"}))["code"] == 102
    again = await people.manager.api.delete(f"{path}/members/{people.reader.id}")
    assert_problem(again, 404, "not-found")
    entries = (await two[0].api.get("/v1/admin/audit", params={"target": f"room:{room}"})).json()["data"]
    assert (entries[0]["action"], entries[0]["before"]) == (
        *("room.member-removed", {"user_id": people.reader.id, "role": "reader"}),
    )
    assert [entry["after"]["role"] for entry in entries[1:]] == ["reader", "writer"]
    assert {entry["actor"]["user_id"] for entry in entries} == {people.manager.id}


async def test_everybody_may_leave_and_the_last_manager_only_after_another_took_over(
    people: People, room: str
) -> None:
    path = f"/v1/rooms/{room}/members"
    assert (await people.reader.api.delete(f"{path}/{people.reader.id}")).status_code == 204
    assert_problem(await people.manager.api.delete(f"{path}/{people.manager.id}"), 409, "conflict")
    demoted = await people.manager.api.post(path, json={"user_id": people.manager.id, "role": "reader"})
    assert_problem(demoted, 409, "conflict")
    resigned = await people.manager.api.patch(
        f"{path}/{people.manager.id}", json={"role": "reader"}, headers={"if-match": "*"}
    )
    assert_problem(resigned, 409, "conflict")
    await let_in(people, room, people.writer, "manager")
    assert (await people.manager.api.delete(f"{path}/{people.manager.id}")).status_code == 204
    assert_problem(await people.manager.api.get(f"/v1/rooms/{room}"), 404, "not-found")


async def test_an_invalid_member_is_refused_with_the_field(people: People, room: str) -> None:
    path = f"/v1/rooms/{room}/members"
    for user_id in (999_999_999, 0, -1, 2**63):
        refused = await people.manager.api.post(path, json={"user_id": user_id})
        assert_problem(refused, 422, "invalid-input", "/user_id")
    odd = await people.manager.api.post(path, json={"user_id": people.writer.id, "role": "owner"})
    assert_problem(odd, 422, "invalid-input", "/role")
    missing = await people.manager.api.delete(f"{path}/{2**70}")
    assert missing.status_code == 404


async def test_a_public_room_has_no_members_to_choose(people: People) -> None:
    assert (await people.stranger.api.get("/v1/rooms/lobby/members")).json()["data"] == []
    refused = await people.stranger.api.post("/v1/rooms/lobby/members", json={"user_id": people.stranger.id})
    assert_problem(refused, 409, "conflict")
    assert (await people.stranger.api.get("/v1/rooms/lobby")).json()["role"] is None


async def test_the_name_of_a_private_room_is_taken(people: People, room: str) -> None:
    assert_problem(await people.stranger.api.post("/v1/rooms", json={"name": room}), 409, "conflict")


async def test_a_room_has_a_bounded_number_of_members(
    people: People, two: tuple[RunningGateway, RunningGateway], room: str
) -> None:
    await two[0].database.execute(
        "WITH made AS (INSERT INTO users (name, email) SELECT 'Crowd', $1 || n || '@example.com'"
        " FROM generate_series(1, 997) AS n RETURNING id)"
        " INSERT INTO room_members (room, user_id, role) SELECT $1, id, 'reader' FROM made",
        room,
    )
    path = f"/v1/rooms/{room}/members"
    assert_problem(await people.manager.api.post(path, json={"user_id": people.stranger.id}), 409, "conflict")
    await let_in(people, room, people.reader, "writer")
    assert (await people.manager.api.delete(f"{path}/{people.writer.id}")).status_code == 204
    await let_in(people, room, people.stranger, "reader")


async def test_requests_at_once_create_no_more_rooms_than_a_user_may_have(
    two: tuple[RunningGateway, RunningGateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_service, "MOST_ROOMS", 2)
    async with two[0].client(await two[0].new_key("chat:write")) as api:
        names = [f"room-{uuid4().hex[:8]}" for _ in range(8)]
        answers = await asyncio.gather(*(api.post("/v1/rooms", json={"name": name}) for name in names))
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [409] * 6


async def test_a_user_creates_a_bounded_number_of_rooms_and_slows_no_list_of_another(
    people: People, two: tuple[RunningGateway, RunningGateway]
) -> None:
    database = two[0].database
    # Sorted before all others, and so in the way of everybody's first page.
    await database.execute(
        "WITH made AS (INSERT INTO rooms (name, created_by, is_private)"
        " SELECT '0-' || n, $1::bigint::text, true FROM generate_series(1, 5000) AS n RETURNING name)"
        " INSERT INTO room_members (room, user_id, role) SELECT name, $1, 'manager' FROM made",
        people.writer.id,
    )
    await database.execute("ANALYZE rooms, room_members")
    refused = await people.writer.api.post("/v1/rooms", json={"name": f"more-{uuid4().hex[:8]}"})
    assert_problem(refused, 409, "conflict")
    own = f"1-{uuid4().hex[:8]}"
    for name, is_private in ((own, True), (f"{own}-open", False)):
        body = {"name": name, "private": is_private}
        assert (await people.reader.api.post("/v1/rooms", json=body)).status_code == 201
    assert {own, f"{own}-open"} <= await names(people.reader)
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while query.get("cursor", "") is not None:
        page = (await people.stranger.api.get("/v1/rooms", params=query)).json()
        seen += [room["name"] for room in page["data"]]
        query["cursor"] = page["next_cursor"]
    assert f"{own}-open" in seen
    assert own not in seen
    assert seen == sorted(set(seen))
    async with database.acquire() as connection:
        read = await buffers(
            connection, "list_rooms", "", 51, None, None, people.stranger.id, None, package="gateway"
        )
    assert read < 60


async def test_rooms_made_at_some_time_are_each_found_once_without_reading_all(
    people: People, two: tuple[RunningGateway, RunningGateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_repository, "MOST_EXAMINED", 300)
    database = two[0].database
    await database.execute(
        "INSERT INTO rooms (name, created_by, is_private, created_at)"
        " SELECT '2-' || lpad(n::text, 5, '0'), '0',"
        " false, now() - CASE WHEN n % 2000 = 0 THEN 900 ELSE 800 END * interval '1 day'"
        " FROM generate_series(1, 10000) AS n"
    )
    await database.execute("VACUUM ANALYZE rooms")
    before = (datetime.now(UTC) - timedelta(days=850)).isoformat()
    query: dict[str, Any] = {"limit": 2, "created_before": before}
    seen: list[str] = []
    while query.get("cursor", "") is not None:
        page = (await people.stranger.api.get("/v1/rooms", params=query)).json()
        seen += [room["name"] for room in page["data"]]
        query["cursor"] = page["next_cursor"]
    assert seen == [f"2-{n:05}" for n in range(2000, 10001, 2000)]
    async with database.acquire() as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        explained: Any = Explained(connection, package="gateway")
        wanted = RoomsQuery(created_before=datetime(2000, 1, 1, tzinfo=UTC), cursor="2-01000")
        assert await chat_repository.page(explained, wanted, people.stranger.id) == ([], "2-01300")
        await connection.execute("RESET plan_cache_mode")
    # All of them are more than a hundred pages, beside those of the index.
    assert max(explained.read.values()) < 60, explained.read

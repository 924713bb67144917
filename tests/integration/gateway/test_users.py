"""Users, read through memcached: fresh after a change, and right without it."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import memcachio
import pytest

from support.gateway_stack import House, Listener
from support.problems import assert_problem


def person(**changes: Any) -> dict[str, Any]:
    return {"name": "Ann", "email": f"{uuid.uuid4().hex}@example.com", **changes}


async def cached(house: House, user_id: int) -> bytes | None:
    host, port = house.memcached_address.split(":")
    client = memcachio.Client[bytes]((host, int(port)), decode_responses=False)
    item = (await client.get(f"gateway-users:{user_id}".encode())).get(f"gateway-users:{user_id}".encode())
    return item.value if item else None


async def test_a_user_is_made_read_and_changed(door: Listener) -> None:
    wanted = person(name="Zoë", role="member")
    made = await door.api.post("/v1/users", json=wanted)
    assert made.status_code == 201
    user = (await door.api.get(made.headers["location"])).json()
    assert {name: user[name] for name in wanted} == wanted
    assert user["created_at"].endswith("Z")
    changed = await door.api.patch(made.headers["location"], json={"name": "Zoe"})
    assert (changed.json()["name"], changed.json()["email"]) == ("Zoe", wanted["email"])


async def test_the_second_read_comes_from_memcached_and_a_change_is_seen_at_once(
    door: Listener, house: House
) -> None:
    id_ = await door.new_user("Before")
    await house.forget_user(id_)
    first = await door.api.get(f"/v1/users/{id_}")
    assert await cached(house, id_) == first.content.rstrip()
    await door.database.execute("UPDATE users SET name = 'Unseen' WHERE id = $1", id_)
    assert (await door.api.get(f"/v1/users/{id_}")).json()["name"] == "Before"
    await door.api.patch(f"/v1/users/{id_}", json={"name": "After"})
    assert await cached(house, id_) is None
    assert (await door.api.get(f"/v1/users/{id_}")).json()["name"] == "After"
    assert (await door.api.get(f"/user/{id_}")).json()["name"] == "After"


async def test_without_memcached_users_are_right_all_the_same(house: House) -> None:
    gate = await house.gate("127.0.0.1", int(house.memcached_address.split(":")[1]))
    door = await house.open(memcached_address=f"127.0.0.1:{gate.port}")
    id_ = await door.new_user("Before")
    assert (await door.api.get(f"/v1/users/{id_}")).status_code == 200
    await gate.shut()
    for name in ("One", "Two", "Three"):
        assert (await door.api.patch(f"/v1/users/{id_}", json={"name": name})).status_code == 200
        assert (await door.api.get(f"/v1/users/{id_}")).json()["name"] == name
    await gate.open()
    assert (await door.api.get(f"/v1/users/{id_}")).json()["name"] == "Three"


async def test_a_taken_address_is_a_conflict_in_any_case(door: Listener) -> None:
    one, other = person(), person()
    await door.api.post("/v1/users", json=one)
    second = await door.api.post("/v1/users", json=other)
    assert_problem(await door.api.post("/v1/users", json=one), 409, "conflict")
    upper = {"email": one["email"].upper().replace("EXAMPLE.COM", "example.com")}
    assert_problem(await door.api.patch(second.headers["location"], json=upper), 409, "conflict")


async def test_a_member_sees_itself_and_nobody_else(door: Listener) -> None:
    id_ = await door.new_user("Me")
    async with door.client(await door.new_key("quotes:read", user_id=id_)) as client:
        assert (await client.get(f"/v1/users/{id_}")).json()["name"] == "Me"
        assert (await client.get(f"/user/{id_}")).status_code == 200
        assert_problem(await client.get("/v1/users/1"), 404, "not-found")
        assert_problem(await client.get("/user/1"), 404, "not-found")


@pytest.mark.parametrize("id_", ["0", "999999999", str(2**63 - 1), str(2**63), "9" * 400, "-1", "x", "1.5"])
async def test_a_user_that_cannot_be_is_not_found(door: Listener, id_: str) -> None:
    assert_problem(await door.api.get(f"/v1/users/{id_}"), 404, "not-found")
    assert_problem(await door.api.get(f"/user/{id_}"), 404, "not-found")
    assert_problem(await door.api.patch(f"/v1/users/{id_}", json={"name": "x"}), 404, "not-found")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "a\0"}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"email": "nope"}, "/email"),
        ({"role": "king"}, "/role"),
        ({"surprise": 1}, "/surprise"),
    ],
)
async def test_what_is_wrong_of_a_user_is_named(door: Listener, body: dict[str, Any], pointer: str) -> None:
    assert_problem(await door.api.post("/v1/users", json=person(**body)), 422, "invalid-input", pointer)


async def test_pages_follow_each_other_to_the_end(door: Listener) -> None:
    for _ in range(5):
        await door.new_user()
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = (await door.api.get("/v1/users", params=query)).json()
        seen += [user["id"] for user in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == sorted(set(seen))
    assert len(seen) == await door.database.fetchval("SELECT count(*) FROM users")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "cursor=x", "cursor=-1", f"cursor={2**63}", "page=2"]
)
async def test_a_page_that_cannot_be_is_422(door: Listener, query: str) -> None:
    answer: httpx.Response = await door.api.get(f"/v1/users?{query}")
    assert_problem(answer, 422, "invalid-input", f"/{query.split('=')[0]}")

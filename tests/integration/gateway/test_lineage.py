"""A key never outlives or outranks the key that made it, and has no more rights than its user's role."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.identity import keys
from support.gateway_stack import House, RunningGateway
from support.pages import all_pages
from support.problems import assert_problem
from support.waiting import until

HOUR = timedelta(hours=1)


async def make(client: httpx.AsyncClient, *scopes: str, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/api-keys", json={"name": "child", "scopes": scopes, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def status_of(listener: RunningGateway, key: str) -> int:
    async with listener.client(key) as client:
        return (await client.get("/v1/me")).status_code


async def test_a_child_key_gets_the_expiry_of_its_parent_and_cannot_ask_for_more(
    listener: RunningGateway,
) -> None:
    ends = datetime.now(UTC) + HOUR
    parent = await make(listener.api, "quotes:read", "keys:write", expires_at=ends.isoformat())
    async with listener.client(parent["key"]) as client:
        child = await make(client, "quotes:read")
        assert datetime.fromisoformat(child["expires_at"]) == ends
        assert child["parent_id"] == parent["id"]
        sooner = await make(client, "quotes:read", expires_at=(ends - HOUR / 2).isoformat())
        assert datetime.fromisoformat(sooner["expires_at"]) == ends - HOUR / 2
        later = {"name": "x", "scopes": ["quotes:read"], "expires_at": (ends + HOUR).isoformat()}
        assert_problem(await client.post("/v1/api-keys", json=later), 422, "invalid-input", "/expires_at")


async def test_all_generations_of_a_key_end_with_the_first(listener: RunningGateway) -> None:
    first = await make(listener.api, "quotes:read", "keys:write")
    async with listener.client(first["key"]) as client:
        second = await make(client, "quotes:read", "keys:write")
    async with listener.client(second["key"]) as client:
        third = await make(client, "quotes:read")
    assert [await status_of(listener, key["key"]) for key in (first, second, third)] == [200, 200, 200]
    assert (await listener.api.delete(f"/v1/api-keys/{first['id']}")).status_code == 204
    assert [await status_of(listener, key["key"]) for key in (first, second, third)] == [401, 401, 401]
    listed = (await listener.api.get(f"/v1/api-keys/{third['id']}")).json()
    assert (listed["status"], listed["revoked_at"], listed["effective_scopes"]) == ("revoked", None, [])


async def test_a_child_ends_when_its_parent_expires(listener: RunningGateway) -> None:
    parent = await make(listener.api, "quotes:read", "keys:write")
    async with listener.client(parent["key"]) as client:
        child = await make(client, "quotes:read")
    await listener.database.execute(
        "UPDATE api_keys SET expires_at = now() - interval '1 ms' WHERE id = $1", parent["id"]
    )
    assert await status_of(listener, child["key"]) == 401
    assert (await listener.api.get(f"/v1/api-keys/{child['id']}")).json()["status"] == "expired"


async def test_making_keys_needs_a_right_of_its_own(listener: RunningGateway) -> None:
    async with listener.client(await listener.new_key("quotes:read", "keys:read")) as client:
        answer = await client.post("/v1/api-keys", json={"name": "x", "scopes": ["quotes:read"]})
        assert_problem(answer, 403, "forbidden")
        assert 'scope="keys:write"' in answer.headers["www-authenticate"]


async def test_a_new_key_has_no_scope_that_its_maker_lacks(listener: RunningGateway) -> None:
    async with listener.client(await listener.new_key("quotes:read", "keys:write")) as client:
        for scopes in (["quotes:read", "emails:send"], ["admin"], ["users:write"]):
            more = await client.post("/v1/api-keys", json={"name": "x", "scopes": scopes})
            assert_problem(more, 403, "forbidden")
        foreign = {"name": "x", "scopes": ["quotes:read"], "user_id": 1}
        assert_problem(await client.post("/v1/api-keys", json=foreign), 403, "forbidden")
        same = await client.post("/v1/api-keys", json={"name": "x", "scopes": ["quotes:read", "keys:write"]})
        assert same.status_code == 201


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"scopes": ["quotes:read", "quotes:read"]}, "/scopes"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["everything"]}, "/scopes/0"),
        ({"user_id": 999_999}, "/user_id"),
        ({"user_id": True}, "/user_id"),
        ({"expires_at": 1}, "/expires_at"),
        ({"surprise": 1}, "/surprise"),
    ],
)
async def test_an_invalid_field_of_a_key_is_named(
    listener: RunningGateway, change: dict[str, Any], pointer: str
) -> None:
    wanted = {"name": "x", "scopes": ["quotes:read"], **change}
    assert_problem(await listener.api.post("/v1/api-keys", json=wanted), 422, "invalid-input", pointer)


async def test_a_member_gets_no_key_for_administrators(listener: RunningGateway) -> None:
    member = await listener.new_user()
    for scope in ("admin", "users:read", "users:write"):
        wanted = {"name": "x", "scopes": ["quotes:read", scope], "user_id": member}
        assert_problem(await listener.api.post("/v1/api-keys", json=wanted), 422, "invalid-input", "/scopes")


async def test_the_generations_of_keys_are_bounded(listener: RunningGateway) -> None:
    key = listener.admin_key
    for _ in range(8):
        async with listener.client(key) as client:
            key = (await make(client, "keys:write"))["key"]
    async with listener.client(key) as client:
        answer = await client.post("/v1/api-keys", json={"name": "x", "scopes": ["keys:write"]})
        assert_problem(answer, 409, "conflict")
        assert (await client.get("/v1/me")).status_code == 200


async def test_a_change_of_role_or_status_has_effect_on_every_gateway_within_seconds(house: House) -> None:
    dsn, key = await house.database(), str(keys.new_key())
    listener, other = await asyncio.gather(
        house.open(dsn=dsn, bootstrap_key=key), house.open(dsn=dsn, bootstrap_key=key)
    )
    user = await listener.new_user(role="admin")
    theirs = (await make(listener.api, "admin", user_id=user))["key"]
    async with listener.client(theirs) as here, other.client(theirs) as there:
        for client in (here, there):
            me = (await client.get("/v1/me")).json()
            assert (me["key"]["scopes"], "admin" in me["key"]["effective_scopes"]) == (["admin"], True)
            assert (await client.get("/v1/admin/audit")).status_code == 200
        await listener.change_user(user, role="member")
        assert_problem(await here.get("/v1/admin/audit"), 403, "forbidden")

        async def answer_there(status: int) -> bool:
            return bool((await there.get("/v1/admin/audit")).status_code == status)

        await until(lambda: answer_there(403), timeout_s=8)
        me = (await there.get("/v1/me")).json()
        assert (me["user"]["role"], me["key"]["scopes"]) == ("member", ["admin"])
        assert me["key"]["effective_scopes"] == []
        await listener.change_user(user, status="disabled")
        assert_problem(await here.get("/v1/me"), 401, "unauthenticated")
        await until(lambda: answer_there(401), timeout_s=8)
        await listener.change_user(user, status="active", role="admin")
        assert (await here.get("/v1/admin/audit")).status_code == 200
        await until(lambda: answer_there(200), timeout_s=8)


async def test_a_disabled_user_gets_no_new_key(listener: RunningGateway) -> None:
    user = await listener.new_user()
    await listener.change_user(user, status="disabled")
    wanted = {"name": "x", "scopes": ["quotes:read"], "user_id": user}
    assert_problem(await listener.api.post("/v1/api-keys", json=wanted), 422, "invalid-input", "/user_id")


async def test_a_key_may_always_end_itself(listener: RunningGateway) -> None:
    key = await listener.new_key("quotes:read")
    async with listener.client(key) as client:
        assert (await client.get(f"/v1/api-keys/{key[8:24]}")).json()["status"] == "active"
        assert_problem(await client.delete(f"/v1/api-keys/{listener.admin_key[8:24]}"), 403, "forbidden")
        assert (await client.delete(f"/v1/api-keys/{key[8:24]}")).status_code == 204
        assert_problem(await client.get("/v1/me"), 401, "unauthenticated")


async def test_the_present_state_of_a_key_can_be_read(listener: RunningGateway) -> None:
    ends = (datetime.now(UTC) + HOUR).isoformat()
    made = await make(listener.api, "users:read", "quotes:read", expires_at=ends)
    assert made["scopes"] == made["effective_scopes"] == ["quotes:read", "users:read"]
    assert (made["status"], made["last_used_at"], made["rotated_at"]) == ("active", None, None)
    assert (made["parent_id"], made["user_id"]) == (listener.admin_key[8:24], 1)
    listed = (await listener.api.get(f"/v1/api-keys/{made['id']}")).json()
    assert {**listed, "key": made["key"]} == made
    async with listener.client(made["key"]) as client:
        me = (await client.get("/v1/me")).json()
    assert me["key"] == {
        "id": made["id"],
        "scopes": made["scopes"],
        "effective_scopes": made["effective_scopes"],
        "expires_at": made["expires_at"],
    }


async def test_keys_come_in_pages_that_follow_each_other(listener: RunningGateway) -> None:
    user = await listener.new_user()
    made = [(await make(listener.api, "quotes:read", user_id=user))["id"] for _ in range(5)]
    # Made in the same moment: the id decides.
    await listener.database.execute("UPDATE api_keys SET created_at = now() WHERE user_id = $1", user)
    found = await all_pages(listener.api, "/v1/api-keys", limit=2, user_id=user)
    assert [key["id"] for key in found] == sorted(made)
    for odd in ("x", "1-x", f"{'9' * 18}-{'0' * 16}", "-"):
        answer = await listener.api.get("/v1/api-keys", params={"cursor": odd})
        assert_problem(answer, 422, "invalid-input", "/cursor")


async def test_the_keys_of_others_are_for_those_who_may_read_users(listener: RunningGateway) -> None:
    async with listener.client(await listener.new_key("keys:read")) as client:
        assert_problem(await client.get("/v1/api-keys?user_id=1"), 403, "forbidden")
        assert [key["name"] for key in (await client.get("/v1/api-keys")).json()["data"]] == ["test"]

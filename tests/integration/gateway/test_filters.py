"""Lists are narrowed by filters of one grammar: users, keys and rooms."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem


@pytest.fixture(scope="module")
async def listener(module_house: House) -> RunningGateway:
    # What is counted here must not be made by other modules.
    return await module_house.open()


async def listed(listener: RunningGateway, path: str, **query: str) -> list[dict[str, Any]]:
    answer = await listener.api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


async def test_users_are_listed_by_role_and_status_and_when_they_were_made(listener: RunningGateway) -> None:
    gone, kept = await listener.new_user("Gone"), await listener.new_user("Kept")
    chief = await listener.new_user("Chief", role="admin")
    await listener.change_user(gone, status="disabled")
    assert [user["id"] for user in await listed(listener, "/v1/users", status="disabled")] == [gone]
    members = await listed(listener, "/v1/users", role="member", status="active,disabled")
    assert [user["id"] for user in members] == [gone, kept]
    moment = members[-1]["created_at"]
    assert [user["id"] for user in await listed(listener, "/v1/users", created_after=moment)] == [chief]
    before = await listed(listener, "/v1/users", created_before=moment, role="member")
    assert [user["id"] for user in before] == [gone]


async def test_keys_are_listed_by_their_present_status(listener: RunningGateway) -> None:
    user = await listener.new_user()
    ended, working = [(await listener.new_key("quotes:read", user_id=user))[8:24] for _ in range(2)]
    assert (await listener.api.delete(f"/v1/api-keys/{ended}")).status_code == 204

    async def ids(status: str) -> list[str]:
        keys = await listed(listener, "/v1/api-keys", user_id=str(user), status=status)
        return [key["id"] for key in keys]

    assert (await ids("active"), await ids("revoked")) == ([working], [ended])
    assert await ids("active,revoked,expired") == [ended, working]
    await listener.change_user(user, status="disabled")
    assert (await ids("active"), await ids("disabled")) == ([], [working])


async def test_rooms_are_listed_by_when_they_were_made(listener: RunningGateway) -> None:
    names = [f"room-{uuid4().hex}" for _ in range(3)]
    made = [(await listener.api.post("/v1/rooms", json={"name": name})).json() for name in names]
    within = {"created_after": made[0]["created_at"], "created_before": made[2]["created_at"]}
    assert [room["name"] for room in await listed(listener, "/v1/rooms", **within)] == [names[1]]


@pytest.mark.parametrize(
    ("path", "query", "pointer"),
    [
        ("/v1/users", {"role": "king"}, "/role/0"),
        ("/v1/users", {"status": "active,"}, "/status/1"),
        ("/v1/users", {"created_after": "yesterday"}, "/created_after"),
        ("/v1/users", {"cursor": "1_0"}, "/cursor"),
        ("/v1/api-keys", {"status": "Active"}, "/status/0"),
        ("/v1/rooms", {"name": "lobby"}, "/name"),
        ("/v1/admin/audit", {"action": "user.created,user.lost"}, "/action/1"),
        ("/v1/admin/parked", {"ids": "1"}, ""),
    ],
)
async def test_a_filter_that_does_not_fit_is_refused(
    listener: RunningGateway, path: str, query: dict[str, str], pointer: str
) -> None:
    assert_problem(await listener.api.get(path, params=query), 422, "invalid-input", pointer)

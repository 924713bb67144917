"""Users are always up to date, and are changed only by callers that have seen the version they change."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import memcachio
import pytest

from contracts.batches import INTAKE
from contracts.scopes import FOR_MEMBERS, Scope
from gateway.identity import keys
from support.gateway_stack import House, RunningGateway
from support.pages import all_pages
from support.problems import assert_problem

ANY = {"if-match": "*"}


def person(**changes: Any) -> dict[str, Any]:
    return {"name": "Ann", "email": f"{uuid.uuid4().hex}@example.com", **changes}


async def test_a_user_is_made_read_and_changed(listener: RunningGateway) -> None:
    wanted = person(name="Zoë", role="member")
    made = await listener.api.post("/v1/users", json=wanted)
    assert made.status_code == 201
    user = (await listener.api.get(made.headers["location"])).json()
    assert {name: user[name] for name in wanted} == wanted
    assert user["created_at"].endswith("Z")
    headers = {"if-match": made.headers["etag"]}
    changed = await listener.api.patch(made.headers["location"], json={"name": "Zoe"}, headers=headers)
    assert (changed.json()["name"], changed.json()["email"]) == ("Zoe", wanted["email"])


async def test_values_that_others_write_into_memcached_are_not_trusted(
    listener: RunningGateway, house: House
) -> None:
    id_ = await listener.new_user("True")
    host, port = house.memcached_address.split(":")
    client = memcachio.Client[bytes]((host, int(port)), decode_responses=False)
    forged = f'{{"id":{id_},"name":"Forged","role":"admin"}}'.encode()
    await client.set(f"gateway-users:{id_}".encode(), forged)
    for path in (f"/v1/users/{id_}", f"/user/{id_}"):
        assert (await listener.api.get(path)).json()["name"] == "True"


async def test_a_change_is_seen_at_once_on_every_gateway(house: House) -> None:
    dsn, key = await house.database(), str(keys.new_key())
    listener = await house.open(dsn=dsn, bootstrap_key=key)
    other = await house.open(dsn=dsn, bootstrap_key=key)
    id_ = await listener.new_user("Before")
    assert (await other.api.get(f"/v1/users/{id_}")).json()["name"] == "Before"
    await listener.change_user(id_, name="After")
    assert (await other.api.get(f"/v1/users/{id_}")).json()["name"] == "After"


async def test_a_change_of_a_user_has_no_keys_of_others_looked_up_again(
    listener: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, forgotten = listener.gateway.resources.keyring, list[int | None]()

    async def note(user_id: int | None = None) -> None:
        forgotten.append(user_id)

    monkeypatch.setattr(ring, "forget", note)
    id_ = await listener.new_user("Before")
    await listener.change_user(id_, role="admin")
    assert forgotten == [id_]


async def test_a_change_needs_the_version_that_the_caller_has_read(listener: RunningGateway) -> None:
    path = f"/v1/users/{await listener.new_user('One')}"
    etag = (await listener.api.get(path)).headers["etag"]
    assert_problem(await listener.api.patch(path, json={"name": "x"}), 428, "precondition-required")
    nope = await listener.api.patch(path, json={"name": "x"}, headers={"if-match": '"nope"'})
    assert etag in assert_problem(nope, 412, "precondition-failed")["detail"]
    changed = await listener.api.patch(path, json={"name": "Two"}, headers={"if-match": etag})
    assert (changed.status_code, changed.json()["name"]) == (200, "Two")
    late = await listener.api.patch(path, json={"name": "Three"}, headers={"if-match": etag})
    assert_problem(late, 412, "precondition-failed")
    now = await listener.api.get(path)
    assert (now.json()["name"], now.headers["etag"]) == ("Two", changed.headers["etag"])
    known = await listener.api.get(path, headers={"if-none-match": now.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")


async def test_a_change_shows_a_user_only_to_a_key_that_may_read_users(listener: RunningGateway) -> None:
    path = f"/v1/users/{await listener.new_user('One')}"
    async with listener.client(await listener.new_key("users:write", user_id=1)) as client:
        changed = await client.patch(path, json={"name": "Two"}, headers=ANY)
    user = (await listener.api.get(path)).json()
    assert (changed.status_code, user["name"]) == (200, "Two")
    assert changed.json() == {"id": user["id"], "updated_at": user["updated_at"]}


async def test_one_of_two_changes_of_one_version_at_the_same_time_is_refused(
    listener: RunningGateway,
) -> None:
    path = f"/v1/users/{await listener.new_user('One')}"
    headers = {"if-match": (await listener.api.get(path)).headers["etag"]}
    answers = await asyncio.gather(
        *(listener.api.patch(path, json={"name": name}, headers=headers) for name in ("A", "B", "C"))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412]


async def test_a_change_that_changes_nothing_keeps_the_version(listener: RunningGateway) -> None:
    path = f"/v1/users/{await listener.new_user('Same')}"
    before = await listener.api.get(path)
    for body in ({}, {"name": "Same"}):
        answer = await listener.api.patch(path, json=body, headers={"if-match": "*"})
        assert (answer.json(), answer.headers["etag"]) == (before.json(), before.headers["etag"])


@pytest.mark.parametrize("field", ["name", "email", "role", "status"])
async def test_no_field_of_a_user_can_be_removed(listener: RunningGateway, field: str) -> None:
    path = f"/v1/users/{await listener.new_user('Whole')}"
    answer = await listener.api.patch(path, json={field: None}, headers={"if-match": "*"})
    assert_problem(answer, 422, "invalid-input")
    assert answer.json()["errors"][0]["pointer"] == f"/{field}"


async def test_a_repeated_request_makes_one_user(listener: RunningGateway) -> None:
    wanted, headers = person(), {"idempotency-key": "one-user"}
    first, second = [await listener.api.post("/v1/users", json=wanted, headers=headers) for _ in range(2)]
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert_problem(
        await listener.api.post("/v1/users", json=person(), headers=headers), 422, "idempotency-mismatch"
    )


async def test_a_key_that_may_change_users_but_not_administer_makes_no_administrator(
    listener: RunningGateway,
) -> None:
    wanted = {"name": "x", "scopes": ["users:read", "users:write", "keys:write"]}
    key = (await listener.api.post("/v1/api-keys", json=wanted)).json()["key"]
    administrator = await listener.new_user(role="admin")
    theirs = await listener.new_key("quotes:read", user_id=administrator)
    member = await listener.new_user()
    async with listener.client(key) as client:
        assert (await client.get("/v1/users")).status_code == 200
        made = await client.post("/v1/users", json=person())
        assert made.status_code == 201
        assert_problem(await client.post("/v1/users", json=person(role="admin")), 403, "forbidden")
        for path, body in (
            (f"/v1/users/{member}", {"role": "admin"}),
            (f"/v1/users/{administrator}", {"email": "mine@example.com"}),
            (f"/v1/users/{administrator}", {"status": "disabled"}),
        ):
            answer = await client.patch(path, json=body, headers={"if-match": "*"})
            assert_problem(answer, 403, "forbidden")
        assert_problem(await client.delete(f"/v1/api-keys/{theirs[8:24]}"), 403, "forbidden")
        for user_id, status in ((administrator, 403), (member, 201), (1, 201)):
            wanted = {"name": "y", "scopes": ["users:read"] if user_id != member else ["keys:write"]}
            answer = await client.post("/v1/api-keys", json={**wanted, "user_id": user_id})
            assert answer.status_code == status, answer.text
        disabled = await client.patch(
            f"/v1/users/{member}", json={"status": "disabled"}, headers={"if-match": "*"}
        )
        assert disabled.json()["status"] == "disabled"


async def test_a_taken_address_is_a_conflict_in_any_case(listener: RunningGateway) -> None:
    one, other = person(), person()
    await listener.api.post("/v1/users", json=one)
    second = await listener.api.post("/v1/users", json=other)
    assert_problem(await listener.api.post("/v1/users", json=one), 409, "conflict")
    upper = {"email": one["email"].upper().replace("EXAMPLE.COM", "example.com")}
    assert_problem(
        await listener.api.patch(second.headers["location"], json=upper, headers=ANY), 409, "conflict"
    )


async def test_a_member_sees_itself_and_nobody_else(listener: RunningGateway) -> None:
    id_ = await listener.new_user("Me")
    async with listener.client(await listener.new_key("quotes:read", user_id=id_)) as client:
        assert (await client.get(f"/v1/users/{id_}")).json()["name"] == "Me"
        assert (await client.get(f"/user/{id_}")).status_code == 200
        assert_problem(await client.get("/v1/users/1"), 404, "not-found")
        assert_problem(await client.get("/user/1"), 404, "not-found")


@pytest.mark.parametrize("id_", ["0", "999999999", str(2**63 - 1), str(2**63), "9" * 400, "-1", "x", "1.5"])
async def test_an_invalid_user_id_is_not_found(listener: RunningGateway, id_: str) -> None:
    assert_problem(await listener.api.get(f"/v1/users/{id_}"), 404, "not-found")
    assert_problem(await listener.api.get(f"/user/{id_}"), 404, "not-found")
    assert_problem(
        await listener.api.patch(f"/v1/users/{id_}", json={"name": "x"}, headers=ANY), 404, "not-found"
    )


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "a\0"}, "/name"),
        ({"name": "a\x1b[31m"}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"email": "nope"}, "/email"),
        ({"email": " ann@example.com"}, "/email"),
        ({"email": "Ann <ann@example.com>"}, "/email"),
        ({"role": "king"}, "/role"),
        ({"surprise": 1}, "/surprise"),
    ],
)
async def test_an_invalid_field_of_a_user_is_named(
    listener: RunningGateway, body: dict[str, Any], pointer: str
) -> None:
    assert_problem(await listener.api.post("/v1/users", json=person(**body)), 422, "invalid-input", pointer)


async def test_pages_follow_each_other_to_the_end(listener: RunningGateway) -> None:
    for _ in range(5):
        await listener.new_user()
    seen = [user["id"] for user in await all_pages(listener.api, "/v1/users", limit=2)]
    assert seen == sorted(set(seen))
    assert len(seen) == await listener.database.fetchval("SELECT count(*) FROM users")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "cursor=x", "cursor=-1", f"cursor={2**63}", "page=2"]
)
async def test_an_invalid_page_is_422(listener: RunningGateway, query: str) -> None:
    answer: httpx.Response = await listener.api.get(f"/v1/users?{query}")
    assert_problem(answer, 422, "invalid-input", f"/{query.split('=')[0]}")


async def test_accepted_work_of_a_user_is_limited_to_the_current_rights(house: House) -> None:
    listener = await house.open()
    await house.purge(INTAKE)
    user = await listener.new_user()
    for change in (
        {"role": "admin"},
        {"name": "no change of rights"},
        {"role": "member"},
        {"status": "disabled"},
    ):
        await listener.change_user(user, **change)
    messages: list[Any] = []
    while len(messages) < 3:
        # Gateways of other tests, which are about other users, share the queue.
        messages += [m for m in await house.take(INTAKE, 1) if m.get("owner_id") == str(user)]
    assert {message["_"]["type"] for message in messages} == {"batch.limit-owner.v1"}
    by_number = sorted((message["scopes"] for message in messages), key=len)
    assert by_number == [[], sorted(map(str, FOR_MEMBERS)), sorted(map(str, Scope))]

"""An installation always has an administrator, and the host can always make one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from structlog.testing import capture_logs

from chassis import metrics
from gateway.identity import keys, reset
from support.gateway_stack import House, RunningGateway
from support.measured import value_of
from support.problems import assert_problem


@pytest.fixture
async def alone(house: House) -> RunningGateway:
    """Return a gateway whose administrators no other test changes."""
    return await house.open()


@pytest.fixture
async def second(alone: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with the key of a second administrator, which the first did not make."""
    key, _ = await reset.reset(alone.settings, email="second@example.com", revoke_others=False)
    async with alone.client(str(key)) as client:
        yield client


async def id_of(client: httpx.AsyncClient) -> tuple[int, str]:
    me = (await client.get("/v1/me")).json()
    return me["user"]["id"], me["key"]["id"]


async def try_to_end(client: httpx.AsyncClient, how: str, user: int, key: str) -> httpx.Response:
    if how == "revoke":
        return await client.delete(f"/v1/api-keys/{key}")
    change = {"role": "member"} if how == "demote" else {"status": "disabled"}
    return await client.patch(f"/v1/users/{user}", json=change, headers={"if-match": "*"})


@pytest.mark.parametrize("how", ["revoke", "demote", "disable"])
async def test_the_last_administrator_stays(alone: RunningGateway, how: str) -> None:
    answer = await try_to_end(alone.api, how, *await id_of(alone.api))
    assert_problem(answer, 409, "conflict")
    assert (await alone.api.get("/v1/users")).status_code == 200
    assert (await alone.api.get("/v1/admin/audit")).json()["data"][0]["action"] == "key.created"


@pytest.mark.parametrize("how", ["revoke", "demote", "disable"])
async def test_the_access_of_one_of_two_administrators_can_be_ended(
    alone: RunningGateway, second: httpx.AsyncClient, how: str
) -> None:
    answer = await try_to_end(second, how, *await id_of(alone.api))
    assert answer.status_code in (200, 204), answer.text
    assert (await alone.api.get("/v1/users")).status_code in (401, 403)
    assert_problem(await try_to_end(second, how, *await id_of(second)), 409, "conflict")


async def test_an_administrator_whose_key_is_a_child_of_the_ended_key_does_not_count(
    alone: RunningGateway,
) -> None:
    user = await alone.new_user(role="admin")
    made = await alone.api.post("/v1/api-keys", json={"name": "x", "scopes": ["admin"], "user_id": user})
    async with alone.client(made.json()["key"]) as client:
        _, first = await id_of(alone.api)
        assert_problem(await client.delete(f"/v1/api-keys/{first}"), 409, "conflict")
        # The user can go: the key that it made has another owner.
        assert (await try_to_end(client, "demote", 1, first)).status_code == 200


@pytest.mark.parametrize("how", ["revoke", "demote", "disable"])
async def test_an_administrator_whose_key_expires_does_not_count(
    alone: RunningGateway, second: httpx.AsyncClient, how: str
) -> None:
    _, key = await id_of(second)
    await alone.database.execute(
        "UPDATE api_keys SET expires_at = now() + interval '1 day' WHERE id = $1", key
    )
    answer = await try_to_end(second, how, *await id_of(alone.api))
    assert "expire" in assert_problem(answer, 409, "conflict")["detail"]


async def test_changes_of_others_are_free_where_no_key_is_without_an_expiry(alone: RunningGateway) -> None:
    member = await alone.new_user()
    key = await alone.new_key("quotes:read", user_id=member)
    await alone.database.execute("UPDATE api_keys SET expires_at = now() + interval '1 day'")
    assert (await alone.api.delete(f"/v1/api-keys/{key[8:24]}")).status_code == 204
    await alone.change_user(member, status="disabled")


@pytest.mark.parametrize("how", ["revoke", "demote", "disable"])
async def test_two_administrators_who_end_each_other_at_the_same_time_leave_one(
    alone: RunningGateway, second: httpx.AsyncClient, how: str
) -> None:
    one, other = await id_of(alone.api), await id_of(second)
    answers = await asyncio.gather(
        try_to_end(alone.api, how, *other), try_to_end(second, how, *one), return_exceptions=False
    )
    statuses = sorted(answer.status_code for answer in answers)
    # The second to come finds itself the last, or ended already.
    assert statuses[0] in (200, 204)
    assert statuses[1] in (401, 403, 409)
    working = [(await client.get("/v1/users")).status_code for client in (alone.api, second)]
    assert working.count(200) == 1


async def test_the_host_makes_a_key_that_works_at_once_and_can_revoke_the_others(house: House) -> None:
    listener = await house.open()
    child = (await listener.api.post("/v1/api-keys", json={"name": "x", "scopes": ["admin"]})).json()["key"]
    await listener.database.execute("UPDATE users SET role = 'member', status = 'disabled'")
    key, revoked = await reset.reset(listener.settings, email="admin@localhost", revoke_others=True)
    assert set(revoked) == {listener.admin_key[8:24], child[8:24]}
    async with listener.client(str(key)) as client:
        me = (await client.get("/v1/me")).json()
        assert (me["user"]["id"], me["user"]["role"]) == (1, "admin")
        await listener.gateway.resources.keyring.forget()
        for old in (listener.admin_key, child):
            async with listener.client(old) as former:
                assert_problem(await former.get("/v1/me"), 401, "unauthenticated")
        trail = (await client.get("/v1/admin/audit?limit=3")).json()["data"]
    assert {entry["action"] for entry in trail} == {"key.created", "key.revoked"}
    assert {(entry["actor"]["name"], entry["actor"]["key_id"]) for entry in trail} == {("host", None)}


async def test_a_start_with_a_bootstrap_key_that_is_revoked_says_so(house: House) -> None:
    dsn, key = await house.database(), str(keys.new_key())
    listener = await house.open(dsn=dsn, bootstrap_key=key)
    assert refused() == 0
    replacement, _ = await reset.reset(listener.settings, email="admin@localhost", revoke_others=True)
    bootstrap = listener.gateway.resources.bootstrap
    assert bootstrap is not None
    with capture_logs() as lines:
        await bootstrap.look()
        assert refused() == 1
        await bootstrap.look()
        again = await house.open(dsn=dsn, bootstrap_key=key)
    assert_problem(await again.api.get("/v1/me"), 401, "unauthenticated")
    assert again.gateway.resources.runtime.health.reasons() == {}
    assert refused() == 1
    # Where the machine is busy, others report errors, too: that the event loop was blocked.
    reported = [line for line in lines if line.get("module") == "gateway.identity.bootstrap"]
    assert len(reported) == 2
    for line in reported:
        assert "the bootstrap key does not work" in line["event"]
        assert "gateway.identity.reset" in line["event"]
        assert line["key_id"] == key[8:24]
        assert "it was revoked" in line["reason"]
    third = await house.open(dsn=dsn, bootstrap_key=str(replacement))
    assert (await third.api.get("/v1/users")).status_code == 200
    assert refused() == 0


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE users SET role = 'member'", "not an administrator"),
        ("UPDATE users SET status = 'disabled'", "its user is disabled"),
        ("UPDATE api_keys SET digest = 'another'", "GATEWAY_KEY_PEPPER"),
        ("UPDATE api_keys SET expires_at = now()", "has expired"),
        ("DELETE FROM api_keys", "not in the database"),
    ],
)
async def test_the_reason_why_the_bootstrap_key_does_not_work_is_reported(
    house: House, statement: str, reason: str
) -> None:
    listener = await house.open()
    bootstrap = listener.gateway.resources.bootstrap
    assert bootstrap is not None
    assert await bootstrap.refusal() is None
    await listener.database.execute(statement)
    assert reason in (await bootstrap.refusal() or "")


async def test_many_replicas_that_start_together_make_one_administrator(house: House) -> None:
    dsn, key = await house.database(), str(keys.new_key())
    listeners = await asyncio.gather(*(house.open(dsn=dsn, bootstrap_key=key) for _ in range(3)))
    assert {(await listener.api.get("/v1/users")).status_code for listener in listeners} == {200}
    assert await listeners[0].database.fetchval("SELECT count(*) FROM api_keys") == 1
    assert await listeners[0].database.fetchval("SELECT count(*) FROM audit_entries") == 1


def refused() -> float:
    return value_of(metrics.BOOTSTRAP_KEY_REFUSED)

"""Every change of users, keys and parked messages is recorded: its author, the key, and the values before."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.audit.inputs import Action
from support.gateway_stack import House, RunningGateway
from support.pages import all_pages
from support.problems import assert_problem


async def trail(listener: RunningGateway, **filters: Any) -> list[dict[str, Any]]:
    answer = await listener.api.get("/v1/admin/audit", params=filters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


async def test_changes_of_users_are_recorded_with_the_values_before(listener: RunningGateway) -> None:
    request = {"x-request-id": "who-made-this"}
    body = {"name": "Ann", "email": "ann.audit@example.com"}
    made = await listener.api.post("/v1/users", json=body, headers=request)
    user = made.json()["id"]
    await listener.change_user(user, name="Anna", role="admin")
    await listener.change_user(user, name="Anna")
    changed, created = await trail(listener, target=f"user:{user}")
    assert (created["action"], created["before"]) == ("user.created", None)
    assert created["after"] == {**body, "role": "member"}
    assert created["request_id"] == "who-made-this"
    assert created["actor"] == {"user_id": 1, "name": "Administrator", "key_id": listener.admin_key[8:24]}
    assert created["at"].endswith("Z")
    assert changed["action"] == "user.changed"
    assert changed["before"] == {"name": "Ann", "role": "member"}
    assert changed["after"] == {"name": "Anna", "role": "admin"}


async def test_changes_of_keys_are_recorded_without_their_secrets(listener: RunningGateway) -> None:
    made = (await listener.api.post("/v1/api-keys", json={"name": "shop", "scopes": ["quotes:read"]})).json()
    path = f"/v1/api-keys/{made['id']}"
    rotated = (await listener.api.post(f"{path}/rotate", json={"overlap_s": 60})).json()
    for _ in range(2):
        assert (await listener.api.delete(path)).status_code == 204
    entries = await trail(listener, target=f"api-key:{made['id']}")
    assert [entry["action"] for entry in entries] == ["key.revoked", "key.rotated", "key.created"]
    assert entries[0]["before"]["status"] == "active"
    assert entries[1]["after"]["previous_until"] == rotated["previous_until"]
    assert entries[2]["after"]["scopes"] == ["quotes:read"]
    text = str(await listener.database.fetch("SELECT audit_entries::text FROM audit_entries"))
    for key in (made["key"], rotated["key"], listener.admin_key):
        assert key[25:-6] not in text


async def test_a_secret_in_a_name_is_not_recorded(listener: RunningGateway) -> None:
    wanted = {"name": f"mine is {listener.admin_key}", "scopes": ["quotes:read"]}
    made = (await listener.api.post("/v1/api-keys", json=wanted)).json()
    (entry,) = await trail(listener, target=f"api-key:{made['id']}")
    assert listener.admin_key[25:] not in str(entry)


async def test_decisions_on_parked_messages_are_recorded(listener: RunningGateway) -> None:
    for verb, action in (("replay", "parked.replayed"), ("discard", "parked.discarded")):
        choice = {"service": "gateway", "reason": "none like this"}
        answer = await listener.api.post(f"/v1/admin/parked/{verb}", params=choice)
        assert answer.json() == {"matched": 0, "changed": 0, "dry_run": False, "complete": True}
        entry = (await trail(listener, action=action))[0]
        assert (entry["target"], entry["after"]["count"]) == ("parked:gateway", 0)
        assert entry["after"]["wanted"]["reason"] == "none like this"


async def test_a_dry_run_is_no_decision(listener: RunningGateway) -> None:
    for verb in ("replay", "discard"):
        choice = {"service": "gateway", "reason": "nothing to record", "dry_run": "true"}
        answer = await listener.api.post(f"/v1/admin/parked/{verb}", params=choice)
        assert answer.json() == {"matched": 0, "changed": 0, "dry_run": True, "complete": True}
    count = "SELECT count(*) FROM audit_entries WHERE after->'wanted'->>'reason' = 'nothing to record'"
    assert await listener.database.fetchval(count) == 0


async def test_an_action_on_parked_messages_without_a_filter_is_refused(listener: RunningGateway) -> None:
    for query in ({"service": "gateway"}, {"service": "gateway", "rate_per_s": "5"}, {"queue": "email.send"}):
        answer = await listener.api.post("/v1/admin/parked/replay", params=query)
        assert_problem(answer, 422, "invalid-input")


async def test_a_change_that_is_rolled_back_is_not_recorded(listener: RunningGateway) -> None:
    body = {"name": "Ann", "email": "twice.audit@example.com"}
    await listener.api.post("/v1/users", json=body)
    count = "SELECT count(*) FROM audit_entries WHERE after->>'email' = 'twice.audit@example.com'"
    assert_problem(await listener.api.post("/v1/users", json=body), 409, "conflict")
    assert_problem(await listener.api.delete(f"/v1/api-keys/{listener.admin_key[8:24]}"), 409, "conflict")
    assert await listener.database.fetchval(count) == 1
    assert await trail(listener, target=f"api-key:{listener.admin_key[8:24]}", action="key.revoked") == []


async def test_a_repeated_request_is_recorded_once(listener: RunningGateway) -> None:
    body, headers = {"name": "x", "scopes": ["quotes:read"]}, {"idempotency-key": "audited-once"}
    made = [(await listener.api.post("/v1/api-keys", json=body, headers=headers)).json() for _ in range(2)]
    assert len(await trail(listener, target=f"api-key:{made[0]['id']}")) == 1


async def test_the_trail_comes_in_pages_and_can_be_narrowed(listener: RunningGateway) -> None:
    for name in ("One", "Two", "Three"):
        await listener.new_user(name)
    entries = await all_pages(listener.api, "/v1/admin/audit", limit=2, action="user.created", user_id=1)
    seen = [entry["id"] for entry in entries]
    created = "SELECT count(*) FROM audit_entries WHERE action = 'user.created' AND user_id = 1"
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == await listener.database.fetchval(created)
    newest = (await trail(listener, limit=1))[0]
    assert await trail(listener, created_after=newest["at"]) == []
    assert newest not in await trail(listener, created_before=newest["at"])
    assert newest in await trail(listener, key_id=listener.admin_key[8:24])
    assert await trail(listener, key_id="somebody else") == []


@pytest.mark.parametrize("query", ["limit=0", "cursor=-1", "user_id=x", "created_after=0", "page=2"])
async def test_an_invalid_query_is_422(listener: RunningGateway, query: str) -> None:
    answer = await listener.api.get(f"/v1/admin/audit?{query}")
    assert_problem(answer, 422, "invalid-input", f"/{query.partition('=')[0]}")


async def test_old_entries_are_removed_after_their_time_and_no_sooner(house: House) -> None:
    listener = await house.open(audit_retention_days=30)
    await listener.database.execute(
        "INSERT INTO audit_entries (user_name, action, target, at) SELECT 'x', 'x', 'x', now() - age"
        " FROM unnest(array_fill('31 days'::interval, ARRAY[2500]) || ARRAY['29 days'::interval]) AS age"
    )
    await listener.gateway.resources.audit.remove_old()
    left = "SELECT count(*) FROM audit_entries WHERE action = 'x'"
    assert await listener.database.fetchval(left) == 1


def test_an_action_is_named_by_a_thing_and_a_past_participle() -> None:
    for action in Action:
        thing, _, change = action.partition(".")
        assert thing.isalpha()
        assert change.endswith("ed")

"""Keys that have ended are removed, with nothing that hangs on them."""

from __future__ import annotations

import asyncio

import pytest

from gateway.identity import key_service
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

NEW = {"name": "x", "scopes": ["quotes:read", "keys:write"]}


async def make(listener: RunningGateway, key: str | None = None, **more: object) -> tuple[str, str]:
    """Return the id and the text of a new key, made with `key` or the administrator's."""
    async with listener.client(key or listener.admin_key) as client:
        made = (await client.post("/v1/api-keys", json={**NEW, **more})).json()
    return made["id"], made["key"]


async def age(listener: RunningGateway, *key_ids: str, days: int) -> None:
    """Let the revocation or the expiry of keys be some days ago."""
    await listener.database.execute(
        "UPDATE api_keys SET revoked_at = revoked_at - age, expires_at = expires_at - age"
        " FROM make_interval(days => $2) AS age WHERE id = ANY($1::text[])",
        key_ids,
        days,
    )


async def stored(listener: RunningGateway) -> set[str]:
    return {row["id"] for row in await listener.database.fetch("SELECT id FROM api_keys")}


async def test_keys_are_removed_when_they_or_those_that_made_them_ended_long_ago_and_no_sooner(
    house: House,
) -> None:
    listener = await house.open(key_retention_days=30)
    (parent, text), (recent, _), (live, _) = [await make(listener) for _ in range(3)]
    child, child_text = await make(listener, text)
    await make(listener, child_text)
    expired, _ = await make(listener, expires_at="2100-01-01T00:00:00Z")
    for key_id in (parent, recent):
        assert (await listener.api.delete(f"/v1/api-keys/{key_id}")).status_code == 204
    await age(listener, parent, days=31)
    await age(listener, recent, days=29)
    await listener.database.execute(
        "UPDATE api_keys SET expires_at = now() - interval '31 days' WHERE id = $1", expired
    )
    await asyncio.gather(*(listener.gateway.resources.key_upkeep.remove_old() for _ in range(2)))
    bootstrap = listener.admin_key[8:24]
    assert await stored(listener) == {bootstrap, recent, live}
    assert_problem(await listener.api.get(f"/v1/api-keys/{child}"), 404, "not-found")
    trail = await listener.api.get("/v1/admin/audit", params={"target": f"api-key:{parent}"})
    assert [entry["action"] for entry in trail.json()["data"]] == ["key.revoked", "key.created"]
    async with listener.client(text) as client:
        assert_problem(await client.get("/v1/me"), 401, "unauthenticated")


async def test_a_key_that_was_made_on_the_host_stays_revoked_for_ever(house: House) -> None:
    listener = await house.open(key_retention_days=30)
    await make(listener)
    parts, bootstrap = listener.gateway.resources, listener.admin_key[8:24]
    await listener.database.execute(
        "UPDATE api_keys SET revoked_at = now() - interval '1 year' WHERE id = $1", bootstrap
    )
    await parts.key_upkeep.remove_old()
    assert await stored(listener) == {bootstrap}
    # As at the next start.
    assert parts.bootstrap is not None
    await parts.bootstrap.make_known()
    assert await parts.bootstrap.refusal() == "it was revoked or has expired, or its user is disabled"


async def test_a_user_who_creates_and_revokes_keys_without_end_has_a_bounded_number_of_them(
    listener: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_service, "MOST_ENDED_KEYS", 3)
    user_id = await listener.new_user()
    kept, _ = await make(listener, user_id=user_id)
    made: list[str] = []
    for _ in range(10):
        key_id, _ = await make(listener, user_id=user_id)
        assert (await listener.api.delete(f"/v1/api-keys/{key_id}")).status_code == 204
        made.append(key_id)
    listed = (await listener.api.get("/v1/api-keys", params={"user_id": user_id})).json()["data"]
    assert [key["id"] for key in listed] == [kept, *made[-4:]]

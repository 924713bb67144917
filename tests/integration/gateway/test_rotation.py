"""New secrets for old keys, and answers that can be repeated without a stored secret."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from gateway.identity import keys
from gateway.identity.keys import ApiKey
from support.gateway_stack import PEPPER, House, RunningGateway
from support.problems import assert_problem

WANTED = {"name": "shop", "scopes": ["quotes:read", "keys:write"]}


async def rotate(client: httpx.AsyncClient, key: str, overlap_s: int, **headers: str) -> dict[str, Any]:
    path = f"/v1/api-keys/{key[8:24]}/rotate"
    answer = await client.post(path, json={"overlap_s": overlap_s}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


async def works(listener: RunningGateway, key: str) -> bool:
    async with listener.client(key) as client:
        return (await client.get("/v1/me")).status_code == 200


async def test_the_old_secret_works_as_long_as_the_overlap_says(listener: RunningGateway) -> None:
    old = await listener.new_key("quotes:read")
    async with listener.client(old) as client:
        rotated = await rotate(client, old, 3600)
        assert rotated["id"] == old[8:24]
        assert rotated["key"] != old
        until = datetime.fromisoformat(rotated["previous_until"])
        assert until - datetime.fromisoformat(rotated["rotated_at"]) == timedelta(hours=1)
        # What the old secret may still do ends with the overlap.
        assert (await client.get("/v1/me")).json()["key"]["expires_at"] == rotated["previous_until"]
    assert await works(listener, rotated["key"])
    await listener.database.execute(
        "UPDATE api_keys SET previous_until = now() - interval '1 ms' WHERE id = $1", old[8:24]
    )
    await listener.gateway.resources.keyring.forget()
    assert not await works(listener, old)
    assert await works(listener, rotated["key"])


async def test_without_an_overlap_the_old_secret_ends_at_once(listener: RunningGateway) -> None:
    old = await listener.new_key("quotes:read")
    async with listener.client(old) as client:
        rotated = await rotate(client, old, 0)
    assert rotated["previous_until"] is None
    assert not await works(listener, old)
    assert await works(listener, rotated["key"])


async def test_a_rotated_secret_makes_nothing_that_outlives_it(listener: RunningGateway) -> None:
    old = await listener.new_key("quotes:read", "keys:write")
    async with listener.client(old) as client:
        child = (await client.post("/v1/api-keys", json=WANTED)).json()["key"]
        rotated = await rotate(client, old, 60)
        for key in (old, child):
            again = await client.post(f"/v1/api-keys/{key[8:24]}/rotate", json={})
            assert_problem(again, 403, "forbidden")
        late = (await client.post("/v1/api-keys", json=WANTED)).json()
        assert late["expires_at"] == rotated["previous_until"]


async def test_a_key_is_rotated_by_itself_or_by_a_key_that_made_it_and_by_no_other(
    listener: RunningGateway,
) -> None:
    user = await listener.new_user()
    strong = await listener.new_key("quotes:read", "emails:send", user_id=user)
    weak = await listener.new_key("keys:write", user_id=user)
    async with listener.client(weak) as client:
        # It belongs to the same user, but its secret would give more than the key that asks has.
        path = f"/v1/api-keys/{strong[8:24]}/rotate"
        assert_problem(await client.post(path, json={}), 403, "forbidden")
    assert await works(listener, strong)
    rotated = await rotate(listener.api, strong, 0)
    assert await works(listener, rotated["key"])
    await listener.api.delete(f"/v1/api-keys/{strong[8:24]}")
    assert_problem(await listener.api.post(path, json={}), 409, "conflict")


async def test_a_key_that_may_not_manage_keys_does_not_learn_which_others_there_are(
    listener: RunningGateway,
) -> None:
    user = await listener.new_user()
    other = await listener.new_key("quotes:read", user_id=user)
    async with listener.client(await listener.new_key("emails:send", user_id=user)) as client:
        for key_id in (other[8:24], "0" * 16):
            path = f"/v1/api-keys/{key_id}"
            for answer in (
                await client.get(path),
                await client.post(f"{path}/rotate", json={}),
                await client.delete(path),
            ):
                assert_problem(answer, 403, "forbidden")


async def test_the_children_of_a_key_outlive_its_rotation(listener: RunningGateway) -> None:
    parent = await listener.new_key("quotes:read", "keys:write")
    async with listener.client(parent) as client:
        child = (await client.post("/v1/api-keys", json=WANTED)).json()["key"]
        await rotate(client, parent, 0)
    assert await works(listener, child)


async def test_a_key_without_a_checksum_works_until_it_is_rotated(listener: RunningGateway) -> None:
    user = await listener.new_user()
    old = ApiKey(keys.new_id(), "a-_B" * 10 + "xyz", has_checksum=False)
    await listener.database.execute(
        "INSERT INTO api_keys (id, user_id, name, digest, scopes)"
        " VALUES ($1, $2, 'old', $3, '{quotes:read}')",
        old.id,
        user,
        keys.digest(PEPPER, old),
    )
    async with listener.client(str(old)) as client:
        rotated = await rotate(client, str(old), 0)
    assert await works(listener, rotated["key"])
    assert len(rotated["key"]) == len(str(old)) + 6


async def test_a_repeated_request_gets_the_same_key_again_and_its_secret_is_not_stored(
    listener: RunningGateway,
) -> None:
    maker = await listener.new_key("quotes:read", "keys:write")
    headers = {"idempotency-key": '"make it once"'}
    async with listener.client(maker) as client:
        first, second = [await client.post("/v1/api-keys", json=WANTED, headers=headers) for _ in range(2)]
        assert (first.status_code, first.json()) == (second.status_code, second.json())
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true"
        assert second.headers["location"] == first.headers["location"] == f"/v1/api-keys/{first.json()['id']}"
        other = await client.post("/v1/api-keys", json={**WANTED, "name": "x"}, headers=headers)
        assert_problem(other, 422, "idempotency-mismatch")
    assert await works(listener, first.json()["key"])
    rows = await listener.database.fetch(
        "SELECT convert_from(answer, 'UTF8') AS text FROM idempotency WHERE answer IS NOT NULL"
    )
    assert any(first.json()["id"] in row["text"] for row in rows)
    assert not any(first.json()["key"][25:-6] in row["text"] for row in rows)


async def test_a_repeated_rotation_gets_the_same_secret_again(listener: RunningGateway) -> None:
    key = await listener.new_key("quotes:read")
    async with listener.client(key) as client:
        first, second = [await rotate(client, key, 3600, **{"idempotency-key": "again"}) for _ in range(2)]
    assert first == second
    assert await works(listener, first["key"])
    assert first["key"] != key


async def test_a_key_is_rotated_or_revoked_only_by_a_caller_that_has_read_its_last_rotation(
    listener: RunningGateway,
) -> None:
    path = f"/v1/api-keys/{(await listener.new_key('quotes:read'))[8:24]}"
    first = (await listener.api.get(path)).headers["etag"]
    assert (await listener.api.get(path, headers={"if-none-match": first})).status_code == 304
    # Its use changes the answer, and nothing that a change could overwrite.
    await listener.database.execute("UPDATE api_keys SET last_used_at = now() WHERE id = $1", path[-16:])
    used = (await listener.api.get(path)).headers["etag"]
    assert used != first
    rotated = await listener.api.post(f"{path}/rotate", json={}, headers={"if-match": first})
    assert rotated.status_code == 200, rotated.text
    for late in (
        await listener.api.post(f"{path}/rotate", json={}, headers={"if-match": used}),
        await listener.api.delete(path, headers={"if-match": used}),
    ):
        assert_problem(late, 412, "precondition-failed")
    current = {"if-match": (await listener.api.get(path)).headers["etag"]}
    assert (await listener.api.delete(path, headers=current)).status_code == 204
    assert_problem(await listener.api.delete(path, headers=current), 412, "precondition-failed")


async def test_of_two_rotations_at_the_same_version_one_is_refused(listener: RunningGateway) -> None:
    path = f"/v1/api-keys/{(await listener.new_key('quotes:read'))[8:24]}"
    read = {"if-match": (await listener.api.get(path)).headers["etag"]}
    both = await asyncio.gather(
        *(listener.api.post(f"{path}/rotate", json={}, headers=read) for _ in range(2))
    )
    assert sorted(answer.status_code for answer in both) == [200, 412]


async def test_another_key_of_the_same_user_does_not_get_the_answer_with_the_secret(
    listener: RunningGateway,
) -> None:
    user = await listener.new_user()
    strong = await listener.new_key("quotes:read", "emails:send", "keys:write", user_id=user)
    weak = await listener.new_key("keys:write", user_id=user)
    wanted, headers = {"name": "x", "scopes": ["emails:send"]}, {"idempotency-key": "guessed"}
    async with listener.client(strong) as client:
        assert (await client.post("/v1/api-keys", json=wanted, headers=headers)).status_code == 201
    async with listener.client(weak) as client:
        answer = await client.post("/v1/api-keys", json=wanted, headers=headers)
    assert_problem(answer, 422, "idempotency-mismatch")
    assert "tw_live_" not in answer.text


async def test_a_request_repeated_after_a_day_makes_another_key(listener: RunningGateway) -> None:
    headers = {"idempotency-key": "daily"}
    made = []
    for _ in range(2):
        made.append((await listener.api.post("/v1/api-keys", json=WANTED, headers=headers)).json())
        await listener.database.execute("UPDATE idempotency SET created_at = now() - interval '25 hours'")
    assert made[0]["id"] != made[1]["id"]
    assert made[0]["key"][25:] != made[1]["key"][25:]
    assert datetime.fromisoformat(made[1]["created_at"]) <= datetime.now(UTC)


async def test_keys_of_the_previous_pepper_are_valid_as_long_as_it_is_kept(house: House) -> None:
    before = await house.open()
    dsn = before.settings.postgres_dsn.get_secret_value()
    asked: dict[str, Any] = {"json": WANTED, "headers": {"idempotency-key": '"make it once"'}}
    made = (await before.api.post("/v1/api-keys", **asked)).json()
    token = (await before.api.post("/v1/realtime/tokens", json={})).json()["token"]
    path = (await before.api.post("/v1/console/logins", json={})).json()["path"]
    login = {"token": path.partition("#")[2]}
    next_pepper = "the next pepper of the tests"
    during = await house.open(dsn=dsn, key_pepper=next_pepper, previous_key_pepper=PEPPER)
    async with during.client(before.admin_key) as client:
        again = await client.post("/v1/api-keys", **asked)
        assert again.json() == made
        assert await works(during, made["key"])
        access = await during.gateway.resources.tokens.authenticate(token)
        assert access.principal.key_id == before.admin_key[8:24]
        assert (await client.post("/v1/console/sessions", json=login)).status_code == 200
    after = await house.open(dsn=dsn, key_pepper=next_pepper)
    async with after.client(before.admin_key) as client:
        refused = await client.post("/v1/api-keys", **asked)
        assert_problem(refused, 409, "conflict")
        assert "cannot be shown again" in refused.json()["detail"]
    assert await works(after, made["key"])

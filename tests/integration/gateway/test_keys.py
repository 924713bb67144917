"""API keys are made, used, limited and revoked; only their owner has the secret."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gateway import resources
from gateway.identity import key_service, keyring, keys
from gateway.identity.keys import ApiKey
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

MAIL = {"to": ["ann@example.com"], "subject": "Hello", "text": "How are you?"}


async def test_the_bootstrap_key_works_after_a_second_start_too(house: House) -> None:
    dsn, key = await house.database(), str(keys.new_key())
    for _ in range(2):
        listener = await house.open(dsn=dsn, bootstrap_key=key)
        me = (await listener.api.get("/v1/me")).json()
        assert me["user"]["role"] == "admin"
        assert "admin" in me["key"]["scopes"]
    assert await listener.database.fetchval("SELECT count(*) FROM users") == 1
    assert await listener.database.fetchval("SELECT count(*) FROM api_keys") == 1


async def test_the_secret_is_shown_once_and_nowhere_in_the_database(house: House) -> None:
    # A database of its own: others write the text of a key where it does not belong.
    listener = await house.open()
    answer = await listener.api.post("/v1/api-keys", json={"name": "shop", "scopes": ["quotes:read"]})
    key = answer.json()["key"]
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    found = await listener.api.get(f"/v1/api-keys/{answer.json()['id']}")
    assert found.json()["name"] == "shop"
    assert key[-49:-6] not in found.text
    tables = await listener.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for table in tables:
        rows = await listener.database.fetch(f"SELECT t::text AS row FROM {table['tablename']} AS t")
        dump = "\n".join(row["row"] for row in rows)
        for secret in (key[-49:-6], listener.admin_key[-49:-6]):
            assert secret not in dump
            assert secret.encode().hex() not in dump


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nonsense"},
        {"authorization": f"Bearer tw_live_{'0' * 16}_{'A' * 43}"},
        {"authorization": "Basic YTpi"},
        {"authorization": "Bearer"},
        {"x-api-key": "tw_live_"},
        {"x-api-key": "\xff\xfe"},
    ],
)
async def test_a_missing_or_wrong_key_is_401(listener: RunningGateway, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=listener.url) as client:
        given = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await client.get("/v1/me", headers=given)
    assert_problem(answer, 401, "unauthenticated")
    has_credential = any(value.startswith(("Bearer ", "tw_", "\xff")) for value in headers.values())
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="tickwire"')
    assert ('error="invalid_token"' in challenge) is has_credential


async def test_requests_at_once_make_no_more_keys_than_a_user_may_have(
    listener: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_service, "MOST_KEYS", 3)
    wanted = {"name": "x", "scopes": ["quotes:read"], "user_id": await listener.new_user()}
    answers = await asyncio.gather(*(listener.api.post("/v1/api-keys", json=wanted) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5


async def test_the_right_id_with_a_wrong_secret_is_401(listener: RunningGateway) -> None:
    async with listener.client(str(ApiKey(listener.admin_key[8:24], keys.new_secret()))) as client:
        assert_problem(await client.get("/v1/me"), 401, "unauthenticated")


async def test_the_key_may_come_as_x_api_key(listener: RunningGateway) -> None:
    async with httpx.AsyncClient(base_url=listener.url, headers={"x-api-key": listener.admin_key}) as client:
        assert (await client.get("/v1/me")).status_code == 200


async def test_each_route_needs_its_scope(listener: RunningGateway) -> None:
    key = await listener.new_key("quotes:read")
    wanted = [
        ("GET", "/v1/users", None),
        ("POST", "/v1/users", {"name": "x", "email": "x@example.com"}),
        ("PATCH", "/v1/users/1", {"name": "x"}),
        ("GET", "/v1/api-keys", None),
        ("POST", "/v1/api-keys", {"name": "x", "scopes": ["quotes:read"]}),
        ("GET", "/v1/api-keys/0123456789abcdef", None),
        ("DELETE", "/v1/api-keys/0123456789abcdef", None),
        ("GET", "/v1/admin/audit", None),
        ("POST", "/v1/emails", MAIL),
        ("GET", "/v1/emails/018f0000-0000-7000-8000-000000000000", None),
        ("POST", "/v1/batches", {"operation": "echo", "items": [1]}),
        ("GET", "/v1/batches", None),
        ("GET", "/v1/batches/018f0000-0000-7000-8000-000000000000", None),
        ("GET", "/v1/batches/018f0000-0000-7000-8000-000000000000/results", None),
        ("GET", "/v1/batches/018f0000-0000-7000-8000-000000000000/events", None),
        ("POST", "/v1/batches/018f0000-0000-7000-8000-000000000000/cancel", None),
        ("POST", "/v1/tasks", {"operation": "echo"}),
        ("GET", "/v1/operations", None),
        ("POST", "/v1/rooms", {"name": "x"}),
        ("POST", "/v1/rooms/lobby/messages", {"text": "x"}),
        ("POST", "/send-email", {"to": "a@example.com", "subject": "s", "body": "b"}),
        ("POST", "/process-batch", {"batches": [1]}),
        ("POST", "/enqueue-task", {}),
    ]
    async with listener.client(key) as client:
        for method, path, body in wanted:
            assert_problem(await client.request(method, path, json=body), 403, "forbidden")
        assert (await client.get("/v1/me")).status_code == 200


async def test_a_key_that_has_expired_is_401(listener: RunningGateway) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    wanted = {"name": "x", "scopes": ["quotes:read"], "expires_at": tomorrow}
    made = [(await listener.api.post("/v1/api-keys", json=wanted)).json() for _ in range(2)]
    await listener.database.execute(
        "UPDATE api_keys SET expires_at = now() - interval '1 ms' WHERE id = $1", made[1]["id"]
    )
    for key, status in zip(made, (200, 401), strict=True):
        async with listener.client(key["key"]) as client:
            assert (await client.get("/v1/me")).status_code == status


@pytest.mark.parametrize("expires_at", ["2020-01-01T00:00:00Z", "0001-01-01T00:00:00+10:00", "tomorrow"])
async def test_a_key_expires_in_the_future(listener: RunningGateway, expires_at: str) -> None:
    wanted = {"name": "x", "scopes": ["quotes:read"], "expires_at": expires_at}
    assert_problem(await listener.api.post("/v1/api-keys", json=wanted), 422, "invalid-input", "/expires_at")


async def test_a_revoked_key_is_401_at_once_here_and_soon_elsewhere(house: House) -> None:
    dsn = await house.database()
    key = str(keys.new_key())
    listener, other = await asyncio.gather(
        house.open(dsn=dsn, bootstrap_key=key), house.open(dsn=dsn, bootstrap_key=key)
    )
    member = await listener.new_key("quotes:read")
    async with listener.client(member) as here, other.client(member) as there:
        assert (await here.get("/v1/me")).status_code == 200
        assert (await there.get("/v1/me")).status_code == 200
        assert (await listener.api.delete(f"/v1/api-keys/{member[8:24]}")).status_code == 204
        assert_problem(await here.get("/v1/me"), 401, "unauthenticated")

        async def is_refused_there() -> bool:
            return bool((await there.get("/v1/me")).status_code == 401)

        await until(is_refused_there, timeout_s=8)


async def test_an_address_that_tries_many_keys_waits_and_those_who_are_known_do_not(house: House) -> None:
    listener = await house.open()
    new = await listener.new_key("quotes:read")
    assert (await listener.api.get("/v1/me")).status_code == 200
    async with httpx.AsyncClient(base_url=listener.url) as stranger:

        async def attempt(key: str) -> httpx.Response:
            headers = {"authorization": f"Bearer {key}", "x-forwarded-for": "203.0.113.7"}
            return await stranger.get("/v1/me", headers=headers)

        for _ in range(20):
            assert_problem(await attempt(str(keys.new_key())), 401, "unauthenticated")
        for key in (str(keys.new_key()), new):
            limited = await attempt(key)
            assert_problem(limited, 429, "too-many-failures")
            assert 1 <= int(limited.headers["retry-after"]) <= 3
        # What is no key costs nothing, and is told at once.
        assert_problem(await attempt("nonsense"), 401, "unauthenticated")
    assert (await listener.api.get("/v1/me")).status_code == 200


async def test_headers_that_name_a_user_are_trusted_from_nobody(listener: RunningGateway) -> None:
    claims = {"x-user-id": "1", "x-forwarded-user": "1", "x-remote-user": "1", "x-user-role": "admin"}
    async with httpx.AsyncClient(base_url=listener.url, headers=claims) as stranger:
        assert_problem(await stranger.get("/v1/me"), 401, "unauthenticated")
    user = await listener.new_user()
    async with listener.client(await listener.new_key("quotes:read", user_id=user)) as member:
        me = (await member.get("/v1/me", headers=claims)).json()
        assert (me["user"]["id"], me["user"]["role"]) == (user, "member")
        assert_problem(await member.get("/v1/users", headers=claims), 403, "forbidden")


async def test_a_key_of_another_user_is_not_found(listener: RunningGateway) -> None:
    theirs = await listener.new_key("quotes:read")
    async with listener.client(await listener.new_key("keys:read", "keys:write")) as client:
        for method in ("GET", "DELETE"):
            assert_problem(await client.request(method, f"/v1/api-keys/{theirs[8:24]}"), 404, "not-found")
        rotation = await client.post(f"/v1/api-keys/{theirs[8:24]}/rotate", json={})
        assert_problem(rotation, 404, "not-found")
        assert_problem(await client.delete(f"/v1/api-keys/{theirs[8:24]}"), 404, "not-found")
        assert theirs[8:24] not in (await client.get("/v1/api-keys")).text
    async with listener.client(theirs) as client:
        assert (await client.get("/v1/me")).status_code == 200
    for odd in ("0" * 16, "nonsense", "%00", "%C3%A9"):
        assert_problem(await listener.api.delete(f"/v1/api-keys/{odd}"), 404, "not-found")


async def test_another_owners_work_is_not_found(listener: RunningGateway) -> None:
    mail = (await listener.api.post("/v1/emails", json=MAIL)).json()["id"]
    batch = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    task = (await listener.api.post("/v1/tasks", json={"operation": "echo"})).json()["id"]
    async with listener.client(
        await listener.new_key("emails:read", "batches:read", "batches:write")
    ) as client:
        for path in (f"/v1/emails/{mail}", f"/v1/batches/{batch}", f"/v1/tasks/{task}"):
            assert_problem(await client.get(path), 404, "not-found")
            assert (await listener.api.get(path)).status_code == 200
        assert_problem(await client.post(f"/v1/batches/{batch}/cancel"), 404, "not-found")
        assert_problem(await client.get(f"/v1/batches/{batch}/events"), 404, "not-found")
    # A task is not a batch, nor the other way round.
    assert_problem(await listener.api.get(f"/v1/batches/{task}"), 404, "not-found")
    assert_problem(await listener.api.get(f"/v1/emails/{batch}"), 404, "not-found")


async def test_without_the_database_a_known_key_reads_and_an_unknown_one_is_503(house: House) -> None:
    gate = await house.gate("127.0.0.1", house.postgres_port)
    listener = await house.open(dsn=house.dsn_by(await house.database(), gate))
    assert (await listener.api.get("/v1/me")).status_code == 200
    await gate.shut()

    async def database_is_missed() -> bool:
        return "database" in listener.gateway.resources.runtime.health.reasons()

    await until(database_is_missed)
    assert (await listener.api.get("/v1/me")).status_code == 200
    async with listener.client(str(keys.new_key())) as client:
        assert_problem(await client.get("/v1/me"), 503, "database-unavailable")
    assert_problem(await listener.api.post("/v1/emails", json=MAIL), 503, "database-unavailable")
    await gate.open()
    await listener.ready()
    assert (await listener.api.post("/v1/emails", json=MAIL)).status_code == 202


async def test_two_gateways_that_note_the_same_keys_do_not_wait_for_each_other_crosswise(
    house: House,
) -> None:
    listener = await house.open()
    ring = listener.gateway.resources.keyring
    await listener.database.execute(
        "INSERT INTO api_keys (id, user_id, name, digest, scopes)"
        " SELECT 'key-' || to_char(n, 'FM0000'), 1, 'x', '', '{}' FROM generate_series(1, 5000) AS n"
    )
    await listener.database.execute("ANALYZE api_keys")
    used = {f"key-{n:04}": datetime.now(UTC) for n in (1, 2500, 5000)}
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%last_used%'"
    )
    async with listener.database.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        # Both have their first row, and wait for the one in the middle.
        await connection.execute("SELECT FROM api_keys WHERE id = 'key-2500' FOR UPDATE")
        notes = [ring.write_use(keys_used) for keys_used in (used, dict(reversed(used.items())))]
        noting = asyncio.gather(*notes)
        await until(lambda: _is(listener, waiting, 2))
        await transaction.rollback()
        await noting
    noted = "SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL AND id LIKE 'key-%'"
    assert await listener.database.fetchval(noted) == 3


async def test_a_server_that_is_read_only_for_a_while_ends_no_background_task(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "TOUCH_EVERY_S", 0.05)
    monkeypatch.setattr(resources, "REMOVE_EVERY_S", 0.05)
    listener = await house.open()
    await listener.database.execute(
        "INSERT INTO idempotency (owner_id, key, body_hash, created_at) VALUES ('1', 'old', '', '2020-01-01')"
    )
    await _set_read_only(listener, "on")
    runtime = listener.gateway.resources.runtime

    async def is_read_all_the_same() -> bool:
        # The first question may find a connection that the failover has cut.
        await listener.gateway.resources.keyring.forget()
        return bool((await listener.api.get("/v1/me")).status_code == 200)

    await until(is_read_all_the_same)
    await until(lambda: "ReadOnly" in (runtime.postgres.check() or ""))
    await _set_read_only(listener, "off")
    await listener.database.execute("UPDATE api_keys SET last_used_at = NULL")

    async def is_noted() -> bool:
        await listener.gateway.resources.keyring.forget()
        await listener.api.get("/v1/me")
        return bool(
            await listener.database.fetchval("SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL")
        )

    await until(is_noted)
    await until(lambda: _is(listener, "SELECT count(*) FROM idempotency", 0))
    assert runtime.health.failures() == {}


async def _is(listener: RunningGateway, question: str, wanted: int) -> bool:
    return bool(await listener.database.fetchval(question) == wanted)


async def _set_read_only(listener: RunningGateway, state: str) -> None:
    """Make the server read-only, as after a failover to one that is not promoted yet."""
    name = await listener.database.fetchval("SELECT current_database()")
    async with listener.database.acquire() as connection:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {state}")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

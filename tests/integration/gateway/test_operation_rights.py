"""The scopes that operations require are checked by every interface, for every credential."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from contracts.scopes import FOR_MEMBERS, Scope
from support.credentials import Keys, new_key
from support.gateway_stack import Listener
from support.problems import assert_problem


def operation_of(scope: Scope) -> str:
    """Return the operation that needs just this scope."""
    return f"needs.{scope.replace(':', '-')}"


# An operation for each scope, one that needs none and one that needs two.
OPERATIONS: Mapping[str, frozenset[Scope]] = {
    "free": frozenset(),
    "both": frozenset({Scope.QUOTES_READ, Scope.EMAILS_SEND}),
    **{operation_of(scope): frozenset({scope}) for scope in Scope},
}
Ask = Callable[[httpx.AsyncClient, str, dict[str, str]], Awaitable[httpx.Response]]


async def as_batch(client: httpx.AsyncClient, operation: str, headers: dict[str, str]) -> httpx.Response:
    body = {"operation": operation, "items": [1]}
    return await client.post("/v1/batches", json=body, headers=headers)


async def as_upload(client: httpx.AsyncClient, operation: str, headers: dict[str, str]) -> httpx.Response:
    given = {**headers, "content-type": "application/x-ndjson"}
    return await client.post(
        "/v1/batches", params={"operation": operation}, content=b'{"payload":1}\n', headers=given
    )


async def as_task(client: httpx.AsyncClient, operation: str, headers: dict[str, str]) -> httpx.Response:
    return await client.post("/v1/tasks", json={"operation": operation, "payload": 1}, headers=headers)


WAYS: Mapping[str, Ask] = {"batch": as_batch, "upload": as_upload, "task": as_task}


@pytest.fixture(scope="module")
async def listener(guarded_listener: Listener) -> AsyncIterator[Listener]:
    """Yield the gateway, to which these operations were announced."""
    for name, scopes in OPERATIONS.items():
        await guarded_listener.database.execute(
            "INSERT INTO operations (name, description, item_schema, required_scopes)"
            " VALUES ($1, 'For the tests.', '{}', $2)",
            name,
            sorted(map(str, scopes)),
        )
    await guarded_listener.api.get("/v1/operations")
    yield guarded_listener
    await guarded_listener.database.execute("DELETE FROM operations")
    await guarded_listener.api.get("/v1/operations")


@pytest.fixture(scope="module")
async def client(listener: Listener) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=listener.url, timeout=30) as client:
        yield client


@dataclass(frozen=True)
class Credential:
    """A key, its effective rights, and the operations that it is tried with."""

    key: str
    rights: frozenset[Scope]
    operations: Collection[str] = tuple(OPERATIONS)


@pytest.fixture(scope="module")
async def known(listener: Listener, keys: Keys) -> Mapping[str, Credential]:
    """Return the credentials by name; those of one scope only with operations that it decides about."""
    every = frozenset(Scope) - {Scope.ADMIN}
    found = {
        "member with everything": Credential(keys.of_member_with_everything, FOR_MEMBERS),
        "administrator": Credential(listener.admin_key, frozenset(Scope)),
    }
    for scope in sorted(every):
        decided = ["free", "both", operation_of(scope), operation_of(Scope.ADMIN)]
        pair = frozenset({Scope.BATCHES_WRITE, scope})
        key_of_pair = (await new_key(listener, *sorted(pair)))["key"]
        found[f"only {scope}"] = Credential(keys.alone[scope], frozenset({scope}), decided)
        found[f"all but {scope}"] = Credential(keys.without[scope], every - {scope}, decided)
        found[f"batches:write and {scope}"] = Credential(key_of_pair, pair, decided)
    return found


async def statuses(
    client: httpx.AsyncClient, way: str, key: str | None, operations: Collection[str] = OPERATIONS
) -> dict[str, int]:
    """Return the status of the answer for each of `operations`."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    # An owner may have only so many uploads at a time.
    turns = asyncio.Semaphore(8)

    async def ask(operation: str) -> int:
        async with turns:
            return (await WAYS[way](client, operation, headers)).status_code

    answers = await asyncio.gather(*(ask(operation) for operation in operations))
    return dict(zip(operations, answers, strict=True))


@pytest.mark.parametrize("way", WAYS)
async def test_an_operation_is_accepted_from_those_who_have_its_scopes(
    client: httpx.AsyncClient, known: Mapping[str, Credential], way: str
) -> None:
    wrong: list[Any] = []
    for name, tried in known.items():
        for operation, status in (await statuses(client, way, tried.key, tried.operations)).items():
            is_allowed = Scope.BATCHES_WRITE in tried.rights and OPERATIONS[operation] <= tried.rights
            if status != (202 if is_allowed else 403):
                wrong.append((name, operation, status))
    assert wrong == []


@pytest.mark.parametrize("way", WAYS)
async def test_no_operation_is_accepted_for_a_credential_that_is_not_good(
    client: httpx.AsyncClient, keys: Keys, way: str
) -> None:
    for name, key in keys.useless.items():
        # One after another: the first refusal is remembered, and counts as one failure of the address.
        for operation in OPERATIONS:
            assert await statuses(client, way, key, [operation]) == {operation: 401}, name


async def test_a_refusal_names_the_scopes_that_are_missing(
    listener: Listener, client: httpx.AsyncClient
) -> None:
    key = (await new_key(listener, "batches:write", "quotes:read"))["key"]
    answer = await as_task(client, "both", {"authorization": f"Bearer {key}"})
    assert answer.status_code == 403
    assert 'scope="emails:send"' in answer.headers["www-authenticate"]


async def test_lines_and_the_seal_of_an_upload_need_the_scopes_of_its_operation(listener: Listener) -> None:
    user_id = await listener.new_user()
    strong = await listener.new_key("batches:write", "emails:send", user_id=user_id)
    weak = await listener.new_key("batches:write", user_id=user_id)
    body = {"operation": operation_of(Scope.EMAILS_SEND)}
    line, ndjson = b'{"payload":1}\n', {"content-type": "application/x-ndjson"}
    async with listener.client(strong) as opener, listener.client(weak) as other:
        upload = await opener.post("/v1/batches", params={"open": "true"}, json=body)
        assert upload.status_code == 202, upload.text
        path = f"/v1/batches/{upload.json()['id']}"
        refused = await other.put(f"{path}/items", params={"offset": 0}, content=line, headers=ndjson)
        assert_problem(refused, 403, "forbidden")
        taken = await opener.put(f"{path}/items", params={"offset": 0}, content=line, headers=ndjson)
        assert taken.status_code == 200, taken.text
        assert_problem(await other.post(f"{path}/seal"), 403, "forbidden")
        assert (await opener.post(f"{path}/seal")).status_code == 202

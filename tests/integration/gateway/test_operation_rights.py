"""The scopes that operations require are checked by every interface, for every credential."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from contracts.scopes import FOR_MEMBERS, Scope
from gateway.batches import open_uploads
from support.credentials import Keys, new_key
from support.gateway_stack import RunningGateway
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


async def as_open_upload(
    client: httpx.AsyncClient, operation: str, headers: dict[str, str]
) -> httpx.Response:
    body = {"operation": operation}
    return await client.post("/v1/batches", params={"open": "true"}, json=body, headers=headers)


async def as_follow_up(client: httpx.AsyncClient, operation: str, headers: dict[str, str]) -> httpx.Response:
    body = {"operation": "free", "payload": 1, "on_finished": {"operation": operation, "payload": 1}}
    return await client.post("/v1/tasks", json=body, headers=headers)


WAYS: Mapping[str, Ask] = {
    "batch": as_batch,
    "upload": as_upload,
    "open upload": as_open_upload,
    "task": as_task,
    "follow-up": as_follow_up,
}


@pytest.fixture(scope="module")
async def listener(guarded_listener: RunningGateway) -> AsyncIterator[RunningGateway]:
    """Yield the gateway, to which these operations were announced."""
    for name, scopes in OPERATIONS.items():
        await guarded_listener.database.execute(
            "INSERT INTO operations (name, description, item_schema, required_scopes)"
            " VALUES ($1, 'For the tests.', '{}', $2)",
            name,
            sorted(map(str, scopes)),
        )
    await guarded_listener.api.get("/v1/operations")
    with pytest.MonkeyPatch.context() as patch:
        # One owner opens an upload with each of its keys for many operations.
        patch.setattr(open_uploads, "MOST_OPEN_OF_OWNER", 10_000)
        yield guarded_listener
    await guarded_listener.database.execute("DELETE FROM operations")
    await guarded_listener.api.get("/v1/operations")


@pytest.fixture(scope="module")
async def client(listener: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=listener.url, timeout=30) as client:
        yield client


@dataclass(frozen=True)
class Credential:
    """A key, its effective rights, and the operations that it is tried with."""

    key: str
    rights: frozenset[Scope]
    operations: Collection[str] = tuple(OPERATIONS)


@pytest.fixture(scope="module")
async def known(listener: RunningGateway, keys: Keys) -> Mapping[str, Credential]:
    """Return the credentials by name; those of one scope only with operations that it decides about."""
    every = frozenset(Scope) - {Scope.ADMIN}
    found = {
        "member with everything": Credential(keys.of_member_with_everything, FOR_MEMBERS),
        "member with admin alone": Credential(keys.of_member_with_admin_alone, frozenset()),
        "administrator": Credential(listener.admin_key, frozenset(Scope)),
        "admin alone": Credential(keys.admin_alone, frozenset(Scope)),
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
    client: httpx.AsyncClient, ask: Ask, key: str | None, operations: Collection[str] = OPERATIONS
) -> dict[str, int]:
    """Return the status of the answer for each of `operations`."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    # An owner may have only so many uploads at a time.
    turns = asyncio.Semaphore(8)

    async def status(operation: str) -> int:
        async with turns:
            return (await ask(client, operation, headers)).status_code

    answers = await asyncio.gather(*(status(operation) for operation in operations))
    return dict(zip(operations, answers, strict=True))


@pytest.mark.parametrize("way", WAYS)
async def test_an_operation_is_accepted_from_those_who_have_its_scopes(
    client: httpx.AsyncClient, known: Mapping[str, Credential], way: str
) -> None:
    wrong: list[Any] = []
    for name, tried in known.items():
        for operation, status in (await statuses(client, WAYS[way], tried.key, tried.operations)).items():
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
            assert await statuses(client, WAYS[way], key, [operation]) == {operation: 401}, name


async def test_a_refusal_names_the_scopes_that_are_missing(
    listener: RunningGateway, client: httpx.AsyncClient
) -> None:
    key = (await new_key(listener, "batches:write", "quotes:read"))["key"]
    answer = await as_task(client, "both", {"authorization": f"Bearer {key}"})
    assert answer.status_code == 403
    assert 'scope="emails:send"' in answer.headers["www-authenticate"]


@pytest.fixture(scope="module")
async def uploads(listener: RunningGateway) -> Mapping[str, str]:
    """Return the path of an open upload of the administrator for each operation."""
    found = {}
    for operation in OPERATIONS:
        opened = await as_open_upload(listener.api, operation, {})
        assert opened.status_code == 202, opened.text
        found[operation] = f"/v1/batches/{opened.json()['id']}"
    return found


@pytest.mark.parametrize("part", ["lines", "seal"])
async def test_lines_and_the_seal_of_an_upload_need_the_scopes_of_its_operation(
    client: httpx.AsyncClient, known: Mapping[str, Credential], uploads: Mapping[str, str], part: str
) -> None:
    async def send(client: httpx.AsyncClient, operation: str, headers: dict[str, str]) -> httpx.Response:
        if part == "seal":
            return await client.post(f"{uploads[operation]}/seal", headers=headers)
        given = {**headers, "content-type": "application/x-ndjson"}
        query = {"offset": 0}
        return await client.put(
            f"{uploads[operation]}/items", params=query, content=b'{"payload":1}\n', headers=given
        )

    wrong: list[Any] = []
    for name, tried in known.items():
        for operation, status in (await statuses(client, send, tried.key, tried.operations)).items():
            is_allowed = Scope.BATCHES_WRITE in tried.rights and OPERATIONS[operation] <= tried.rights
            # The first that is let in adds the lines or the seal; the others come too late.
            expected = (200, 202, 409) if is_allowed else (403,)
            if name == "member with everything":
                # The upload is another owner's.
                expected = (404,)
            if status not in expected:
                wrong.append((name, operation, status))
    assert wrong == []


async def test_a_follow_up_needs_the_scopes_of_its_operation_in_whatever_it_follows(
    listener: RunningGateway,
) -> None:
    key = await listener.new_key("batches:write", "schedules:write")
    following = {"operation": operation_of(Scope.EMAILS_SEND), "payload": 1}
    task = {"operation": "free", "payload": 1, "on_finished": following}
    schedule = {"name": "follow", "cron": "0 0 1 1 *", "template": task}
    upload = {"operation": "free", "on_finished": orjson.dumps(following).decode()}
    lines, ndjson = b'{"payload":1}\n', {"content-type": "application/x-ndjson"}
    async with listener.client(key) as weak:
        answers = [
            await weak.post(
                "/v1/batches", json={"operation": "free", "items": [1], "on_finished": following}
            ),
            await weak.post("/v1/batches?open=true", json={"operation": "free", "on_finished": following}),
            await weak.post("/v1/batches", params=upload, content=lines, headers=ndjson),
            await weak.post("/v1/schedules", json=schedule),
        ]
    for answer in answers:
        assert_problem(answer, 403, "forbidden")
        assert 'scope="emails:send"' in answer.headers["www-authenticate"]

"""Every declared route to an object: no other owner finds it, and its owner changes the version it read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

import httpx
import pytest

from contracts.scopes import FOR_MEMBERS
from gateway.http.endpoints import Endpoint, Precondition
from native.stack import Stack
from support import declared_gateway
from support.waiting import until

# Names of what is everybody's, or the administrators' alone: `test_rights.py` tries those.
SHARED = {"symbol", "service", "number"}
# Where the same word names something else: an operation that administrators pause.
OF_ADMINISTRATORS = "/v1/admin/"
NAMED = [
    endpoint
    for endpoint in declared_gateway.create().server.endpoints
    if not endpoint.is_public
    and endpoint.path_parameters.keys() - SHARED
    and not endpoint.path.startswith(OF_ADMINISTRATORS)
]


@pytest.fixture(scope="module")
async def owned(api: httpx.AsyncClient) -> Mapping[str, str]:
    """Return, by the name of the part of a path, something of each kind that the administrator owns."""
    me, word = (await api.get("/v1/me")).json(), f"own-{uuid4().hex[:8]}"

    async def make(path: str, body: Any = None, **more: Any) -> str:
        answer = await api.post(path, json=body, **more)
        assert answer.is_success, answer.text
        return str(answer.json().get("id"))

    # Private and known by their names.
    await make("/v1/rooms", {"name": word, "private": True})
    await make("/v1/templates", {"name": word, "subject": "Hello", "text": "Hello"})
    suppression = {"address": f"{word}@example.com"}
    webhook = await make("/v1/webhooks", {"url": "https://example.com/", "events": ["email.failed"]})
    return {
        "room": word,
        "name": word,
        "user_id": str(me["user"]["id"]),
        "key_id": me["key"]["id"],
        "alert_id": await make("/v1/alerts", {"symbol": "AAPL", "condition": {"above": 9999}}),
        "email_id": await make("/v1/emails", {"to": "a@example.com", "subject": "x", "text": "x"}),
        "upload_id": await make(
            "/v1/uploads", content=b"file", headers={"content-type": "application/octet-stream"}
        ),
        "domain_id": await make("/v1/domains", {"name": f"{word}.example"}),
        "webhook_id": webhook,
        "delivery_id": await make(f"/v1/webhooks/{webhook}/test"),
        "suppression_id": await make("/v1/suppressions", suppression),
        "batch_id": await make("/v1/batches", {"operation": "echo"}, params={"open": "true"}),
        "task_id": await make("/v1/tasks", {"operation": "echo", "payload": 1, "delay_s": 3600}),
        "schedule_id": await make(
            "/v1/schedules", {"name": word, "cron": "0 0 1 1 *", "template": {"operation": "echo"}}
        ),
    }


@pytest.fixture(scope="module")
async def other(stack: Stack, api: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a member with every scope that members may have."""
    person = {"name": "Other", "email": f"{uuid4().hex}@example.com"}
    user = (await api.post("/v1/users", json=person)).json()
    wanted = {"name": "other", "scopes": sorted(FOR_MEMBERS), "user_id": user["id"]}
    key = (await api.post("/v1/api-keys", json=wanted)).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=20) as client:
        yield client


def path_of(endpoint: Endpoint, owned: Mapping[str, str]) -> str:
    return endpoint.template.format(**{part: owned[part] for part in endpoint.path_parameters})


async def status_of(
    client: httpx.AsyncClient, endpoint: Endpoint, owned: Mapping[str, str], *, if_match: str = "*"
) -> int:
    """Return the status of a request that is right but for its caller; a stream is not read."""
    request: dict[str, Any] = {}
    if endpoint.precondition is not Precondition.NONE:
        request["headers"] = {"if-match": if_match}
    bodies = [body for name, body in endpoint.examples.items() if name not in endpoint.path_parameters]
    if bodies:
        request["json"] = bodies[0]
    elif endpoint.upload is not None:
        request |= {"content": b'{"payload":1}\n', "params": {"offset": "0"}}
        request["headers"] = {"content-type": endpoint.upload}
    async with client.stream(endpoint.method, path_of(endpoint, owned), **request) as answer:
        return answer.status_code


@pytest.mark.parametrize("endpoint", NAMED, ids=lambda endpoint: endpoint.name)
async def test_nothing_of_another_owner_is_found(
    other: httpx.AsyncClient, owned: Mapping[str, str], endpoint: Endpoint
) -> None:
    is_for_members = endpoint.scope is None or endpoint.scope in FOR_MEMBERS
    assert await status_of(other, endpoint, owned) == (404 if is_for_members else 403)


async def test_the_owner_finds_all_of_it(api: httpx.AsyncClient, owned: Mapping[str, str]) -> None:
    read = [endpoint for endpoint in NAMED if endpoint.method == "GET"]
    statuses = {endpoint.name: await status_of(api, endpoint, owned) for endpoint in read}
    assert [name for name, status in statuses.items() if status in (401, 403, 404)] == []


COMPARED = [endpoint for endpoint in NAMED if endpoint.precondition is not Precondition.NONE]
TAGGED = [endpoint for endpoint in NAMED if endpoint.method == "GET" and endpoint.is_tagged]


@pytest.mark.parametrize("endpoint", COMPARED, ids=lambda endpoint: endpoint.name)
async def test_a_change_of_another_version_than_the_present_one_is_refused(
    api: httpx.AsyncClient, owned: Mapping[str, str], endpoint: Endpoint
) -> None:
    async def is_refused() -> bool:
        # What was accepted a moment ago is 404 or 409 until its service has it.
        return await status_of(api, endpoint, owned, if_match='"another"') == 412

    await until(is_refused)


@pytest.mark.parametrize("endpoint", TAGGED, ids=lambda endpoint: endpoint.name)
async def test_unchanged_values_are_not_sent_again(
    api: httpx.AsyncClient, owned: Mapping[str, str], endpoint: Endpoint
) -> None:
    path = path_of(endpoint, owned)

    async def is_known() -> bool:
        # It may change between the two: a mail leaves, a key is used.
        etag = (await api.get(path)).headers.get("etag", "")
        answer = await api.get(path, headers={"if-none-match": etag})
        return answer.status_code == 304 and not answer.content and answer.headers["etag"] == etag

    await until(is_known)

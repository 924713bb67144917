"""Every declared change of users, keys, parked messages and of what administrators set is audited."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from contracts.scopes import Scope
from gateway.http.endpoints import Endpoint, Precondition
from support import declared_gateway

SCOPES = (Scope.USERS_WRITE, Scope.KEYS_WRITE, Scope.ADMIN)
# Each returns a signed text of minutes and stores nothing; the key that a login becomes is audited.
SIGNED = {"createRealtimeToken", "createLogin"}
CHANGES = [
    endpoint
    for endpoint in declared_gateway.create().server.endpoints
    if endpoint.method != "GET"
    and not endpoint.is_public
    and (endpoint.scope is None or endpoint.scope in SCOPES)
    and endpoint.name not in SIGNED
]


async def parts(api: httpx.AsyncClient, endpoint: Endpoint) -> dict[str, Any]:
    """Return the parts of the path of `endpoint`, of a user and a key that nothing else needs."""
    found: dict[str, Any] = {"name": "echo"}
    if "user_id" in endpoint.path_parameters:
        person = {"name": "Audited", "email": f"{uuid4().hex}@example.com"}
        found["user_id"] = (await api.post("/v1/users", json=person)).json()["id"]
    if "key_id" in endpoint.path_parameters:
        wanted = {"name": "audited", "scopes": ["quotes:read"]}
        found["key_id"] = (await api.post("/v1/api-keys", json=wanted)).json()["id"]
    return {name: found[name] for name in endpoint.path_parameters}


@pytest.mark.usefixtures("resumed")
@pytest.mark.parametrize("endpoint", CHANGES, ids=lambda endpoint: endpoint.name)
async def test_a_change_is_recorded_with_its_author_and_its_request(
    api: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    path = endpoint.template.format(**await parts(api, endpoint))
    request_id = uuid4().hex
    headers = {"x-request-id": request_id}
    if endpoint.precondition is Precondition.REQUIRED:
        headers["if-match"] = "*"
    examples = {name: one for name, one in endpoint.examples.items() if name not in endpoint.path_parameters}
    request: dict[str, Any] = {"json": {**next(iter(examples.values()))}} if endpoint.takes_body else {}
    if endpoint.query is not None:
        request["params"] = examples
    if endpoint.name == "createUser":
        request["json"]["email"] = f"{uuid4().hex}@example.com"

    answer = await api.request(endpoint.method, path, headers=headers, **request)

    assert answer.is_success, answer.text
    me = (await api.get("/v1/me")).json()
    newest = (await api.get("/v1/admin/audit", params={"key_id": me["key"]["id"], "limit": 5})).json()["data"]
    (entry,) = (one for one in newest if one["request_id"] == request_id)
    assert entry["actor"]["user_id"] == me["user"]["id"]
    assert entry["before"] or entry["after"] or endpoint.method == "DELETE"

"""Who may use which route: every declared endpoint against every kind of credential."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from contracts.scopes import FOR_MEMBERS, Scope
from gateway.app import endpoints
from gateway.http.endpoints import Endpoint
from support.doubles import issuer as issuers
from support.doubles.issuer import Issuer
from support.gateway_stack import House, Listener

# Refused at authentication; any other status means that the caller was let in.
REFUSED = (401, 403)
# Each looks at who calls: what is the caller's own needs no scope, anything else does inside.
OWN = {
    "createRealtimeToken",
    "getApiKey",
    "getMe",
    "getOverview",
    "getUser",
    "getUserShort",
    "revokeApiKey",
    "rotateApiKey",
}
# As the issuer of access tokens knows the first administrator.
ADMINISTRATOR: Mapping[str, Any] = {"email": "admin@localhost", "email_verified": True}
PARTS = {"symbol": "AAPL", "room": "lobby", "service": "email", "number": "1", "user_id": "1"}


@dataclass(frozen=True)
class Keys:
    """Keys of an administrator by the scope that they have alone, and by the one that they lack."""

    alone: Mapping[Scope, str]
    without: Mapping[Scope, str]
    useless: Mapping[str, str | None]
    of_member_with_everything: str


def declared(door: Listener) -> Iterator[Endpoint]:
    yield from endpoints(door.gateway.resources)


def scoped(door: Listener) -> Iterator[Endpoint]:
    return (endpoint for endpoint in declared(door) if endpoint.scope is not None)


def address(endpoint: Endpoint) -> str:
    parts = {name: PARTS.get(name, str(uuid4())) for name in endpoint.path_parameters}
    return endpoint.template.format(**parts)


async def status_of(client: httpx.AsyncClient, endpoint: Endpoint, key: str | None) -> int:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with client.stream(endpoint.method, address(endpoint), headers=headers) as answer:
        return answer.status_code


async def new_key(door: Listener, *scopes: str, user_id: int = 1, **more: object) -> dict[str, str]:
    body = {"name": "matrix", "scopes": list(scopes), "user_id": user_id, **more}
    answer = await door.api.post("/v1/api-keys", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()
    return found


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    async with issuers.serving() as serving:
        yield serving


@pytest.fixture(scope="module")
async def door(module_house: House, issuer: Issuer) -> Listener:
    return await module_house.open(oidc_issuer=issuer.url, oidc_audience=issuers.AUDIENCE)


@pytest.fixture(scope="module")
async def keys(door: Listener, issuer: Issuer) -> Keys:
    every = [str(scope) for scope in Scope if scope is not Scope.ADMIN]
    alone: dict[Scope, str] = {
        scope: (await new_key(door, scope))["key"] for scope in Scope if scope is not Scope.ADMIN
    }
    without: dict[Scope, str] = {
        scope: (await new_key(door, *(other for other in every if other != scope)))["key"] for scope in alone
    }
    revoked = await new_key(door, *every)
    assert (await door.api.delete(f"/v1/api-keys/{revoked['id']}")).status_code == 204
    parent = await new_key(door, *every)
    async with httpx.AsyncClient(
        base_url=str(door.api.base_url), headers={"authorization": f"Bearer {parent['key']}"}
    ) as child_of:
        made = await child_of.post("/v1/api-keys", json={"name": "child", "scopes": ["quotes:read"]})
        assert made.status_code == 201, made.text
    assert (await door.api.delete(f"/v1/api-keys/{parent['id']}")).status_code == 204
    expired = await new_key(door, *every, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    await door.database.execute(
        "UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1", expired["id"]
    )
    member = await door.new_user()
    of_member = await new_key(door, *sorted(FOR_MEMBERS), user_id=member)
    await door.database.execute(
        "UPDATE api_keys SET scopes = $2 WHERE id = $1", of_member["id"], [str(scope) for scope in Scope]
    )
    useless = {
        "none": None,
        "malformed": "tw_live_nonsense",
        "unknown": "tw_live_0123456789abcdef_" + "a" * 43,
        "revoked": revoked["key"],
        "expired": expired["key"],
        "parent revoked": made.json()["key"],
        "token expired": issuer.token(scope="admin", lasts_s=-60, **ADMINISTRATOR),
        "token for others": issuer.token(scope="admin", aud="https://other.example.com", **ADMINISTRATOR),
    }
    return Keys(alone, without, useless, of_member["key"])


@pytest.fixture(scope="module")
async def client(door: Listener) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=str(door.api.base_url), timeout=20) as client:
        yield client


async def test_no_route_but_the_public_ones_is_open_to_a_credential_that_is_not_good(
    door: Listener, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    for endpoint in declared(door):
        for name, key in keys.useless.items():
            status = await status_of(client, endpoint, key)
            if (status == 401) is endpoint.is_public:
                wrong.append((endpoint.name, name, status))
    assert wrong == []


async def test_each_scope_opens_just_the_routes_that_declare_it(
    door: Listener, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    for endpoint in scoped(door):
        for scope, key in keys.alone.items():
            is_let_in = await status_of(client, endpoint, key) not in REFUSED
            if is_let_in is not (endpoint.scope is scope):
                wrong.append((endpoint.name, scope))
    assert wrong == []


async def test_all_scopes_but_the_declared_one_do_not_open_a_route(
    door: Listener, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    for endpoint in scoped(door):
        for scope, key in keys.without.items():
            is_let_in = await status_of(client, endpoint, key) not in REFUSED
            if is_let_in is (endpoint.scope in (scope, Scope.ADMIN)):
                wrong.append((endpoint.name, scope))
    assert wrong == []


async def test_access_tokens_open_the_routes_that_keys_of_their_scopes_open(
    door: Listener, client: httpx.AsyncClient, issuer: Issuer
) -> None:
    wrong = []
    for endpoint in scoped(door):
        others = (other for other in Scope if other not in (endpoint.scope, Scope.ADMIN))
        for scopes, expected in (([endpoint.scope], True), (others, False)):
            token = issuer.token(scope=" ".join(map(str, scopes)), **ADMINISTRATOR)
            if (await status_of(client, endpoint, token) not in REFUSED) is not expected:
                wrong.append((endpoint.name, expected))
    assert wrong == []


async def test_a_member_with_every_scope_has_no_right_of_administrators(
    door: Listener, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    for endpoint in scoped(door):
        is_let_in = await status_of(client, endpoint, keys.of_member_with_everything) not in REFUSED
        if is_let_in is not (endpoint.scope in FOR_MEMBERS):
            wrong.append((endpoint.name, endpoint.scope))
    assert wrong == []


def test_a_route_without_a_scope_is_about_the_caller_alone(door: Listener) -> None:
    own = {endpoint.name for endpoint in declared(door) if endpoint.scope is None and not endpoint.is_public}
    assert own == OWN

"""Who may use which route: every declared endpoint against every kind of credential."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest

from contracts.scopes import FOR_MEMBERS, Scope
from gateway.app import endpoints
from gateway.http.endpoints import Endpoint
from support.credentials import ADMINISTRATOR, Keys
from support.doubles.issuer import Issuer
from support.gateway_stack import RunningGateway

# Refused at authentication; any other status means that the caller was let in.
REFUSED = (401, 403)
# Each looks at who calls: what is the caller's own needs no scope, anything else does inside.
OWN = {
    "createRealtimeToken",
    "getApiKey",
    "getMe",
    "getUsage",
    "getOverview",
    "getUser",
    "getUserShort",
    "revokeApiKey",
    "rotateApiKey",
}
PARTS = {"symbol": "AAPL", "room": "lobby", "service": "email", "number": "1", "user_id": "1"}


def declared(listener: RunningGateway) -> Iterator[Endpoint]:
    yield from endpoints(listener.gateway.resources)


def scoped(listener: RunningGateway) -> Iterator[Endpoint]:
    return (endpoint for endpoint in declared(listener) if endpoint.scope is not None)


def address(endpoint: Endpoint) -> str:
    parts = {name: PARTS.get(name, str(uuid4())) for name in endpoint.path_parameters}
    return endpoint.template.format(**parts)


async def status_of(client: httpx.AsyncClient, endpoint: Endpoint, key: str | None) -> int:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with client.stream(endpoint.method, address(endpoint), headers=headers) as answer:
        return answer.status_code


@pytest.fixture(scope="module")
def listener(guarded_listener: RunningGateway) -> RunningGateway:
    return guarded_listener


@pytest.fixture(scope="module")
async def client(listener: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=str(listener.api.base_url), timeout=20) as client:
        yield client


async def test_no_route_but_the_public_ones_is_open_to_a_credential_that_is_not_good(
    listener: RunningGateway, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    # One key after the other: each counts as a failure of this address every few seconds, when the gateway
    # looks for it again, and from an address with many failures it takes no key any more.
    for name, key in keys.useless.items():
        for endpoint in declared(listener):
            status = await status_of(client, endpoint, key)
            if (status == 401) is endpoint.is_public:
                wrong.append((endpoint.name, name, status))
    assert wrong == []


async def test_a_route_is_open_to_its_scope_alone_and_closed_to_all_others_together(
    listener: RunningGateway, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    for endpoint in scoped(listener):
        # Of `admin`, which none of these keys has, two that lack different scopes have all others together.
        lacking = [key for scope, key in keys.without.items() if scope is endpoint.scope]
        closed = lacking or [*keys.without.values()][:2]
        opening = [key for scope, key in keys.alone.items() if scope is endpoint.scope]
        for key, expected in (*((key, True) for key in opening), *((key, False) for key in closed)):
            if (await status_of(client, endpoint, key) not in REFUSED) is not expected:
                wrong.append((endpoint.name, expected))
    assert wrong == []


# The two matrices also try every other scope by itself: thousands of requests, where the test before has two.
@pytest.mark.long
async def test_each_scope_opens_just_the_routes_that_declare_it(
    listener: RunningGateway, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    for endpoint in scoped(listener):
        for scope, key in keys.alone.items():
            is_let_in = await status_of(client, endpoint, key) not in REFUSED
            if is_let_in is not (endpoint.scope is scope):
                wrong.append((endpoint.name, scope))
    assert wrong == []


@pytest.mark.long
async def test_all_scopes_but_the_declared_one_do_not_open_a_route(
    listener: RunningGateway, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    for endpoint in scoped(listener):
        for scope, key in keys.without.items():
            is_let_in = await status_of(client, endpoint, key) not in REFUSED
            if is_let_in is (endpoint.scope in (scope, Scope.ADMIN)):
                wrong.append((endpoint.name, scope))
    assert wrong == []


async def test_access_tokens_open_the_routes_that_keys_of_their_scopes_open(
    listener: RunningGateway, client: httpx.AsyncClient, issuer: Issuer
) -> None:
    wrong = []
    for endpoint in scoped(listener):
        others = (other for other in Scope if other not in (endpoint.scope, Scope.ADMIN))
        for scopes, expected in (([endpoint.scope], True), (others, False)):
            token = issuer.token(scope=" ".join(map(str, scopes)), **ADMINISTRATOR)
            if (await status_of(client, endpoint, token) not in REFUSED) is not expected:
                wrong.append((endpoint.name, expected))
    assert wrong == []


async def test_a_member_with_every_scope_has_no_right_of_administrators(
    listener: RunningGateway, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    for endpoint in scoped(listener):
        is_let_in = await status_of(client, endpoint, keys.of_member_with_everything) not in REFUSED
        if is_let_in is not (endpoint.scope in FOR_MEMBERS):
            wrong.append((endpoint.name, endpoint.scope))
    assert wrong == []


async def test_admin_alone_opens_every_route_for_an_administrator_and_none_for_a_member(
    listener: RunningGateway, client: httpx.AsyncClient, keys: Keys
) -> None:
    wrong = []
    for endpoint in scoped(listener):
        for key, expected in ((keys.admin_alone, True), (keys.of_member_with_admin_alone, False)):
            status = await status_of(client, endpoint, key)
            if (status not in REFUSED) is not expected or (not expected and status != 403):
                wrong.append((endpoint.name, expected, status))
    assert wrong == []


def test_a_route_without_a_scope_is_about_the_caller_alone(listener: RunningGateway) -> None:
    own = {
        endpoint.name for endpoint in declared(listener) if endpoint.scope is None and not endpoint.is_public
    }
    assert own == OWN

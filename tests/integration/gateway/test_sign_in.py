"""Signing in with access tokens of an issuer: the user, its rights, and their expiry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from chassis.deadlines import Deadline
from contracts.schedules import CreateSchedule, Schedule
from gateway.realtime.codes import CloseCode
from support.doubles import issuer as issuers
from support.doubles.issuer import AUDIENCE, Issuer, public_jwk, rsa_key
from support.gateway_stack import Connect, House, RunningGateway, Talk
from support.problems import assert_problem


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    async with issuers.serving() as serving:
        yield serving


@pytest.fixture(scope="module")
async def listener(module_house: House, issuer: Issuer) -> RunningGateway:
    """Return a gateway that knows users by their verified addresses."""
    rules = "scope[*]=*;groups[ops]=admin"
    return await module_house.open(
        oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_scope_rules=rules, connections_per_address=100
    )


@pytest.fixture(scope="module")
async def welcoming(module_house: House, issuer: Issuer) -> RunningGateway:
    """Return a gateway that makes users of whom the issuer knows."""
    return await module_house.open(oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_users="create")


async def person(listener: RunningGateway, name: str, **more: str) -> dict[str, Any]:
    """Return a user, as the issuer knows it: claims of a verified address."""
    email = f"{name}@example.com"
    made = await listener.api.post("/v1/users", json={"name": name, "email": email, **more})
    return {"id": made.json()["id"], "claims": {"email": email, "email_verified": True}}


@asynccontextmanager
async def talking(listener: RunningGateway, connect: Connect, token: str) -> AsyncIterator[Talk]:
    async with connect(listener, "/v1/realtime", headers={"authorization": f"Bearer {token}"}) as socket:
        client = Talk(socket)
        client.connected = await client.ask(connect={})
        yield client


async def end_of(client: Talk) -> int:
    """Return the code that the gateway closes the connection with."""
    with suppress(ConnectionClosed):
        async for _ in client.socket:
            continue
    assert client.socket.close_code is not None
    return client.socket.close_code


async def me(listener: RunningGateway, token: str) -> httpx.Response:
    async with listener.client(token) as client:
        return await client.get("/v1/me")


async def trail(listener: RunningGateway, user_id: int) -> list[dict[str, Any]]:
    answer = await listener.api.get("/v1/admin/audit", params={"target": f"user:{user_id}"})
    return list(answer.json()["data"])


async def test_a_user_signs_in_by_a_verified_address_and_is_known_by_the_subject_from_then_on(
    listener: RunningGateway, issuer: Issuer
) -> None:
    ann = await person(listener, "ann")
    first = (await me(listener, issuer.token("sub-ann", scope="quotes:read", **ann["claims"]))).json()
    assert first["user"] == {"id": ann["id"], "name": "ann", "role": "member"}
    assert first["key"]["effective_scopes"] == ["quotes:read"]
    assert first["key"]["id"].startswith("jwt:")
    again = (await me(listener, issuer.token("sub-ann", scope="chat:read"))).json()
    assert (again["user"]["id"], again["key"]["scopes"]) == (ann["id"], ["chat:read"])
    linked = (await trail(listener, ann["id"]))[0]
    assert (linked["action"], linked["after"]) == (
        "user.linked",
        {"issuer": issuer.url, "subject": "sub-ann"},
    )
    assert linked["actor"]["user_id"] == ann["id"]


async def test_a_schedule_keeps_what_its_token_granted_and_one_of_a_key_nothing(
    listener: RunningGateway, issuer: Issuer, module_house: House
) -> None:
    asked: list[CreateSchedule] = []

    async def create(request: CreateSchedule, _: Deadline) -> Schedule:
        asked.append(request)
        now = datetime.now(UTC)
        reported = request.model_dump(include=set(Schedule.model_fields))
        return Schedule(
            **reported, id=request.schedule_id, status="active", revision=1, created_at=now, changed_at=now
        )

    await module_house.double("batch-processor", {CreateSchedule: create})
    kai = await person(listener, "kai")
    body = {"name": "n", "cron": "0 * * * *", "template": {"operation": "echo", "payload": 1}}
    token = issuer.token("sub-kai", scope="schedules:write batches:write", **kai["claims"])
    async with listener.client(token) as client:
        assert (await client.post("/v1/schedules", json=body)).status_code == 201
    assert (await listener.api.post("/v1/schedules", json=body)).status_code == 201
    assert [request.scopes for request in asked] == [["batches:write", "schedules:write"], None]


async def test_a_subject_without_a_user_is_refused(listener: RunningGateway, issuer: Issuer) -> None:
    await person(listener, "bea")
    for claims in ({}, {"email": "bea@example.com"}, {"email": "nobody@example.com", "email_verified": True}):
        answer = await me(listener, issuer.token("sub-stranger", **claims))
        assert_problem(answer, 401, "unauthenticated")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_a_subject_becomes_a_member_where_users_are_made(
    welcoming: RunningGateway, issuer: Issuer
) -> None:
    made = (await me(welcoming, issuer.token("new", name="New", scope="admin quotes:read"))).json()
    assert (made["user"]["name"], made["user"]["role"]) == ("New", "member")
    assert made["key"]["effective_scopes"] == ["quotes:read"], "a member does not administer"
    again = (await me(welcoming, issuer.token("new"))).json()
    assert again["user"]["id"] == made["user"]["id"]
    user = (await welcoming.api.get(f"/v1/users/{made['user']['id']}")).json()
    assert user["email"].endswith("@signed-in.invalid")
    assert [entry["action"] for entry in await trail(welcoming, user["id"])] == ["user.created"]


async def test_requests_that_come_together_make_one_user(welcoming: RunningGateway, issuer: Issuer) -> None:
    tokens = [issuer.token("crowd", jti=str(n)) for n in range(10)]
    answers = await asyncio.gather(*(me(welcoming, token) for token in tokens))
    assert len({answer.json()["user"]["id"] for answer in answers}) == 1


async def test_rights_are_those_that_the_role_allows_now(listener: RunningGateway, issuer: Issuer) -> None:
    chief = await person(listener, "chief", role="admin")
    token = issuer.token("sub-chief", groups=["ops"], **chief["claims"])
    async with listener.client(token) as client:
        assert (await client.get("/v1/admin/audit")).status_code == 200
        await listener.change_user(chief["id"], role="member")
        refused = await client.get("/v1/admin/audit")
        assert_problem(refused, 403, "forbidden")
        challenge = refused.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert 'scope="admin"' in challenge
        await listener.change_user(chief["id"], status="disabled")
        assert_problem(await client.get("/v1/me"), 401, "unauthenticated")


async def test_a_token_makes_no_keys_and_no_other_tokens(listener: RunningGateway, issuer: Issuer) -> None:
    dora = await person(listener, "dora")
    token = issuer.token("sub-dora", scope="keys:write quotes:read", **dora["claims"])
    async with listener.client(token) as client:
        key = {"name": "mine", "scopes": ["quotes:read"]}
        assert_problem(await client.post("/v1/api-keys", json=key), 403, "forbidden")
        assert_problem(await client.post("/v1/realtime/tokens", json={}), 403, "forbidden")


async def test_a_socket_ends_with_its_token(
    listener: RunningGateway, issuer: Issuer, connect: Connect
) -> None:
    emma = await person(listener, "emma")
    token = issuer.token("sub-emma", scope="chat:read", lasts_s=5, **emma["claims"])
    async with talking(listener, connect, token) as client:
        assert await end_of(client) == CloseCode.EXPIRED
    assert_problem(await me(listener, token), 401, "unauthenticated")


async def test_a_user_who_is_disabled_loses_the_socket(
    listener: RunningGateway, issuer: Issuer, connect: Connect
) -> None:
    finn = await person(listener, "finn")
    token = issuer.token("sub-finn", scope="chat:read", **finn["claims"])
    async with talking(listener, connect, token) as client:
        await listener.gateway.resources.connections.check_keys()
        await client.ask(presence_stats={"channel": "chat:lobby"})
        await listener.change_user(finn["id"], status="disabled")
        await listener.gateway.resources.connections.check_keys()
        assert await end_of(client) == CloseCode.INVALID_TOKEN


async def test_a_stream_takes_the_token_as_a_parameter(listener: RunningGateway, issuer: Issuer) -> None:
    gina = await person(listener, "gina")
    token = issuer.token("sub-gina", scope="chat:read", **gina["claims"])
    async with httpx.AsyncClient(base_url=listener.url) as browser:
        answer = await browser.get(f"/v1/stocks/stream?symbols=AAPL&token={token}")
    assert_problem(answer, 403, "forbidden")


async def test_work_is_accepted_with_the_rights_of_the_token(
    listener: RunningGateway, issuer: Issuer
) -> None:
    hugo = await person(listener, "hugo")
    mail = {"to": ["a@example.com"], "subject": "s", "text": "t"}
    token = issuer.token("sub-hugo", scope="emails:send", **hugo["claims"])
    async with listener.client(token) as client:
        made = await client.post("/v1/emails", json=mail, headers={"idempotency-key": "by-token"})
        # The caller is the user: another of its tokens repeats the request.
    async with listener.client(issuer.token("sub-hugo", scope="emails:send", jti="2")) as client:
        again = await client.post("/v1/emails", json=mail, headers={"idempotency-key": "by-token"})
    assert (made.status_code, again.json()["id"]) == (202, made.json()["id"])


async def test_keys_of_the_issuer_may_change(house: House) -> None:
    async with issuers.serving() as issuer:
        listener = await house.open(oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_users="create")
        issuer.keys = [public_jwk(rsa_key("two"), kid="two")]
        token = issuer.token("x", key=rsa_key("two"), kid="two")
        assert (await me(listener, token)).status_code == 200
        assert_problem(await me(listener, issuer.token("x")), 401, "unauthenticated")


async def test_while_the_issuer_is_away_tokens_wait_and_keys_work(house: House) -> None:
    async with issuers.serving() as issuer:
        issuer.status = 500
        listener = await house.open(oidc_issuer=issuer.url, oidc_audience=AUDIENCE)
        answer = await me(listener, issuer.token())
        assert_problem(answer, 503, "service-unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert (await me(listener, listener.admin_key)).status_code == 200


async def test_many_wrong_signatures_from_one_address_are_limited_and_expired_tokens_are_not(
    house: House, issuer: Issuer
) -> None:
    listener = await house.open(oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_users="create")
    assert (await me(listener, listener.admin_key)).status_code == 200
    late = issuer.token("late", lasts_s=-60)
    assert {(await me(listener, late)).status_code for _ in range(30)} == {401}
    forged = [issuer.token("x", key=rsa_key("two"), jti=str(n)) for n in range(60)]
    answers = await asyncio.gather(*(me(listener, token) for token in forged))
    assert {answer.status_code for answer in answers} == {401, 429}
    # What was good lately goes on.
    assert (await me(listener, listener.admin_key)).status_code == 200


async def test_without_an_issuer_a_token_is_no_credential(house: House, issuer: Issuer) -> None:
    listener = await house.open()
    assert_problem(await me(listener, issuer.token(exp=int(time.time()) + 60)), 401, "unauthenticated")

"""No call holds a database connection while another service is asked: a slow service slows no other call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from chassis.broker.answering import Answer
from chassis.deadlines import Deadline
from chassis.errors import Unavailable
from contracts import (
    alerts,
    batches,
    domains,
    emails,
    parked,
    pauses,
    schedules,
    stocks,
    suppressions,
    templates,
)
from contracts.message import Request
from contracts.topology import BATCH_PROCESSOR, EMAIL, STOCK_DATA
from gateway.app import endpoints
from gateway.http.endpoints import Endpoint, Idempotency, Precondition
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

SCHEDULE = {"name": "hourly", "cron": "0 * * * *", "template": {"operation": "unknown", "payload": 1}}
TEMPLATE = {"name": "welcome", "subject": "Hello", "html": "<p>Hello</p>"}
BOUNCE = {
    "params": {"recipient": "b+1@bounces.example.com"},
    "content": b"Subject: Returned\r\n\r\nNo such user.\r\n",
    "headers": {"content-type": "message/rfc822"},
}
# Of routes whose examples are not enough.
GIVEN: dict[str, dict[str, Any]] = {
    "recordBounce": BOUNCE,
    "cancelBatches": {"params": {"status": "running"}},
}
PARTS = {"symbol": "AAPL", "room": "lobby", "service": "email", "number": "1", "user_id": "1"}
# What is asked by the routes that have an effect here, too.
WITH_EFFECTS: set[type[Request]] = {
    alerts.CreateAlert,
    batches.GetBatch,
    batches.ListBatches,
    domains.CreateDomain,
    domains.RotateDkim,
    emails.CancelEmails,
    emails.RecordBounce,
    emails.RetryEmails,
    parked.ReplayParked,
    pauses.ResumeWork,
    schedules.CreateSchedule,
    schedules.GetSchedule,
    suppressions.AddSuppressions,
    suppressions.LiftSuppressions,
    templates.SaveTemplate,
}


class HeldRequests:
    """The requests that reach the services, which answer none before `answer` says so."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Awaitable[Any]] = self.refuse

    def answers(self) -> dict[type[Request], Answer]:
        modules = (
            alerts, batches, domains, emails, parked, pauses, schedules, stocks, suppressions, templates,
        )  # fmt: skip
        kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
        return {kind: self._take for kind in kinds if issubclass(kind, Request) and kind is not Request}

    async def _take(self, request: Any, _: Deadline) -> Any:
        self.requests.append(request)
        return await self.answer(request)

    async def refuse(self, _: Request) -> Any:
        raise Unavailable("It is away.", retry_after_s=1)


@pytest.fixture(scope="module")
async def asked(module_house: House) -> HeldRequests:
    asked = HeldRequests()
    for service in (BATCH_PROCESSOR, EMAIL, STOCK_DATA):
        await module_house.double(service, asked.answers())
    return asked


@pytest.fixture(scope="module")
async def listener(module_house: House, asked: HeldRequests) -> RunningGateway:
    """Return a gateway with five connections to its database."""
    return await module_house.open()


@pytest.fixture(autouse=True)
def _anew(asked: HeldRequests) -> Iterator[None]:
    yield
    asked.requests.clear()
    asked.answer = asked.refuse


def held(listener: RunningGateway) -> int:
    return listener.gateway.resources.runtime.postgres.in_use


def waiting(listener: RunningGateway) -> int:
    return listener.gateway.resources.rpc.waiting


def request_of(endpoint: Endpoint) -> dict[str, Any]:
    """Return a request that the route takes, made of its first example."""
    given: dict[str, Any] = {"headers": {}, "params": {}, **GIVEN.get(endpoint.name, {})}
    for name, example in endpoint.examples.items():
        if not endpoint.takes_body:
            given["params"] |= {} if name in endpoint.path_parameters else {name: example}
        elif endpoint.takes:
            given |= {"content": example, "headers": {"content-type": endpoint.takes[0]}}
            break
        elif isinstance(example, dict):
            given |= {"json": example}
            break
    if endpoint.idempotency is not Idempotency.NONE:
        given["headers"]["idempotency-key"] = str(uuid4())
    if endpoint.precondition is not Precondition.NONE:
        given["headers"]["if-match"] = "*"
    return given


async def test_no_route_holds_a_connection_while_another_service_is_asked(
    listener: RunningGateway, asked: HeldRequests
) -> None:
    holding: list[str] = []

    async def look(request: Request) -> None:
        try:
            await until(lambda: held(listener) == 0, timeout_s=2)
        except AssertionError:
            holding.append(type(request).__name__)
        raise Unavailable("It is away.", retry_after_s=1)

    asked.answer = look
    for endpoint in endpoints(listener.gateway.resources):
        if endpoint.method in ("GET", "PUT") or endpoint.upload:
            continue
        parts = {name: PARTS.get(name, str(uuid4())) for name in endpoint.path_parameters}
        await listener.api.request(endpoint.method, endpoint.template.format(**parts), **request_of(endpoint))
    assert holding == []
    assert {type(request) for request in asked.requests} >= WITH_EFFECTS


def refuses_later(asked: HeldRequests) -> asyncio.Event:
    """Have all requests refused once the event that is returned is set."""
    answered = asyncio.Event()

    async def slow(_: Request) -> None:
        await answered.wait()
        raise Unavailable("It is away.", retry_after_s=1)

    asked.answer = slow
    return answered


@pytest.mark.parametrize("with_keys", [True, False], ids=["with keys", "without"])
async def test_a_caller_whose_sixty_calls_wait_for_slow_services_takes_nothing_from_another(
    listener: RunningGateway, asked: HeldRequests, with_keys: bool
) -> None:
    answered = refuses_later(asked)
    slow_calls: list[asyncio.Task[httpx.Response]] = []
    # Ten at a time: all sixty at once wait for each other's claims on a busy machine, and that has its limit.
    for begun in range(0, 60, 10):
        for path, body in (("/v1/schedules", SCHEDULE), ("/v1/templates", TEMPLATE)) * 5:
            headers = {"request-timeout": "30"}
            if with_keys:
                headers["idempotency-key"] = str(uuid4())
            calling = listener.api.post(path, json=body, headers=headers, timeout=60)
            slow_calls.append(asyncio.create_task(calling))
        await until(
            # A service answers some of an owner at a time; the gateway waits for all of them.
            lambda begun=begun: waiting(listener) == begun + 10,
            what=lambda: f"{waiting(listener)} requests, {[c.result().text for c in slow_calls if c.done()]}",
        )
    await until(lambda: held(listener) == 0)
    key = await listener.new_key("batches:write")
    async with listener.client(key) as other:
        assert (await other.post("/v1/tasks", json={"operation": "unknown", "payload": 1})).status_code == 202
        assert (await other.get("/v1/me")).status_code == 200
    assert not any(call.done() for call in slow_calls)
    answered.set()
    assert {answer.status_code for answer in await asyncio.gather(*slow_calls)} == {503}


async def test_a_key_is_claimed_while_another_service_is_asked_and_free_when_it_refuses(
    listener: RunningGateway, asked: HeldRequests
) -> None:
    answered = refuses_later(asked)
    headers = {"idempotency-key": str(uuid4())}
    first = asyncio.create_task(listener.api.post("/v1/templates", json=TEMPLATE, headers=headers))
    await until(lambda: asked.requests)
    second = await listener.api.post("/v1/templates", json=TEMPLATE, headers=headers)
    assert_problem(second, 409, "idempotency-running")
    answered.set()
    assert (await first).status_code == 503
    assert len(asked.requests) == 1
    # Another body is another request: the key was given back.
    other = await listener.api.post("/v1/templates", json={**TEMPLATE, "subject": "x"}, headers=headers)
    assert (other.status_code, len(asked.requests)) == (503, 2)
    known = await listener.database.fetch(
        "SELECT FROM idempotency WHERE key = $1", headers["idempotency-key"]
    )
    assert known == []


async def test_an_answer_and_the_rows_written_with_it_are_committed_together_and_once(
    listener: RunningGateway, asked: HeldRequests
) -> None:
    async def lift(request: Request) -> suppressions.SuppressionsLifted:
        return suppressions.SuppressionsLifted(matched=3, changed=3, complete=True)

    asked.answer = lift
    headers = {"idempotency-key": str(uuid4())}
    answers = [
        await listener.api.post("/v1/suppressions/lift", params={"origin": "reply"}, headers=headers)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert answers[0].content == answers[1].content
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert len(asked.requests) == 1
    audited = "SELECT count(*) FROM audit_entries WHERE target = 'suppression:matching'"
    assert await listener.database.fetchval(audited) == 1
    mismatched = await listener.api.post(
        "/v1/suppressions/lift", params={"origin": "manual"}, headers=headers
    )
    assert_problem(mismatched, 422, "idempotency-mismatch")


async def test_a_caller_that_goes_away_leaves_its_key_free(
    listener: RunningGateway, asked: HeldRequests
) -> None:
    async def never(_: Request) -> None:
        await asyncio.Event().wait()

    asked.answer = never
    headers = {"idempotency-key": str(uuid4())}
    gone = asyncio.create_task(listener.api.post("/v1/templates", json=TEMPLATE, headers=headers))
    claimed = "SELECT count(*) FROM idempotency WHERE key = $1"
    await until(lambda: asked.requests)
    assert await listener.database.fetchval(claimed, headers["idempotency-key"]) == 1
    gone.cancel()

    async def is_free() -> bool:
        return bool(await listener.database.fetchval(claimed, headers["idempotency-key"]) == 0)

    await until(is_free)


async def test_the_claim_of_a_gateway_that_died_ends_with_the_time_of_its_request(
    listener: RunningGateway, asked: HeldRequests
) -> None:
    async def never(_: Request) -> None:
        await asyncio.Event().wait()

    asked.answer = never
    headers = {"idempotency-key": str(uuid4()), "request-timeout": "20"}
    asking = asyncio.create_task(listener.api.post("/v1/templates", json=TEMPLATE, headers=headers))
    await until(lambda: asked.requests)
    # As old as it is for whoever claims it anew: five minutes when its time is over.
    left = await listener.database.fetchval(
        "SELECT extract(epoch FROM created_at + interval '5 minutes' - now())"
        " FROM idempotency WHERE key = $1",
        headers["idempotency-key"],
    )
    assert 15 < left < 26
    asking.cancel()

"""Requests to other services: their absence, and how long a caller waits for them."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from chassis.broker.rpc import MOST_SENT_OF_OWNER
from chassis.deadlines import Deadline
from chassis.errors import NotFound
from contracts import emails
from contracts.topology import EMAIL
from gateway.http import serving
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

ID = "018f0000-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/stocks/AAPL",
        "/v1/stocks?symbols=AAPL",
        "/v1/stocks/AAPL/bars",
        "/v1/stocks/search?q=a",
        f"/v1/emails/{ID}",
        f"/v1/batches/{ID}",
        f"/v1/tasks/{ID}",
        f"/v1/batches/{ID}/results",
        "/v1/batches",
    ],
)
async def test_a_service_that_is_away_is_503_long_before_the_deadline(
    listener: RunningGateway, path: str
) -> None:
    answer = await listener.api.get(path, headers={"request-timeout": "20"}, timeout=10)
    assert_problem(answer, 503, "service-unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_an_overview_names_the_parts_that_are_missing(listener: RunningGateway, house: House) -> None:
    async def count(request: emails.CountEmails, _: Deadline) -> emails.EmailCounts:
        return emails.EmailCounts(counts={"delivered": 3})

    await house.double(EMAIL, {emails.CountEmails: count})
    answer = await listener.api.get("/v1/overview?symbols=AAPL")
    document = answer.json()
    assert (answer.status_code, document["emails"]) == (200, {"delivered": 3})
    assert (document["batches"], document["stocks"]) == (None, None)
    assert {error["part"]: error["code"] for error in document["errors"]} == {
        "batches": "service-unavailable",
        "stocks": "service-unavailable",
    }
    assert_problem(await listener.api.get("/v1/overview?symbols=no%20symbol"), 422, "invalid-input")
    async with listener.client(await listener.new_key("chat:write")) as client:
        assert (await client.get("/v1/overview?symbols=AAPL")).json() == {"errors": []}


@pytest.mark.parametrize("asked", [{"request-timeout": "0.3"}, {"prefer": "wait=0.3"}])
async def test_an_answer_that_does_not_come_in_time_is_504(
    listener: RunningGateway, house: House, asked: dict[str, str]
) -> None:
    async def never(_: emails.GetEmail, __: Deadline) -> emails.Email:
        await asyncio.Event().wait()
        raise AssertionError("it waits for ever")

    await house.double(EMAIL, {emails.GetEmail: never})
    answer = await listener.api.get(f"/v1/emails/{ID}", headers=asked)
    assert_problem(answer, 504, "deadline-exceeded")


@pytest.mark.parametrize("unwatched_s", [0.0, 0.3], ids=["while watched", "before it is watched"])
async def test_a_client_that_goes_away_cancels_its_request_and_frees_its_turn(
    listener: RunningGateway, house: House, monkeypatch: pytest.MonkeyPatch, unwatched_s: float
) -> None:
    """Its owner's turns are all taken by clients that go away, so the next one shows that they are free."""
    monkeypatch.setattr(serving, "UNWATCHED_S", unwatched_s)
    asked: list[UUID] = []

    async def never(request: emails.GetEmail, _: Deadline) -> emails.Email:
        asked.append(request.email_id)
        if request.email_id == UUID(ID):
            await asyncio.Event().wait()
        raise NotFound("No such mail.")

    await house.double(EMAIL, {emails.GetEmail: never})
    gone = {"method": "GET", "route": "/v1/emails/{email_id}", "status": "499"}
    before = REGISTRY.get_sample_value("tickwire_http_requests_total", gone) or 0
    clients = [asyncio.create_task(listener.api.get(f"/v1/emails/{ID}")) for _ in range(MOST_SENT_OF_OWNER)]
    await until(lambda: len(asked) == len(clients))
    for client in clients:
        client.cancel()
    counted = before + len(clients)
    await until(lambda: REGISTRY.get_sample_value("tickwire_http_requests_total", gone) == counted)
    in_flight = REGISTRY.get_sample_value("tickwire_rpc_client_in_flight", {"target": "email"})
    assert in_flight == 0
    assert_problem(await listener.api.get(f"/v1/emails/{ID[:-1]}1"), 404, "not-found")


async def test_the_deadline_travels_to_the_service(listener: RunningGateway, house: House) -> None:
    seen: list[float] = []

    async def look(request: emails.GetEmail, deadline: Deadline) -> emails.Email:
        seen.append(deadline.remaining_s())
        raise NotFound("No such mail.")

    await house.double(EMAIL, {emails.GetEmail: look})
    await listener.api.get(f"/v1/emails/{ID}", headers={"request-timeout": "2"})
    await listener.api.get(f"/v1/emails/{ID}")
    assert 1 < seen[0] <= 2.1
    assert 3 < seen[1] <= 5.1

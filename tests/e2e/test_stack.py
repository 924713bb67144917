"""The gateway's own pages, short routes, ids, and its answers while a part is away."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from native.stack import Stack
from support.waiting import until


async def test_the_route_me_returns_the_administrator(api: httpx.AsyncClient) -> None:
    me = (await api.get("/v1/me")).json()
    assert me["user"]["role"] == "admin"
    assert me["key"]["scopes"] == ["admin"]


async def test_users_are_made_read_and_changed(api: httpx.AsyncClient) -> None:
    made = await api.post("/v1/users", json={"name": "Zoë", "email": "zoe@example.com"})
    assert made.status_code == 201
    path = made.headers["location"]
    assert [(await api.get(path)).json()["name"] for _ in range(2)] == ["Zoë", "Zoë"]
    headers = {"if-match": made.headers["etag"]}
    assert (await api.patch(path, json={"name": "Zoë B."}, headers=headers)).status_code == 200
    assert (await api.get(path)).json()["name"] == "Zoë B."
    assert (await api.get(f"/user/{made.json()['id']}")).json()["name"] == "Zoë B."
    again = await api.post("/v1/users", json={"name": "Zoë", "email": "ZOE@example.com"})
    assert again.status_code == 409


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/send-email", {"to": "short@example.com", "subject": "s", "body": "b"}),
        ("/process-batch", {"batches": [[1, 2], [3]]}),
        ("/process-data", {"items": [1, 2, 3]}),
        ("/enqueue-task", {"anything": ["at", "all"]}),
    ],
)
async def test_short_routes_accept_work(api: httpx.AsyncClient, path: str, body: Any) -> None:
    answer = await api.post(path, json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json().keys() == {"message", "id"}
    location = answer.headers["location"]

    async def done() -> bool:
        status: str = (await api.get(location)).json()["status"]
        return status in ("completed", "delivered")

    await until(done, timeout_s=30)


async def test_the_short_quote_is_the_quote(api: httpx.AsyncClient) -> None:
    assert (await api.get("/stock/ibm")).json()["symbol"] == "IBM"


async def test_request_and_trace_ids_of_the_caller_are_continued(api: httpx.AsyncClient) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "X-Request-Id": "my-request-1"}
    answer = await api.get("/v1/me", headers=headers)
    assert answer.headers["x-request-id"] == "my-request-1"
    assert answer.headers["traceparent"].split("-")[1] == trace
    evil = await api.get("/v1/me", headers={"X-Request-Id": "a b<script>"})
    assert evil.headers["x-request-id"] != "a b<script>"


async def test_an_accepted_mail_is_found_by_its_ids_in_the_logs_of_every_service_on_the_way(
    stack: Stack, api: httpx.AsyncClient
) -> None:
    trace = "1af7651916cd43dd8448eb211c80319d"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "X-Request-Id": "my-mail-1"}
    mail = {"to": ["trace@example.com"], "subject": "s", "text": "t"}
    accepted = await api.post("/v1/emails", json=mail, headers=headers)
    ids = {"trace_id": trace, "request_id": "my-mail-1", "message_id": accepted.json()["id"]}

    def said(service: str, event: str) -> list[dict[str, Any]]:
        lines = [orjson.loads(line) for line in stack.log(service).splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event and line.get("request_id") == "my-mail-1"]

    (request,) = await until(lambda: said("gateway", "request"))
    (published,) = await until(lambda: said("gateway", "message published"))
    (handled,) = await until(lambda: said("email", "message handled"))
    (delivered,) = await until(lambda: said("email", "mail delivered"))
    assert (request["trace_id"], request["status"]) == (trace, 202)
    assert ids.items() <= published.items()
    assert ids.items() <= handled.items()
    assert (delivered["trace_id"], delivered["email_id"]) == (trace, ids["message_id"])


async def test_the_overview_names_the_part_that_failed(stack: Stack, api: httpx.AsyncClient) -> None:
    whole = (await api.get("/v1/overview", params={"symbols": "AAPL,IBM"})).json()
    assert whole["errors"] == []
    assert len(whole["stocks"]["quotes"]) == 2
    assert whole["emails"] is not None
    await stack.stop("email")
    try:
        part = (await api.get("/v1/overview", params={"symbols": "AAPL,IBM"})).json()
        assert [error["part"] for error in part["errors"]] == ["emails"]
        assert part["emails"] is None
        assert len(part["stocks"]["quotes"]) == 2
        mail = {"to": ["away@example.com"], "subject": "s", "text": "t"}
        accepted = await api.post("/v1/emails", json=mail)
        assert accepted.status_code == 202
        waiting = (await api.get(accepted.headers["location"])).json()
        assert waiting["status"] == "queued"
    finally:
        await stack.start("email")

    async def delivered() -> bool:
        status: str = (await api.get(accepted.headers["location"])).json()["status"]
        return status == "delivered"

    await until(delivered, timeout_s=30)


async def test_health_is_public_and_reasons_are_not(stack: Stack) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{stack.url}/healthz")).json() == {"status": "ok"}
        for service in ("gateway", "stock-data", "email", "batch-processor"):
            ops = stack.ops_url(service)
            assert (await client.get(f"{ops}/livez")).status_code == 200
            assert (await client.get(f"{ops}/readyz")).json() == {"status": "ready", "reasons": {}}
            wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
            exposition = (await client.get(f"{ops}/metrics", headers=wanted)).text
            assert exposition.endswith("# EOF\n")
            assert "tickwire_messages_published_total" in exposition

"""Requests that are refused or cut: what they weigh, and that they are no failures of the gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from chassis.errors import Overloaded, ServiceError, TooManyAtOnce, Unavailable
from chassis.http1.refusals import AnswerCut
from chassis.loop_turns import LoopTurns
from gateway.http.calls import Call, IncomingRequest
from gateway.http.edge import Edge, Message, Receive, Scope, Send
from gateway.http.endpoints import Answer, get, json
from gateway.http.serving import ROUTE
from support.served import application, serving
from support.served_things import DECLARED


def counted(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0


async def test_after_a_refusal_fewer_requests_begin_in_the_same_pass_of_the_loop() -> None:
    async def answer(_: Call) -> dict[str, Any]:
        return {}

    async def refuse(_: Call) -> dict[str, Any]:
        raise TooManyAtOnce("Enough.")

    routes = [
        get(f"/{name}", handler, name=name, answers={200: json()}, **DECLARED)
        for name, handler in (("answered", answer), ("refused", refuse))
    ]
    begun = dict[str, int]()
    for path in ("/answered", "/refused", "/nowhere"):
        turns = LoopTurns()
        app = application(routes, turns=turns)
        headers = [(b"authorization", b"Bearer good")]
        request = {"method": "GET", "path": path, "query_string": b"", "headers": headers}
        begun[path] = 0
        # Nothing in between waits: it is one pass.
        while turns.take_now(1):
            await app.server.reply(IncomingRequest(dict(request)))
            begun[path] += 1
    # A refusal takes the loop longer than an answer from memory.
    assert begun["/refused"] <= begun["/answered"] // 2
    assert begun["/nowhere"] <= begun["/answered"]


async def test_refusals_by_a_limit_are_counted_and_a_flood_of_them_is_one_line_a_minute() -> None:
    now = 0.0
    error: ServiceError = Overloaded("Full.")

    async def fail(_: Call) -> None:
        raise error

    route = get("/full", fail, name="full", answers={200: Answer()}, **DECLARED)
    before = counted("tickwire_http_requests_overloaded_total", route="/full")
    async with serving([route], clock=lambda: now) as client:
        with capture_logs() as lines:
            for _ in range(50):
                assert (await client.get("/full")).status_code == 503
            now = 61.0
            await client.get("/full")
            error = Unavailable("The service is away.")
            for _ in range(2):
                await client.get("/full")
    told = [(line["log_level"], line.get("requests")) for line in lines]
    assert told == [("warning", 1), ("warning", 50), ("error", None), ("error", None)]
    assert counted("tickwire_http_requests_overloaded_total", route="/full") == before + 51


async def test_an_answer_that_is_cut_because_its_client_is_slow_is_no_failure_and_no_error_in_the_log() -> (
    None
):
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE] = "/slow"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Message:
        raise AssertionError("nothing is received")

    request = {"type": "http", "method": "GET", "path": "/slow", "headers": []}
    with capture_logs() as lines, pytest.raises(AnswerCut):
        await Edge(stream, body_limit=1, patience_s=0.01)(request, receive, send)
    assert counted("tickwire_http_requests_total", method="GET", route="/slow", status="499") == 1
    assert counted("tickwire_http_requests_total", method="GET", route="/slow", status="500") == 0
    assert [line for line in lines if line["log_level"] == "error"] == []

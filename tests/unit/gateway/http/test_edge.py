"""The outermost layer: ids, headers, metrics, and the limits on bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis import tracing
from chassis.errors import PayloadTooLarge
from chassis.http1.refusals import AnswerCut
from gateway.http.bodies import BODY, Body
from gateway.http.edge import Edge, Message, Receive, Scope, Send
from gateway.http.serving import ROUTE

TRACE = "0af7651916cd43dd8448eb211c80319c"
KIB = 1024


def scope(method: str = "GET", headers: dict[str, str] | None = None, kind: str = "http") -> dict[str, Any]:
    given = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return {"type": kind, "method": method, "path": "/x", "headers": given}


async def answer_200(scope: Scope, receive: Receive, send: Send) -> None:
    scope[ROUTE] = "/x/<id>"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def call(
    app: Any, asked: dict[str, Any], *parts: bytes, limit: int = 100
) -> tuple[list[Message], dict[bytes, bytes]]:
    """Return the messages that came out, and the headers of the answer."""
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
        for index, part in enumerate(parts)
    ] or [{"type": "http.request", "body": b"", "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await Edge(app, body_limit=limit)(asked, receive, send)
    headers = dict(sent[0]["headers"]) if sent and "headers" in sent[0] else {}
    return sent, headers


def counted(**labels: str) -> float:
    return REGISTRY.get_sample_value("tickwire_http_requests_total", labels) or 0


async def test_ids_are_made_when_none_came() -> None:
    _, headers = await call(answer_200, scope())
    trace_id = headers[b"traceparent"].split(b"-")[1]
    assert headers[b"x-request-id"] == trace_id
    assert len(trace_id) == 32


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", "01"),
        (f"00-{TRACE}-b7ad6b7169203331-00", "00"),
        # Of higher versions, which may have more parts, and flags of which only the sampled one is known.
        (f"01-{TRACE}-b7ad6b7169203331-01", "01"),
        (f"cc-{TRACE}-b7ad6b7169203331-fd-what-the-future-will-be-like", "01"),
        (f"cc-{TRACE}-b7ad6b7169203331-02", "00"),
    ],
)
async def test_ids_of_the_caller_are_continued(given: str, flags: str) -> None:
    asked = scope(headers={"traceparent": given, "x-request-id": "order-17"})
    _, headers = await call(answer_200, asked)
    version, trace_id, span_id, handed_on = headers[b"traceparent"].decode().split("-")
    assert (version, trace_id, handed_on) == ("00", TRACE, flags)
    assert span_id != "b7ad6b7169203331"
    assert headers[b"x-request-id"] == b"order-17"


@pytest.mark.parametrize(
    "bad",
    [
        {"traceparent": "nonsense", "x-request-id": "two words"},
        {"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01", "x-request-id": ""},
        {"traceparent": f"ff-{TRACE}-b7ad6b7169203331-01", "x-request-id": "x" * 129},
        {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01-more", "x-request-id": "a\n"},
        {"traceparent": f"cc-{TRACE}-b7ad6b7169203331-01.more", "x-request-id": "a b"},
        {"traceparent": f"00-{TRACE.upper()}-b7ad6b7169203331-01", "x-request-id": "é\xff"},
    ],
)
async def test_ids_that_are_not_well_formed_are_replaced(bad: dict[str, str]) -> None:
    _, headers = await call(answer_200, scope(headers=bad))
    assert headers[b"x-request-id"] != bad["x-request-id"].encode("latin-1")
    assert TRACE.encode() not in headers[b"traceparent"]


async def test_the_handler_is_in_the_trace_of_the_request() -> None:
    seen: list[tracing.Trace | None] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(tracing.current())
        await answer_200(scope, receive, send)

    await call(look, scope(headers={"x-request-id": "order-18"}))
    assert seen[0] is not None
    assert seen[0].request_id == "order-18"


async def test_every_answer_has_the_security_headers() -> None:
    _, headers = await call(answer_200, scope())
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"x-frame-options"] == b"DENY"
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    assert headers[b"a"] == b"b"


async def test_requests_are_counted_by_route_template_and_not_by_path() -> None:
    labels = {"method": "GET", "route": "/x/<id>", "status": "200"}
    before = counted(**labels)
    await call(answer_200, scope())
    assert counted(**labels) == before + 1
    assert counted(method="GET", route="/x", status="200") == 0


async def test_a_method_that_nobody_knows_does_not_make_a_metric_of_its_own() -> None:
    labels = {"method": "OTHER", "route": "/x/<id>", "status": "200"}
    before = counted(**labels)
    await call(answer_200, scope("BREW"))
    assert counted(**labels) == before + 1


async def test_a_client_that_goes_away_is_not_counted_as_a_failure() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE] = "/gone"

    await call(silent, scope())
    assert counted(method="GET", route="/gone", status="499") == 1
    assert counted(method="GET", route="/gone", status="500") == 0


async def test_an_application_that_breaks_is_counted_as_a_failure() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE] = "/broken"
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        await call(broken, scope())
    assert counted(method="GET", route="/broken", status="500") == 1


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body as Quart does, and say how much came and whether it is too much."""
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        if not message["more_body"]:
            break
    body: Body | None = scope.get(BODY)
    try:
        if body is not None:
            body.require_within(dict(scope["headers"]).get(b"content-length", b"0").decode())
        status = 200
    except PayloadTooLarge:
        status = 413
    await send({"type": "http.response.start", "status": status, "headers": [(b"size", str(size).encode())]})


@pytest.mark.parametrize(
    ("parts", "status"), [([50, 50], 200), ([101], 413), ([50, 50, 1], 413), ([60, 60, 600], 413)]
)
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_a_body_without_a_length_is_counted_as_it_comes(
    method: str, parts: list[int], status: int
) -> None:
    sent, headers = await call(read_all, scope(method), *[b"x" * part for part in parts])
    assert sent[0]["status"] == status
    assert int(headers[b"size"]) <= 100


async def test_a_declared_length_over_the_limit_is_refused_before_the_body() -> None:
    sent, _ = await call(read_all, scope("POST", {"content-length": "101"}))
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("declared", ["²", "-1", "1e9", "", "nonsense"])
def test_a_length_that_is_no_number_is_passed_over(declared: str) -> None:
    Body(100).require_within(declared)


async def test_a_get_with_a_body_is_limited_too() -> None:
    asked = scope("GET", {"transfer-encoding": "chunked"})
    _, headers = await call(read_all, asked, b"x" * 90, b"x" * 90, b"x" * 90)
    assert int(headers[b"size"]) <= 100


class Stream:
    """A body opened as a stream of up to `limit` bytes; `offer` is the network, `has_read` the handler."""

    def __init__(self, limit: int) -> None:
        self.body = Body(10)
        self.body.open_stream(limit)

    def offer(self, size: int) -> asyncio.Task[None]:
        return asyncio.create_task(self.body.take({"type": "http.request", "body": b"x" * size}))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_stream_is_taken_no_faster_than_it_is_read() -> None:
    stream = Stream(100 << 20)
    first = stream.offer(900 * KIB)
    await settle()
    assert first.done()
    second = stream.offer(900 * KIB)
    await settle()
    assert not second.done()
    stream.body.has_read(900 * KIB)
    await asyncio.wait_for(second, 1)


async def test_a_stream_has_its_own_limit() -> None:
    stream = Stream(2000)
    await stream.offer(1500)
    stream.body.require_within("1999")
    with pytest.raises(PayloadTooLarge):
        stream.body.require_within("2001")
    await stream.offer(600)
    with pytest.raises(PayloadTooLarge):
        stream.body.require_within(None)


async def test_bytes_that_come_before_a_stream_is_opened_are_kept() -> None:
    body = Body(100, may_be_stream=True)
    early = asyncio.create_task(body.take({"type": "http.request", "body": b"x" * 150}))
    await settle()
    assert not early.done()
    body.open_stream(2000)
    await asyncio.wait_for(early, 1)
    body.require_within(None)


async def test_an_upload_whose_key_is_looked_up_slowly_arrives_whole() -> None:
    async def look_up_then_read(scope: Scope, receive: Receive, send: Send) -> None:
        # As Quart does: the body is received beside the handler.
        parts: list[bytes] = []

        async def pump() -> None:
            more = True
            while more:
                message = await receive()
                parts.append(message["body"])
                more = message["more_body"]

        pumping = asyncio.create_task(pump())
        await settle()
        scope["tickwire.body"].open_stream(1 << 20)
        await asyncio.wait_for(pumping, 5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(len(b"".join(parts))).encode()})

    asked = scope("POST", {"content-type": "application/x-ndjson"})
    sent, _ = await call(look_up_then_read, asked, b"x" * 90, b"x" * 90, b"x" * 90)
    assert sent[1]["body"] == b"270"


async def test_a_body_that_is_no_stream_is_never_held_back() -> None:
    body = Body(10 << 20)
    await asyncio.wait_for(body.take({"type": "http.request", "body": b"x" * (5 << 20)}), 1)


@pytest.mark.parametrize(
    ("headers", "is_given_up"),
    [([], True), ([(b"content-length", b"50000")], True), ([(b"content-length", b"5")], False)],
)
async def test_a_client_that_takes_nothing_of_a_long_answer_is_given_up(
    headers: list[tuple[bytes, bytes]], is_given_up: bool
) -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(0.05)

    edge = Edge(stream, body_limit=1, patience_s=0.01)
    if is_given_up:
        with pytest.raises(AnswerCut):
            await edge(scope(), _never, send)
    else:
        await edge(scope(), _never, send)


async def websocket_call(
    app: Callable[..., Any], *events: Message, headers: dict[str, str] | None = None
) -> list[Message]:
    pending, sent = list(events), []

    async def receive() -> Message:
        return pending.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await Edge(app, body_limit=100)(scope(kind="websocket", headers=headers), receive, send)
    return sent


async def test_a_refused_websocket_has_ids_and_security_headers() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})

    sent = await websocket_call(refuse, headers={"x-request-id": "socket-1"})
    headers = dict(sent[0]["headers"])
    assert headers[b"x-request-id"] == b"socket-1"
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"bytes": b""}, ""),
        ({"bytes": b"", "text": None}, ""),
        ({"text": "hi"}, "hi"),
        ({"bytes": b"x"}, None),
    ],
)
async def test_an_empty_binary_frame_is_an_empty_text(event: dict[str, Any], text: str | None) -> None:
    seen: list[Message] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())

    await websocket_call(look, {"type": "websocket.receive", **event})
    assert seen[0].get("text") == text


async def test_sockets_get_the_websockets_and_the_requests_for_their_paths_and_nothing_else() -> None:
    seen: list[tuple[str, str, str]] = []

    def noting(name: str) -> Any:
        async def note(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append((name, scope["type"], scope["path"]))

        return note

    edge = Edge(noting("app"), body_limit=1, sockets=noting("sockets"), socket_paths=("/socket",))
    for kind, path in (("http", "/x"), ("http", "/socket"), ("websocket", "/socket"), ("websocket", "/x")):
        await edge({**scope(kind=kind), "path": path}, _never, _never_send)
    assert seen == [
        ("app", "http", "/x"),
        ("sockets", "http", "/socket"),
        ("sockets", "websocket", "/socket"),
        ("sockets", "websocket", "/x"),
    ]


async def test_the_lifespan_passes_through() -> None:
    seen: list[Scope] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await Edge(look, body_limit=1)({"type": "lifespan"}, _never, _never_send)
    assert seen == [{"type": "lifespan"}]


async def _never() -> Message:
    raise AssertionError("nothing is received")


async def _never_send(message: Message) -> None:
    raise AssertionError("nothing is sent")

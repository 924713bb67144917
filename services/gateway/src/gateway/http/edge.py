"""The outermost layer, in pure ASGI: ids, metrics, security headers and the limits on bodies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, MutableMapping
from contextlib import suppress
from typing import Any, cast

from chassis import exemplars, logging, metrics, spans, tracing
from chassis.http1.refusals import AnswerCut
from gateway.http.bodies import BODY, Body
from gateway.http.routing import METHODS
from gateway.http.serving import HURRIED, REFUSED, ROUTE
from gateway.http.stepping import Finished, begin

log = logging.get(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

STATUS = "tickwire.status"

_IDS = (b"traceparent", b"x-request-id")

_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
# For responses other than pages, which have a policy of their own.
_NO_PAGE = [*_SECURITY, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]
# Bodies that may be larger than a JSON body, because they are read as they arrive.
_STREAMED = (b"ndjson", b"application/octet-stream")
_READING = ("GET", "HEAD", "OPTIONS")
_BUFFERED_ANSWER_BYTES = 32 * 1024
_PATIENCE_S = 60.0
# The status of nginx for a client that disconnected before its response: nothing failed here.
_GONE = 499
_REFUSALS_EVERY_S = 60.0
# The counter and the histogram of each method, route and status.
_CHILDREN: dict[tuple[str, str, int], tuple[Any, Any]] = {}


class _Refusals:
    """Counts the requests that a limit refuses with 503, and logs that there are some, now and then.

    They are no failures, and of a flood there are thousands: the first one is logged at once, and from then
    on once a minute how many there were since.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_line = 0
        self._next_line_at = 0.0

    def note(self, *, method: str, route: str, status: int) -> None:
        """Count a refusal."""
        metrics.HTTP_OVERLOADED.labels(route).inc()
        self._since_line += 1
        now = self._clock()
        if now >= self._next_line_at:
            log.warning(
                "a limit refuses requests",
                requests=self._since_line, method=method, route=route, status=status,
            )  # fmt: skip
            self._since_line, self._next_line_at = 0, now + _REFUSALS_EVERY_S


class Edge:
    """Wraps the application: every answer carries its ids, every request is counted once.

    `sockets` serves the WebSockets, and refuses requests for `socket_paths` that are no upgrade.
    """

    def __init__(
        self,
        app: Application,
        *,
        body_limit: int,
        sockets: Application | None = None,
        socket_paths: Collection[str] = (),
        patience_s: float = _PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._sockets = sockets or app
        self._socket_paths = socket_paths
        self._body_limit = body_limit
        self._patience_s = patience_s
        self._refusals = _Refusals(clock)
        self._in_flight = 0
        metrics.HTTP_IN_FLIGHT.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, upgrade or lifespan of an ASGI server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _IDS}
        trace = tracing.begin(*map(given.get, _IDS))
        if scope["type"] == "websocket":
            await self._sockets(scope, _with_text(receive), _with_headers(send, trace))
            return
        with spans.span(scope["method"], "server") as span:
            # Inside the span, whose id goes to the next hop and into the response.
            await self._serve(scope, receive, send, tracing.current() or trace)
            if span is not None:
                route = scope.get(ROUTE, "unmatched")
                span.update_name(f"{scope['method']} {route}")
                span.set_attributes(
                    {
                        "http.request.method": scope["method"],
                        "http.route": route,
                        "http.response.status_code": scope.get(STATUS, 0),
                    }
                )

    async def _serve(self, scope: Scope, receive: Receive, send: Send, trace: tracing.Trace) -> None:
        started = time.perf_counter()
        status = _GONE
        send_with_headers = _with_headers(_patient(send, self._patience_s), trace)

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send_with_headers(message)

        self._in_flight += 1
        try:
            app = self._sockets if scope["path"] in self._socket_paths else self._app
            await app(scope, self._limited(scope, receive), send_and_note)
        except AnswerCut:
            # Its client was too slow: an owner must not be able to spend the error budget by that.
            status = _GONE
            raise
        except Exception:
            status = 500
            raise
        finally:
            self._in_flight -= 1
            scope[STATUS] = status
            # A time-out that the caller shortened must not count against the error budget.
            status = _GONE if scope.get(HURRIED) else status
            self._record(scope, status, time.perf_counter() - started, trace)

    def _record(self, scope: Scope, status: int, elapsed_s: float, trace: tracing.Trace) -> None:
        route, method = scope.get(ROUTE, "unmatched"), scope["method"]
        method = method if method in METHODS else "OTHER"
        children = _CHILDREN.get((method, route, status))
        if children is None:
            # `labels` takes longer than the rest of the counting.
            children = _CHILDREN[method, route, status] = (
                metrics.HTTP_REQUESTS.labels(method, route, str(status)),
                metrics.HTTP_SECONDS.labels(method, route),
            )
        counter, histogram = children
        counter.inc()
        histogram.observe(elapsed_s, exemplars.of_trace(trace))
        if status >= 500 and scope.get(REFUSED):
            self._refusals.note(method=method, route=route, status=status)
        elif status >= 500:
            log.error(
                "request failed", method=method, route=route, status=status, elapsed_s=round(elapsed_s, 4)
            )
        elif status >= 400 or method not in _READING:
            fields: dict[str, str | float] = {
                "method": method, "route": route, "status": status, "elapsed_s": round(elapsed_s, 4),
            }  # fmt: skip
            if not logging.write_brief("request", module=__name__, trace=trace, **fields):
                log.info("request", **fields)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        names = {name for name, _ in scope["headers"]}
        if scope["method"] in _READING and names.isdisjoint((b"content-length", b"transfer-encoding")):
            return receive
        may_be_stream = any(
            name == b"content-type" and any(kind in value.lower() for kind in _STREAMED)
            for name, value in scope["headers"]
        )
        body = scope[BODY] = Body(self._body_limit, may_be_stream=may_be_stream)

        async def receive_limited() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                await body.take(message)
                if body.received > body.limit:
                    # The rest is not read: the handler answers 413 and the server closes the connection.
                    return {"type": "http.request", "body": b"", "more_body": False}
            return message

        return receive_limited


def _with_headers(send: Send, trace: tracing.Trace) -> Send:
    """Return a `send` that adds ids and security headers to a response or to the refusal of a WebSocket."""
    ids = [(b"x-request-id", trace.request_id.encode()), (b"traceparent", trace.traceparent.encode())]

    async def send_with_headers(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            given = message["headers"]
            has_policy = any(name == b"content-security-policy" for name, _ in given)
            message = {**message, "headers": [*given, *ids, *(_SECURITY if has_policy else _NO_PAGE)]}
        await send(message)

    return send_with_headers


def _patient(send: Send, patience_s: float) -> Send:
    """Return a `send` that disconnects a client that has not read from a long response for `patience_s`."""
    is_long = False

    async def send_patiently(message: Message) -> None:
        nonlocal is_long
        if message["type"] == "http.response.start":
            # A stream has no length; a short body goes into the connection's buffer without waiting.
            lengths = (int(value) for name, value in message["headers"] if name == b"content-length")
            is_long = next(lengths, _BUFFERED_ANSWER_BYTES + 1) > _BUFFERED_ANSWER_BYTES
        if not is_long:
            await send(message)
            return
        # Most parts go into the connection's buffer, and need no timer.
        with suppress(Finished):
            rest = begin(cast(Coroutine[Any, Any, None], send(message)))
            try:
                async with asyncio.timeout(patience_s) as patience:
                    await rest
            except TimeoutError:
                if not patience.expired():
                    raise
                detail = f"Its client has taken too little of the answer in {patience_s:g} s; read faster."
                raise AnswerCut("slow_reader", detail) from None

    return send_patiently


def _with_text(receive: Receive) -> Receive:
    """Return a `receive` that turns empty binary frames into empty texts: Quart supports no empty bytes."""

    async def receive_with_text() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive" and not message.get("bytes"):
            return {**message, "text": message.get("text") or ""}
        return message

    return receive_with_text

"""The answers to requests that never reach the application."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TypeAlias

import orjson

from chassis import tracing
from chassis.errors import ServiceError
from chassis.problems import SECURITY_HEADERS, problem, problem_headers

Fields: TypeAlias = Iterable[tuple[bytes, bytes]]
_IDS = (b"traceparent", b"x-request-id")


class RequestRefused(ServiceError):
    """The request is refused before it reaches the application; the connection is closed.

    `reason` is the value of the metric's label.
    """

    code = "malformed-request"

    def __init__(self, reason: str, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.reason = reason


class RequestTimedOut(RequestRefused):
    """The request did not arrive in time."""

    code = "request-timeout"


class TargetTooLong(RequestRefused):
    """The request line is over its limit."""

    code = "uri-too-long"


class ExpectationFailed(RequestRefused):
    """`Expect` asks for something other than `100-continue`."""

    code = "expectation-failed"


class UpgradeNotPossible(RequestRefused):
    """The WebSocket version is not supported."""

    code = "upgrade-required"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.headers = {"sec-websocket-version": "13", "upgrade": "websocket"}


class TooManyConnections(RequestRefused):
    """The address of the client, or the owner of its key, has reached its limit of connections."""

    code = "too-many-connections"


class HeadTooLarge(RequestRefused):
    """The header fields are too large, or too many."""

    code = "request-header-fields-too-large"


class NotImplementedHere(RequestRefused):
    """The method or the transfer coding is not implemented."""

    code = "not-implemented"


class ListenerFull(RequestRefused):
    """All places for connections are taken."""

    code = "overloaded"


class VersionNotSupported(RequestRefused):
    """The version of HTTP is neither 1.0 nor 1.1."""

    code = "http-version-not-supported"


class AnswerCut(RequestRefused):
    """The application ends an answer that has begun, and the client sees that it is incomplete."""

    code = "overloaded"


def response(
    error: ServiceError,
    *,
    with_body: bool = True,
    fields: bytes = b"",
    asked: Fields = (),
) -> bytes:
    """Return `error` as the last response of a connection: a problem document.

    `fields` are lines of further header fields. `asked` are the headers of the request, if they could be
    read; the response then continues their ids, and has new ones otherwise.
    """
    ids = {name: value.decode("latin-1") for name, value in asked if name in _IDS}
    with tracing.during(ids.get(b"traceparent"), ids.get(b"x-request-id")) as trace:
        body = orjson.dumps(problem(error), option=orjson.OPT_APPEND_NEWLINE)
        headers = {
            **problem_headers(error),
            "content-length": str(len(body)),
            "x-request-id": trace.request_id,
            "traceparent": trace.traceparent,
            # Whoever names a protocol in Upgrade must say so here (RFC 9110, section 7.8).
            "connection": "close, upgrade" if "upgrade" in error.headers else "close",
            **SECURITY_HEADERS,
        }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    status_line = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
    return b"".join([status_line.encode(), fields, lines.encode(), b"\r\n", body if with_body else b""])

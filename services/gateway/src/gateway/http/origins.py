"""Pages of other origins (RFC 6454): which may call the API from a browser, by HTTP, SSE and WebSocket.

Credentials are never sent by a browser on its own account here (there are no cookies), so that CORS decides
who may read answers, and the check of a WebSocket's `Origin` keeps the two alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from chassis.errors import Forbidden
from gateway.http.reading import Incoming

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
# A browser leaves the usual port out.
_USUAL_PORT = re.compile(r"http:.*:80|https:.*:443")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# What a caller may send beside the few headers that a page may always send.
_REQUEST_HEADERS = (
    "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID",
    "Prefer", "Request-Timeout", "Traceparent", "X-API-Key", "X-Request-Id",
)  # fmt: skip
_ANSWER_HEADERS = (
    "Location", "ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "Idempotent-Replayed",
)  # fmt: skip
# For so long a browser asks no second time; no browser believes more than a day.
_PREFLIGHT_S = 3600


def read_origins(text: str) -> tuple[str, ...]:
    """Return the origins in `text`, separated by commas, as browsers write them. Raise `ValueError`."""
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin) or _USUAL_PORT.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is no origin as a browser sends it: scheme and host in lower case, and the port "
                "where it is not the usual one; no path and no *"
            )
    return origins


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return `app` behind the answers to preflight requests, which need no credentials."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_ANSWER_HEADERS,
        max_age=_PREFLIGHT_S,
    )


def require_origin(request: Incoming, origins: Collection[str]) -> None:
    """Raise `Forbidden` for a WebSocket that a page of a foreign origin opens.

    Programs send no `Origin`. A page of the gateway has its host; behind a proxy the scheme may differ.
    """
    origin = request.header(b"origin")
    if origin is None or origin in origins or origin.partition("://")[2] == request.header(b"host"):
        return
    raise Forbidden("Pages of this origin may not connect: add it to GATEWAY_CORS_ORIGINS.")

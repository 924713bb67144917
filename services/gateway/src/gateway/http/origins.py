"""The origins (RFC 6454) whose pages may call the API from a browser, by HTTP, SSE and WebSocket.

Browsers never send credentials on their own here (there are no cookies), so CORS only decides which pages may
read responses; the check of a WebSocket's `Origin` applies the same rule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from chassis.errors import Forbidden
from gateway.http.calls import IncomingRequest

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
# Browsers omit the default port.
_USUAL_PORT = re.compile(r"http:.*:80|https:.*:443")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# The headers that a page may send besides the CORS-safelisted ones.
_REQUEST_HEADERS = (
    "Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match",
    "Last-Event-ID", "Prefer", "Request-Timeout", "Traceparent", "X-API-Key", "X-Request-Id",
)  # fmt: skip
_ANSWER_HEADERS = (
    "Location", "ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "Idempotent-Replayed",
    "Preference-Applied", "Upload-Offset", "X-Next-Cursor", "X-Results-Complete",
)  # fmt: skip
# How long browsers may cache a preflight response; none accepts more than a day.
_PREFLIGHT_S = 3600


def read_origins(text: str) -> tuple[str, ...]:
    """Return the origins in `text`, separated by commas, as browsers write them. Raise `ValueError`."""
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin) or _USUAL_PORT.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is not an origin as browsers send it: scheme and host in lower case, the port "
                "only if it is not the default, no path and no *"
            )
    return origins


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return `app` with CORS for `origins`, without credentials."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_ANSWER_HEADERS,
        max_age=_PREFLIGHT_S,
    )


def require_origin(request: IncomingRequest, origins: Collection[str]) -> None:
    """Raise `Forbidden` for a WebSocket opened by a page of a foreign origin.

    Clients other than browsers send no `Origin`. The gateway's own pages have its host; behind a proxy the
    scheme may differ.
    """
    origin = request.header(b"origin")
    if origin is None or origin in origins or origin.partition("://")[2] == request.header(b"host"):
        return
    raise Forbidden("Pages of this origin may not connect: add it to GATEWAY_CORS_ORIGINS.")

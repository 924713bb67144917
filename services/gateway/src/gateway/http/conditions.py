"""Conditional requests: which version of a thing a request is about (RFC 9110, section 13)."""

from __future__ import annotations

from werkzeug.datastructures import ETags
from werkzeug.http import parse_etags

from gateway.errors import PreconditionFailed, PreconditionNotSupported, PreconditionRequired
from gateway.http.calls import IncomingRequest
from gateway.http.endpoints import Endpoint, Precondition


def if_match(endpoint: Endpoint, request: IncomingRequest) -> ETags | None:
    """Return the versions that the caller has read.

    Raise `PreconditionRequired` if the route requires the header, and `PreconditionNotSupported` for a
    condition that would be ignored. `If-Match: *` matches every existing object.
    """
    header = request.short_header(b"if-match")
    is_read = endpoint.method == "GET"
    has_versions = endpoint.is_tagged if is_read else endpoint.precondition is not Precondition.NONE
    is_compared = has_versions or header in (None, "*")
    if not is_compared or (not is_read and b"if-none-match" in request.headers):
        raise PreconditionNotSupported(
            f"{endpoint.method} {endpoint.template} would not heed "
            f"{'If-None-Match' if is_compared else 'If-Match'}: leave it out."
        )
    if header is None and endpoint.precondition is Precondition.REQUIRED:
        raise PreconditionRequired(
            "Several people may edit this: send the ETag that you read as If-Match, or * to overwrite."
        )
    return None if header is None else parse_etags(header)


def require_current(request: IncomingRequest, etag: str | None) -> None:
    """Raise `PreconditionFailed` if the caller wants to read other versions than `etag` (quoted)."""
    header = request.short_header(b"if-match")
    if header in (None, "*") or (etag is not None and parse_etags(header).contains(etag[1:-1])):
        return
    current = "none" if etag is None else etag
    raise PreconditionFailed(f"The current version is {current}; leave If-Match out to read it.")


def knows(request: IncomingRequest, etag: str) -> bool:
    """Return whether the caller already has the version `etag` (quoted)."""
    header = request.short_header(b"if-none-match")
    return header is not None and (header == etag or parse_etags(header).contains_weak(etag[1:-1]))

"""Problem documents (RFC 9457): errors as clients read them. No web framework is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chassis import plain, tracing, validation
from chassis.errors import ServiceError
from contracts.message import FieldError

PROBLEM = "application/problem+json"
# A name may be as long as its document, and be part of the pointers of many errors.
MOST_NAME = 200
# On every response that is not a page, including those that the server sends before the application runs.
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def problem(error: ServiceError) -> dict[str, Any]:
    """Return `error` as a problem document; `instance` is the request's id."""
    trace = tracing.current()
    document: dict[str, Any] = {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if trace is not None:
        document["instance"] = trace.request_id
    if error.errors:
        document["errors"] = [{"pointer": e.pointer, "detail": e.detail} for e in error.errors]
    return document


def problem_headers(error: ServiceError) -> dict[str, str]:
    """Return the headers that go with the problem document of `error`."""
    headers = {"content-type": PROBLEM, **error.headers}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    return headers


def pointer(location: tuple[int | str, ...]) -> str:
    """Return the names and indexes that lead to a value as a JSON pointer (RFC 6901); long names are cut."""
    parts = [plain.text(part, most=MOST_NAME).replace("~", "~0").replace("/", "~1") for part in location]
    return "".join(f"/{part}" for part in parts)


def field_errors(problems: Sequence[Any]) -> list[FieldError]:
    """Return pydantic's first 20 errors with a JSON pointer for each field."""
    return [FieldError(pointer=pointer(p["loc"]), detail=validation.words(p)) for p in problems[:20]]

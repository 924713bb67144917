"""The problem types that an operation can answer with: declared ones, and those that follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from contracts import problems
from contracts.problems import ProblemType
from gateway.http.endpoints import Endpoint, Idempotency, Precondition

# Any request can end like this, before its operation is known.
EVERYWHERE = (
    "malformed-request",
    "request-timeout",
    "uri-too-long",
    "request-header-fields-too-large",
    "too-many-connections",
    "overloaded",
    "invalid-input",
    "internal",
)
# Only requests that no operation describes end like this.
OUTSIDE = (
    "method-not-allowed",
    "expectation-failed",
    "upgrade-required",
    "method-not-implemented",
    "not-implemented",
    "http-version-not-supported",
)


def of(endpoint: Endpoint) -> list[ProblemType]:
    """Return the problem types that `endpoint` can answer with, by status and code."""
    codes = {*EVERYWHERE, *_declared(endpoint), *_implied(endpoint)}
    return sorted((problems.of(code) for code in codes), key=lambda problem: (problem.status, problem.code))


def by_status(endpoint: Endpoint) -> Mapping[int, list[ProblemType]]:
    """Return the problem types of `endpoint` for each status."""
    return {
        status: list(found) for status, found in groupby(of(endpoint), key=lambda problem: problem.status)
    }


def operations(code: str, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Return those of `endpoints` that can answer with the problem type `code`."""
    return [endpoint for endpoint in endpoints if code in {problem.code for problem in of(endpoint)}]


def _declared(endpoint: Endpoint) -> Iterator[str]:
    for error in endpoint.errors:
        yield error.code


def _implied(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.media_types:
        yield "not-acceptable"
    if not endpoint.is_public:
        yield from ("unauthenticated", "database-unavailable")
    if endpoint.scope is not None:
        yield "forbidden"
    if endpoint.path_parameters:
        yield "not-found"
    if endpoint.has_deadline:
        yield "deadline-exceeded"
    if endpoint.takes_body:
        yield from ("malformed-input", "payload-too-large", "unsupported-media-type")
    if endpoint.upload is not None:
        yield "upload-stalled"
    if endpoint.idempotency is Idempotency.NONE:
        yield "idempotency-not-supported"
    else:
        yield from ("idempotency-running", "idempotency-mismatch")
    if endpoint.precondition is not Precondition.NONE:
        yield "precondition-failed"
    if endpoint.precondition is Precondition.REQUIRED:
        yield "precondition-required"

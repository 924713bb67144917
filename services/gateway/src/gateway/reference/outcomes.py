"""The problem types that an operation can answer with: those declared, and those implied."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from contracts import problems
from contracts.problems import ProblemType
from gateway.http.endpoints import Endpoint, Idempotency, Precondition

# Every request can fail with these, before its operation is known.
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
# Only requests that match no operation fail with these.
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
    codes = {*EVERYWHERE, "deadline-exceeded", *(error.code for error in endpoint.errors)}
    if endpoint.media_types:
        codes.add("not-acceptable")
    if not endpoint.is_public:
        codes |= {"unauthenticated", "database-unavailable", "rate-limited", "too-many-at-once"}
    if endpoint.scope is not None:
        codes.add("forbidden")
    if endpoint.path_parameters:
        codes.add("not-found")
    if endpoint.takes_body:
        codes |= {"malformed-input", "payload-too-large", "unsupported-media-type"}
    if endpoint.upload is not None:
        codes.add("upload-stalled")
    if endpoint.idempotency is Idempotency.NONE:
        codes.add("idempotency-not-supported")
    else:
        codes |= {"idempotency-running", "idempotency-mismatch"}
    if endpoint.method != "GET" or not endpoint.is_tagged:
        codes.add("precondition-not-supported")
    if endpoint.precondition is not Precondition.NONE or (endpoint.method == "GET" and endpoint.is_tagged):
        codes.add("precondition-failed")
    if endpoint.precondition is Precondition.REQUIRED:
        codes.add("precondition-required")
    if "service-unavailable" in codes:
        # Whoever asks another service needs the broker.
        codes.add("broker-unavailable")
    return sorted((problems.of(code) for code in codes), key=lambda problem: (problem.status, problem.code))


def by_status(endpoint: Endpoint) -> Mapping[int, list[ProblemType]]:
    """Return the problem types of `endpoint` for each status."""
    return {
        status: list(found) for status, found in groupby(of(endpoint), key=lambda problem: problem.status)
    }

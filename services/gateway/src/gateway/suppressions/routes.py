"""`/v1/suppressions`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import DatabaseUnavailable, NotFound, Unavailable
from contracts import problems
from contracts.scopes import Scope
from contracts.suppressions import Suppression
from gateway.acceptance.inputs import EXAMPLE_ID
from gateway.http.endpoints import CONTENT_TAG, Endpoint, delete, get, json, nothing, post, rows
from gateway.http.filters import BulkResult
from gateway.http.replies import CSV, NDJSON
from gateway.suppressions.inputs import ADDED, IMPORTED, LIFTED, ImportResult, SuppressionList
from gateway.suppressions.service import SuppressionService

_FULL = problems.of("too-many-suppressions")


def endpoints(service: SuppressionService) -> Iterator[Endpoint]:
    """Yield the endpoints of suppressions."""
    yield post(
        "/v1/suppressions",
        service.add,
        name="addSuppression",
        summary="Suppress an address: no more mail is sent to it",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={201: json(Suppression, optional={"Location": "the suppression"}, excerpt=ADDED)},
        errors=(DatabaseUnavailable, Unavailable, _FULL),
        examples={
            "an address": {"address": "ann@example.com", "reason": "asked on the phone"},
            "newsletters only": {"address": "bob@example.com", "stream": "bulk"},
        },
    )
    yield get(
        "/v1/suppressions",
        service.list,
        name="listSuppressions",
        summary="List or export your suppressions, newest first",
        tag="E-mail",
        scope=Scope.EMAILS_READ,
        answers={200: rows(SuppressionList, item=Suppression)},
        errors=(Unavailable,),
    )
    yield from _many(service)
    yield get(
        "/v1/suppressions/<uuid:suppression_id>",
        service.get,
        name="getSuppression",
        summary="Read a suppression",
        tag="E-mail",
        scope=Scope.EMAILS_READ,
        answers={200: json(Suppression, headers=CONTENT_TAG)},
        errors=(NotFound, Unavailable),
        examples={"suppression_id": EXAMPLE_ID},
    )
    yield delete(
        "/v1/suppressions/<uuid:suppression_id>",
        service.lift,
        name="liftSuppression",
        summary="Lift a suppression",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={204: nothing()},
        errors=(NotFound, DatabaseUnavailable, Unavailable),
        examples={"suppression_id": EXAMPLE_ID},
    )


def _many(service: SuppressionService) -> Iterator[Endpoint]:
    yield post(
        "/v1/suppressions/import",
        service.import_lines,
        name="importSuppressions",
        summary="Import suppressions from a list of up to 10,000 lines",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        takes=(NDJSON, CSV),
        answers={200: json(ImportResult, excerpt=IMPORTED)},
        errors=(DatabaseUnavailable, Unavailable, _FULL),
        examples={
            "two addresses": '{"address":"ann@example.com"}\n{"address":"bob@example.com","stream":"bulk"}\n'
        },
    )
    yield post(
        "/v1/suppressions/lift",
        service.lift_matching,
        name="liftSuppressions",
        summary="Lift the suppressions that match a filter",
        tag="E-mail",
        scope=Scope.EMAILS_SEND,
        answers={200: json(BulkResult, excerpt=LIFTED)},
        errors=(DatabaseUnavailable, Unavailable),
        examples={"origin": "reply", "dry_run": "true"},
    )

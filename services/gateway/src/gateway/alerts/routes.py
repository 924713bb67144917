"""`/v1/alerts`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import DatabaseUnavailable, Forbidden, NotFound, Unavailable
from contracts import problems
from contracts.scopes import Scope
from gateway.acceptance.inputs import EXAMPLE_ID
from gateway.alerts.inputs import AlertList, AlertView
from gateway.alerts.service import AlertService
from gateway.http.endpoints import CONTENT_TAG, Endpoint, delete, get, json, nothing, post

_UNMADE = tuple(
    problems.of(code) for code in ("unknown-symbol", "invalid-symbol", "no-live-feed", "too-many-alerts")
)


def endpoints(service: AlertService) -> Iterator[Endpoint]:
    """Yield the endpoints of price alerts."""
    yield post(
        "/v1/alerts",
        service.create,
        name="createAlert",
        summary="Create an alert that fires when a price crosses a threshold",
        tag="Alerts",
        scope=Scope.ALERTS_WRITE,
        answers={201: json(AlertView, headers={"Location": "the alert"})},
        errors=(Forbidden, DatabaseUnavailable, Unavailable, *_UNMADE),
        examples={
            "above": {"symbol": "AAPL", "condition": {"above": 600}},
            "a mail when it falls by 5 %": {
                "symbol": "AAPL",
                "condition": {"change_percent": -5},
                "notify": [{"email": "ann@example.com"}],
                "once": False,
            },
        },
    )
    yield get(
        "/v1/alerts",
        service.list,
        name="listAlerts",
        summary="List your price alerts, newest first",
        tag="Alerts",
        scope=Scope.ALERTS_READ,
        answers={200: json(AlertList)},
        errors=(Unavailable,),
    )
    yield from _one(service)


def _one(service: AlertService) -> Iterator[Endpoint]:
    yield get(
        "/v1/alerts/<uuid:alert_id>",
        service.get,
        name="getAlert",
        summary="Read a price alert and its last firing",
        tag="Alerts",
        scope=Scope.ALERTS_READ,
        answers={200: json(AlertView, headers=CONTENT_TAG)},
        errors=(NotFound, Unavailable),
        examples={"alert_id": EXAMPLE_ID},
    )
    yield delete(
        "/v1/alerts/<uuid:alert_id>",
        service.delete,
        name="deleteAlert",
        summary="End a price alert",
        tag="Alerts",
        scope=Scope.ALERTS_WRITE,
        answers={204: nothing()},
        errors=(NotFound, DatabaseUnavailable, Unavailable),
        examples={"alert_id": EXAMPLE_ID},
    )

"""`/v1/overview`: the declared endpoint."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.http.endpoints import Endpoint, get, json
from gateway.overview.inputs import Overview
from gateway.overview.service import OverviewService


def endpoints(service: OverviewService) -> Iterator[Endpoint]:
    """Yield the endpoint of the overview."""
    yield get(
        "/v1/overview",
        service.get,
        name="getOverview",
        summary="Read quotes, and your batches and mails by status, in one answer",
        tag="Overview",
        scope=None,
        answers={200: json(Overview)},
    )

"""`/v1/me/usage`: the declared endpoint."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.http.endpoints import Endpoint, get, json
from gateway.limits.inputs import LimitUsage
from gateway.limits.service import LimitService


def endpoints(service: LimitService) -> Iterator[Endpoint]:
    """Yield the endpoint of limits."""
    yield get(
        "/v1/me/usage",
        service.usage,
        name="getUsage",
        summary="Read what the calling key has used of its limits",
        tag="Users",
        scope=None,
        answers={200: json(LimitUsage)},
    )

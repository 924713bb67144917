"""The SSE twins of the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from quart import Response, request

from chassis import logging
from chassis.deadlines import Deadline
from chassis.errors import ServiceError
from contracts.scopes import Scope
from gateway.batches.routes import BatchService
from gateway.http.endpoint import Api, is_head
from gateway.http.principal import Principal
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.event_stream import events
from gateway.realtime.hub import Hub
from gateway.realtime.positions import Position
from gateway.realtime.publications import Publication

log = logging.get(__name__)

EVENT_STREAM = "text/event-stream"
_LOOK_S = 5.0
_ENDED = ("completed", "failed", "cancelled", "expired")


def register(api: Api, hub: Hub, batches: BatchService, *, limit: ConnectionLimit) -> None:
    """Serve the routes."""

    @api.route("/v1/batches/<uuid:batch_id>/events", scope=Scope.BATCHES_READ)
    async def batch_events(principal: Principal, batch_id: UUID) -> Response:
        limit.require_room(principal.owner_id)
        batch = await batches.get(principal, batch_id, "batch", api.deadline())

        async def look_again() -> Sequence[Publication]:
            try:
                now = await batches.get(principal, batch_id, "batch", Deadline.after(_LOOK_S))
            except ServiceError as error:
                # The stream lives on with what it has: the next look may tell more.
                log.debug("batch not read", batch_id=str(batch_id), reason=error.detail)
                return []
            return [_state(batch_id, now)]

        stream = events(
            hub,
            [_state(batch_id, batch)],
            name="batch",
            owner=principal.owner_id,
            limit=limit,
            last_event_id=request.headers.get("last-event-id"),
            look_again=look_again,
            is_last=lambda data: data["status"] in _ENDED,
        )
        response = Response(b"" if is_head() else stream, content_type=EVENT_STREAM)
        response.headers["cache-control"] = "no-store"
        response.headers["x-accel-buffering"] = "no"
        response.timeout = None
        return response


def _state(batch_id: UUID, batch: dict[str, Any]) -> Publication:
    return Publication(f"batch:{batch_id}", Position(str(batch_id), 0), batch)

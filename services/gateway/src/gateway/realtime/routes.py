"""The SSE twins of the channels: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from chassis import logging
from chassis.deadlines import Deadline
from chassis.errors import DatabaseUnavailable, NotFound, Overloaded, ServiceError
from contracts.scopes import Scope
from gateway.batches.inputs import BatchView
from gateway.batches.service import BatchService
from gateway.http import endpoints as declared
from gateway.http.calls import Call
from gateway.http.endpoints import Endpoint, get
from gateway.http.replies import EVENT_STREAM, Reply
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.event_stream import events
from gateway.realtime.hub import Hub
from gateway.realtime.positions import Position
from gateway.realtime.publications import Publication

log = logging.get(__name__)

_LOOK_S = 5.0
_ENDED = ("completed", "failed", "cancelled", "expired")


class EventStreams:
    """Streams what a channel shows to those who cannot open a WebSocket."""

    def __init__(self, hub: Hub, batches: BatchService, limit: ConnectionLimit) -> None:
        self._hub = hub
        self._batches = batches
        self._limit = limit

    async def follow_batch(self, call: Call, batch_id: UUID) -> Reply:
        """Stream the state of a batch until it has ended."""
        owner = call.principal.owner_id
        self._limit.require_room(owner)
        batch = await self._batches.get(call, batch_id)

        async def look_again() -> Sequence[Publication]:
            try:
                now = await self._batches.find(call.principal, batch_id, "batch", Deadline.after(_LOOK_S))
            except ServiceError as error:
                # The stream lives on with what it has: the next look may tell more.
                log.debug("batch not read", batch_id=str(batch_id), reason=error.detail)
                return []
            return [_state(batch_id, now)]

        stream = events(
            self._hub,
            [_state(batch_id, batch)],
            name="batch",
            owner=owner,
            limit=self._limit,
            last_event_id=call.last_event_id,
            look_again=look_again,
            is_last=lambda data: data["status"] in _ENDED,
        )
        return Reply(stream, media_type=EVENT_STREAM, headers={"x-accel-buffering": "no"})


def endpoints(streams: EventStreams) -> Iterator[Endpoint]:
    """Yield the streams of server-sent events."""
    yield get(
        "/v1/batches/<uuid:batch_id>/events",
        streams.follow_batch,
        name="followBatch",
        summary="Follow a batch until it has ended",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={200: declared.events(item=BatchView)},
        errors=(NotFound, Overloaded, DatabaseUnavailable),
    )


def _state(batch_id: UUID, batch: dict[str, Any]) -> Publication:
    return Publication(f"batch:{batch_id}", Position(str(batch_id), 0), batch)

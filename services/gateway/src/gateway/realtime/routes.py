"""`/v1/rooms` and the SSE twin of a batch; the WebSockets are in `sockets`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field
from quart import Quart, Response

from chassis import logging
from chassis.deadlines import Deadline
from chassis.errors import Conflict, NotFound, ServiceError
from gateway.batches.routes import BatchService
from gateway.chat.repository import Room
from gateway.http.endpoint import Api, answer, is_head, read_json, read_query
from gateway.http.principal import Principal
from gateway.http.strict_json import MOST_ID
from gateway.realtime import sockets
from gateway.realtime.channels import Channels, is_room
from gateway.realtime.hub import Publication
from gateway.realtime.sockets import ConnectionLimit

log = logging.get(__name__)

EVENT_STREAM = "text/event-stream"
_SSE_ALIVE_S = 15.0
# The batch may have ended between the first look at it and the first push that was heard.
_FIRST_LOOK_S = 0.5
_ENDED = ("completed", "failed", "cancelled", "expired")


class RoomInput(BaseModel):
    """The body of `POST /v1/rooms`."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class RoomsQuery(BaseModel):
    """The query of `GET /v1/rooms`; the cursor is the last name seen."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str = Field(default="", max_length=64)


class MessagesQuery(BaseModel):
    """The query of `GET /v1/rooms/{room}/messages`: newest first, before the offset `cursor`."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(default=50, ge=1, le=300)
    cursor: int = Field(default=MOST_ID, ge=1, le=MOST_ID)


class MessageInput(BaseModel):
    """The body of `POST /v1/rooms/{room}/messages`."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(min_length=1, max_length=4000)]


def register(
    app: Quart,
    api: Api,
    channels: Channels,
    batches: BatchService,
    *,
    limit: ConnectionLimit,
    buffer_bytes: int,
) -> None:
    """Serve the routes."""
    _register_rooms(api, channels)

    sockets.register(app, api, channels, limit=limit, buffer_bytes=buffer_bytes)

    @api.route("/v1/batches/<uuid:batch_id>/events", scope="batches:read")
    async def batch_events(principal: Principal, batch_id: UUID) -> Response:
        limit.require_room()
        first = await batches.get(principal, batch_id, "batch", api.deadline())
        events = _batch_events(channels, batches, principal, batch_id, first, limit)
        response = Response(b"" if is_head() else events, content_type=EVENT_STREAM)
        response.headers["cache-control"] = "no-store"
        response.timeout = None
        return response


def _register_rooms(api: Api, channels: Channels) -> None:
    repository = channels.chat.repository

    @api.route("/v1/rooms", scope=None)
    async def list_rooms(_: Principal) -> Response:
        query = read_query(RoomsQuery)
        rooms = await repository.page(query.cursor, query.limit + 1)
        page = rooms[: query.limit]
        following = page[-1].name if len(rooms) > query.limit else None
        return answer({"data": [_room(room) for room in page], "next_cursor": following})

    @api.route("/v1/rooms", methods=("POST",), scope="chat:write")
    async def post_room(principal: Principal) -> Response:
        wanted = await read_json(RoomInput)
        room = await repository.create(wanted.name, principal.owner_id)
        if room is None:
            raise Conflict(f"There is a room {wanted.name!r} already.")
        return answer(_room(room), 201, {"location": f"/v1/rooms/{room.name}"})

    @api.route("/v1/rooms/<room>/messages", scope=None)
    async def list_messages(_: Principal, room: str) -> Response:
        query = read_query(MessagesQuery)
        await repository.get(_existing(room))
        newest = await repository.before(room, query.cursor, query.limit + 1)
        page = newest[: query.limit]
        following = str(page[-1].offset) if len(newest) > query.limit else None
        return answer({"data": [_message(m) for m in page], "next_cursor": following})

    @api.route("/v1/rooms/<room>/messages", methods=("POST",), scope="chat:write")
    async def post_message(principal: Principal, room: str) -> Response:
        wanted = await read_json(MessageInput)
        message = await channels.chat.post(_existing(room), principal, {"text": wanted.text})
        return answer(_message(message), 201)


async def _batch_events(
    channels: Channels,
    batches: BatchService,
    principal: Principal,
    batch_id: UUID,
    first: dict[str, Any],
    limit: ConnectionLimit,
) -> AsyncIterator[bytes]:
    # Progress replaces progress: a slow reader skips, it never piles up.
    latest: asyncio.Queue[Publication] = asyncio.Queue(maxsize=1)

    def show(publication: Publication) -> None:
        if latest.full():
            latest.get_nowait()
        latest.put_nowait(publication)

    stop = channels.hub.listen(f"batch:{batch_id}", show)
    try:
        with limit.admit("sse"):
            offset, batch, patience_s = 0, first, _FIRST_LOOK_S
            yield _event(offset, batch)
            while batch["status"] not in _ENDED:
                pushed = await _next_push(latest, patience_s)
                # Pushes are transient: silence is checked against what is stored.
                now = pushed.data if pushed else await _batch_now(batches, principal, batch_id)
                offset, batch = pushed.offset if pushed else offset, now or batch
                patience_s = _SSE_ALIVE_S
                yield _event(offset, batch)
    finally:
        stop()


async def _next_push(pushes: asyncio.Queue[Publication], patience_s: float) -> Publication | None:
    try:
        return await asyncio.wait_for(pushes.get(), patience_s)
    except TimeoutError:
        return None


async def _batch_now(batches: BatchService, principal: Principal, batch_id: UUID) -> dict[str, Any] | None:
    try:
        return await batches.get(principal, batch_id, "batch", Deadline.after(5))
    except ServiceError as error:
        # The stream lives on with what it has: the next look may tell more.
        log.debug("batch not read", batch_id=str(batch_id), reason=error.detail)
        return None


def _event(offset: int, batch: dict[str, Any]) -> bytes:
    data = orjson.dumps(batch, option=orjson.OPT_UTC_Z)
    return b"event: batch\nid: " + str(offset).encode() + b"\ndata: " + data + b"\n\n"


def _existing(name: str) -> str:
    if not is_room(name):
        raise NotFound(f"There is no room {name[:100]!r}.")
    return name


def _room(room: Room) -> dict[str, Any]:
    return {
        "name": room.name,
        "epoch": room.epoch,
        "last_offset": room.last_offset,
        "created_by": room.created_by,
        "created_at": room.created_at,
    }


def _message(message: Any) -> dict[str, Any]:
    return {
        **message.data,
        "offset": message.offset,
        "user_id": message.user_id,
        "user": message.user_name,
        "created_at": message.created_at,
    }

"""`/v1/realtime` (WebSocket), `/ws`, `/v1/rooms` and the SSE twin of a batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field
from quart import Quart, Response, websocket

from chassis import logging, metrics
from chassis.deadlines import Deadline
from chassis.errors import Conflict, Overloaded, ServiceError, Unauthenticated
from gateway.acceptance.batch_routes import BatchDesk
from gateway.endpoint import Api, answer, read_json, read_query, token
from gateway.identity.keys import Principal
from gateway.realtime.channels import Channels
from gateway.realtime.hub import Publication
from gateway.realtime.repository import Room
from gateway.realtime.session import PING_S, SLOW, UNAUTHENTICATED, CloseConnection, Session

log = logging.get(__name__)

_CONNECT_WITHIN_S = 10
_SSE_ALIVE_S = 15.0
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
    cursor: int = Field(default=2**62, ge=1)


class MessageInput(BaseModel):
    """The body of `POST /v1/rooms/{room}/messages`."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(min_length=1, max_length=4000)]


class Doorman:
    """Counts WebSocket and SSE connections and lets no more in than fit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0

    @contextlib.contextmanager
    def admit(self, transport: str) -> Any:
        """Hold a place for one connection; raises `Overloaded` when there is none."""
        if self._open >= self._most:
            raise Overloaded(
                "This gateway holds as many connections as it can; try another.", retry_after_s=5
            )
        self._open += 1
        metrics.SOCKETS.labels(transport).inc()
        try:
            yield
        finally:
            self._open -= 1
            metrics.SOCKETS.labels(transport).dec()


def register(
    app: Quart, api: Api, channels: Channels, batches: BatchDesk, *, doorman: Doorman, buffer_bytes: int
) -> None:
    """Serve the routes."""
    _register_rooms(api, channels)

    @app.websocket("/v1/realtime")
    async def realtime() -> None:
        with doorman.admit("websocket"):
            await _serve(api, channels, buffer_bytes)

    @app.websocket("/ws")
    async def lobby() -> None:
        with doorman.admit("websocket"):
            await _serve_lobby(api, channels)

    @api.route("/v1/batches/<uuid:batch_id>/events", scope="batches:read")
    async def batch_events(principal: Principal, batch_id: UUID) -> Response:
        first = await batches.get(principal, batch_id, "batch", api.deadline())
        events = _batch_events(channels, batches, principal, batch_id, first, doorman)
        response = Response(events, content_type="text/event-stream")
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
        await repository.get(room)
        newest = await repository.before(room, query.cursor, query.limit + 1)
        page = newest[: query.limit]
        following = str(page[-1].offset) if len(newest) > query.limit else None
        return answer({"data": [_message(m) for m in page], "next_cursor": following})

    @api.route("/v1/rooms/<room>/messages", methods=("POST",), scope="chat:write")
    async def post_message(principal: Principal, room: str) -> Response:
        wanted = await read_json(MessageInput)
        message = await channels.chat.post(room, principal, {"text": wanted.text})
        return answer(_message(message), 201)


async def _serve(api: Api, channels: Channels, buffer_bytes: int) -> None:
    principal = await _principal_of_upgrade(api)
    await websocket.accept()
    session = Session(channels, api.keyring.authenticate, principal=principal, buffer_bytes=buffer_bytes)
    tasks = [
        asyncio.create_task(_read(session)),
        asyncio.create_task(_write(session)),
        asyncio.create_task(_watch(session)),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except CloseConnection as closing:
        metrics.SOCKETS_CLOSED.labels(str(closing.code)).inc()
        await websocket.close(closing.code, closing.reason[:100])
    finally:
        session.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _principal_of_upgrade(api: Api) -> Principal | None:
    if token(websocket.headers) is None:
        return None
    return await api.authenticate(websocket)


async def _read(session: Session) -> None:
    while True:
        frame: str | bytes = await websocket.receive()
        await session.receive(frame)


async def _write(session: Session) -> None:
    while True:
        frames = await session.mailbox.take()
        if session.mailbox.overflowed:
            raise CloseConnection(SLOW, "This connection reads too slowly; connect again and recover.")
        for frame in frames:
            await websocket.send(frame.decode())


async def _watch(session: Session) -> None:
    await asyncio.sleep(_CONNECT_WITHIN_S)
    if not session.is_connected:
        raise CloseConnection(UNAUTHENTICATED, f"No connect command within {_CONNECT_WITHIN_S} s.")
    while True:
        await asyncio.sleep(PING_S)
        session.alive()


async def _serve_lobby(api: Api, channels: Channels) -> None:
    """A chat line in, `Message received: <line>` out: to the sender and to everyone in the lobby."""
    principal = await _principal_of_upgrade(api)
    if principal is None:
        raise Unauthenticated("Send your API key with the upgrade.")
    await websocket.accept()
    await channels.chat.follow("lobby")
    lines: asyncio.Queue[str] = asyncio.Queue(maxsize=1000)

    def heard(publication: Publication) -> None:
        # A reader that is a thousand lines behind loses lines here; `/v1/realtime` recovers them.
        if not lines.full():
            lines.put_nowait(f"Message received: {publication.data['text']}")

    async def write() -> None:
        while True:
            await websocket.send(await lines.get())

    stop = channels.hub.listen("chat:lobby", heard)
    writer = asyncio.create_task(write())
    try:
        while True:
            await _take_line(channels, principal, await websocket.receive(), lines)
    finally:
        stop()
        writer.cancel()


async def _take_line(
    channels: Channels, principal: Principal, line: str | bytes, lines: asyncio.Queue[str]
) -> None:
    text = line if isinstance(line, str) else line.decode("utf-8", "replace")
    try:
        await channels.chat.post("lobby", principal, {"text": text})
    except ServiceError as error:
        await lines.put(f"Error: {error.detail}")


async def _batch_events(
    channels: Channels,
    batches: BatchDesk,
    principal: Principal,
    batch_id: UUID,
    first: dict[str, Any],
    doorman: Doorman,
) -> AsyncIterator[bytes]:
    # Progress replaces progress: a slow reader skips, it never piles up.
    latest: asyncio.Queue[Publication] = asyncio.Queue(maxsize=1)

    def show(publication: Publication) -> None:
        if latest.full():
            latest.get_nowait()
        latest.put_nowait(publication)

    stop = channels.hub.listen(f"batch:{batch_id}", show)
    try:
        with doorman.admit("sse"):
            offset, batch = 0, first
            yield _event(offset, batch)
            while batch["status"] not in _ENDED:
                try:
                    publication = await asyncio.wait_for(latest.get(), _SSE_ALIVE_S)
                    offset, batch = publication.offset, publication.data
                except TimeoutError:
                    # Pushes are transient: silence is checked against what is stored.
                    batch = await batches.get(principal, batch_id, "batch", Deadline.after(5))
                yield _event(offset, batch)
    finally:
        stop()


def _event(offset: int, batch: dict[str, Any]) -> bytes:
    data = orjson.dumps(batch, option=orjson.OPT_UTC_Z)
    return b"event: batch\nid: " + str(offset).encode() + b"\ndata: " + data + b"\n\n"


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
        "offset": message.offset,
        "user_id": message.user_id,
        "user": message.user_name,
        **message.data,
        "created_at": message.created_at,
    }

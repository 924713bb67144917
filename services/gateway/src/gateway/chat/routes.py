"""`/v1/rooms`: chat rooms and their messages over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from quart import Response

from chassis.errors import Conflict, NotFound
from contracts.scopes import Scope
from gateway.chat.repository import ChatMessage, Room
from gateway.chat.service import ChatService, is_room
from gateway.http.endpoint import Api, answer, read_json, read_query
from gateway.http.principal import Principal
from gateway.http.strict_json import MOST_ID


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
    """The body of `POST /v1/rooms/{room}/messages`; sending the same `id` again changes nothing."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(min_length=1, max_length=4000)]
    id: Annotated[str, Field(min_length=1, max_length=64)] | None = None


def register(api: Api, chat: ChatService) -> None:
    """Serve the routes."""
    repository = chat.repository

    @api.route("/v1/rooms", scope=Scope.CHAT_READ)
    async def list_rooms(_: Principal) -> Response:
        query = read_query(RoomsQuery)
        rooms = await repository.page(query.cursor, query.limit + 1)
        page = rooms[: query.limit]
        following = page[-1].name if len(rooms) > query.limit else None
        return answer({"data": [_room(room) for room in page], "next_cursor": following})

    @api.route("/v1/rooms", methods=("POST",), scope=Scope.CHAT_WRITE)
    async def post_room(principal: Principal) -> Response:
        wanted = await read_json(RoomInput)
        room = await repository.create(wanted.name, principal.owner_id)
        if room is None:
            raise Conflict(f"There is a room {wanted.name!r} already.")
        return answer(_room(room), 201, {"location": f"/v1/rooms/{room.name}"})

    @api.route("/v1/rooms/<room>/messages", scope=Scope.CHAT_READ)
    async def list_messages(_: Principal, room: str) -> Response:
        query = read_query(MessagesQuery)
        await repository.get(_existing(room))
        newest = await repository.before(room, query.cursor, query.limit + 1)
        page = newest[: query.limit]
        following = str(page[-1].offset) if len(newest) > query.limit else None
        return answer({"data": [_message(m) for m in page], "next_cursor": following})

    @api.route("/v1/rooms/<room>/messages", methods=("POST",), scope=Scope.CHAT_WRITE)
    async def post_message(principal: Principal, room: str) -> Response:
        wanted = await read_json(MessageInput)
        message = await chat.post(_existing(room), principal, wanted.model_dump(exclude_none=True))
        return answer(_message(message), 201)


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


def _message(message: ChatMessage) -> dict[str, Any]:
    return {
        **message.data,
        "offset": message.offset,
        "user_id": message.user_id,
        "user": message.user_name,
        "created_at": message.created_at,
    }

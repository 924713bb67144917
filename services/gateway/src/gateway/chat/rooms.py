"""Chat rooms over HTTP: list, create, read, post."""

from __future__ import annotations

from typing import Any

from chassis.errors import Conflict, NotFound
from contracts.scopes import Scope
from gateway.chat.inputs import (
    MessageInput,
    MessagesQuery,
    RoomInput,
    RoomsQuery,
    message_view,
)
from gateway.chat.repository import Room
from gateway.chat.service import ChatService, is_room
from gateway.http.calls import Call
from gateway.http.replies import Reply, document


class RoomService:
    """Serves chat rooms to those who may read or write in them."""

    def __init__(self, chat: ChatService) -> None:
        self._chat = chat
        self._repository = chat.repository

    async def list(self, call: Call, query: RoomsQuery) -> dict[str, Any]:
        """Return a page of rooms by name."""
        call.principal.require(Scope.CHAT_READ)
        rooms = await self._repository.page(query)
        page = rooms[: query.limit]
        following = page[-1].name if len(rooms) > query.limit else None
        return {"data": [_room(room) for room in page], "next_cursor": following}

    async def create(self, call: Call, body: RoomInput) -> Reply:
        """Make a room. Raise `Conflict` when there is one of that name."""
        call.principal.require(Scope.CHAT_WRITE)
        room = await self._repository.create(call.connection, body.name, call.principal.owner_id)
        if room is None:
            raise Conflict(f"There is a room {body.name!r} already.")
        return Reply(document(_room(room)), location=f"/v1/rooms/{room.name}")

    async def messages(self, call: Call, room: str, query: MessagesQuery) -> dict[str, Any]:
        """Return a page of messages, newest first."""
        call.principal.require(Scope.CHAT_READ)
        await self._repository.get(_existing(room))
        newest = await self._repository.before(room, query.cursor, query.limit + 1)
        page = newest[: query.limit]
        following = str(page[-1].offset) if len(newest) > query.limit else None
        return {"data": [message_view(message) for message in page], "next_cursor": following}

    async def post(self, call: Call, room: str, body: MessageInput) -> Reply:
        """Append a message, and show it to everybody once it is stored."""
        call.principal.require(Scope.CHAT_WRITE)
        data = body.model_dump(exclude_none=True)
        message = await self._chat.append(call.connection, _existing(room), call.principal, data)
        call.after_commit.append(lambda: self._chat.announce(message))
        return Reply(document(message_view(message)))


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

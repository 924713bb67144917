"""Chat rooms over HTTP: list, create, read, post, and manage the members of private rooms."""

from __future__ import annotations

from typing import Any

from chassis.errors import Conflict, Forbidden, NotFound
from chassis.paging import page_of
from chassis.postgres import Connection, Postgres
from contracts.scopes import Scope
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.chat import repository
from gateway.chat.inputs import (
    MemberChange,
    MemberInput,
    MembersQuery,
    MessageInput,
    MessagesQuery,
    Role,
    RoomInput,
    RoomsQuery,
    message_view,
)
from gateway.chat.repository import Member, Room
from gateway.chat.service import ChatService
from gateway.http.calls import Call
from gateway.http.replies import HttpReply, document, entity_tag
from gateway.http.strict_json import MOST_ID

_MOST_MEMBERS = 1000
MOST_ROOMS = 1000


class RoomService:
    """Serves chat rooms to callers who may read or post in them."""

    def __init__(self, postgres: Postgres, chat: ChatService, audit: AuditTrail) -> None:
        self._postgres = postgres
        self._chat = chat
        self._audit = audit

    async def list(self, call: Call, query: RoomsQuery) -> dict[str, Any]:
        """Return a page of the public rooms and of those with the caller as a member, by name."""
        call.principal.require(Scope.CHAT_READ)
        async with self._postgres.connection() as connection:
            page, following = await repository.page(connection, query, call.principal.user_id)
        return {"data": [_room(room) for room in page], "next_cursor": following}

    async def get(self, call: Call, room: str) -> dict[str, Any]:
        """Return a room, and the caller's role in it."""
        call.principal.require(Scope.CHAT_READ)
        return _room(await self._chat.room(room, call.principal))

    async def create(self, call: Call, body: RoomInput) -> HttpReply:
        """Create a room. Raise `Conflict` when the name is taken, or the caller has created enough."""
        call.principal.require(Scope.CHAT_WRITE)
        user_id = call.principal.user_id
        await repository.lock_rooms_of(call.connection, user_id)
        if await repository.count_rooms_of(call.connection, user_id, most=MOST_ROOMS) >= MOST_ROOMS:
            raise Conflict(f"You have created {MOST_ROOMS} rooms, which is the limit; use one of them.")
        room = await repository.create(
            call.connection, body.name, created_by=user_id, is_private=body.private
        )
        if room is None:
            raise Conflict(f"The name {body.name!r} is taken; choose another one for the room.")
        return HttpReply(document(_room(room)), location=f"/v1/rooms/{room.name}")

    async def messages(self, call: Call, room: str, query: MessagesQuery) -> dict[str, Any]:
        """Return a page of messages, newest first."""
        call.principal.require(Scope.CHAT_READ)
        await self._chat.room(room, call.principal)
        page = await self._chat.before(room, query.cursor, query.limit)
        # Offsets have no gaps and begin at 1, also where the page ends earlier because of its bytes.
        following = str(page[-1].offset) if page and page[-1].offset > 1 else None
        return {"data": [message_view(message) for message in page], "next_cursor": following}

    async def post(self, call: Call, room: str, body: MessageInput) -> HttpReply:
        """Append a message, and publish it once it is stored."""
        data = body.model_dump(exclude_none=True)
        message = await self._chat.append(call.connection, room, call.principal, data)
        call.after_commit.append(lambda: self._chat.announce(message))
        return HttpReply(document(message_view(message)))

    async def members(self, call: Call, room: str, query: MembersQuery) -> dict[str, Any]:
        """Return a page of the members of a private room; a public room has none."""
        call.principal.require(Scope.CHAT_READ)
        await self._chat.room(room, call.principal)
        async with self._postgres.connection() as connection:
            found = await repository.list_members(connection, room, query)
        page, following = page_of(found, query.limit, lambda member: str(member.user_id))
        return {"data": page, "next_cursor": following}

    async def member(self, call: Call, room: str, user_id: int) -> Member:
        """Return a member of a private room. Raise `NotFound` when the room has no such member."""
        call.principal.require(Scope.CHAT_READ)
        await self._chat.room(room, call.principal)
        async with self._postgres.connection() as connection:
            return await self._member(connection, room, user_id)

    async def put_member(self, call: Call, room: str, body: MemberInput) -> Member:
        """Add a user to a private room, or change the user's role.

        Raise `Forbidden` unless a manager asks, and `Conflict` for a public or full room and for the last
        manager.
        """
        call.principal.require(Scope.CHAT_WRITE)
        found = await self._locked(call.connection, call, room)
        if found.role != "manager":
            raise Forbidden(f"Only a manager of the room {room} may add members.")
        return await self._set_role(call.connection, call, room, body.user_id, body.role)

    async def change_member(self, call: Call, room: str, user_id: int, body: MemberChange) -> Member:
        """Change the role of a member at the version that the caller has read.

        Raise `NotFound` without such a member, `Forbidden` unless a manager asks, and `Conflict` for the last
        manager.
        """
        call.principal.require(Scope.CHAT_WRITE)
        async with self._postgres.transaction() as connection:
            found = await self._locked(connection, call, room)
            if found.role != "manager":
                raise Forbidden(f"Only a manager of the room {room} may change roles.")
            seen = await self._member(connection, room, user_id)
            call.require_match(entity_tag(document(seen)))
            if body.role in (None, seen.role):
                return seen
            return await self._set_role(connection, call, room, user_id, body.role)

    async def remove_member(self, call: Call, room: str, user_id: int) -> None:
        """Remove a member, whose subscriptions end; members may remove themselves.

        Raise `NotFound` without such a member, `Forbidden` unless a manager asks, and `Conflict` for the last
        manager.
        """
        call.principal.require(Scope.CHAT_WRITE)
        async with self._postgres.transaction() as connection:
            found = await self._locked(connection, call, room)
            if found.role != "manager" and user_id != call.principal.user_id:
                raise Forbidden(f"Only a manager of the room {room} may remove others.")
            seen = await self._member(connection, room, user_id)
            call.require_match(entity_tag(document(seen)))
            await repository.remove_member(connection, room, user_id)
            await self._require_good_order(connection, room)
            target, before = f"room:{room}", _audited(seen)
            await self._audit.record(
                connection, call.principal, Action.ROOM_MEMBER_REMOVED, target, before=before
            )
        await self._chat.announce_members(room)

    async def _locked(self, connection: Connection, call: Call, name: str) -> Room:
        """Return a private room as the caller sees it, with its members locked against other changes."""
        await self._chat.find(connection, name, call.principal)
        await repository.lock(connection, name)
        room = await self._chat.find(connection, name, call.principal)
        if not room.is_private:
            raise Conflict(f"The room {name} is public: it has no members, and everybody may enter.")
        return room

    async def _member(self, connection: Connection, room: str, user_id: int) -> Member:
        member = None if user_id > MOST_ID else await repository.find_member(connection, room, user_id)
        if member is None:
            raise NotFound(f"The room {room} has no member {user_id}.")
        return member

    async def _set_role(
        self, connection: Connection, call: Call, room: str, user_id: int, role: Role
    ) -> Member:
        """Store and audit the role of a user in a room that is locked."""
        seen = await repository.find_member(connection, room, user_id)
        member = await repository.put_member(connection, room, user_id, role)
        await self._require_good_order(connection, room)
        before, after = _audited(seen) if seen else None, _audited(member)
        await self._audit.record(
            *(connection, call.principal, Action.ROOM_MEMBER_CHANGED, f"room:{room}"),
            before=before,
            after=after,
        )
        return member

    async def _require_good_order(self, connection: Connection, room: str) -> None:
        members, managers = await repository.count_members(connection, room)
        if not managers:
            raise Conflict(f"The room {room} would have no manager; make another member a manager first.")
        if members > _MOST_MEMBERS:
            raise Conflict(f"The room {room} has {_MOST_MEMBERS} members, which is the limit.")


def _audited(member: Member) -> dict[str, Any]:
    return {"user_id": member.user_id, "role": member.role}


def _room(room: Room) -> dict[str, Any]:
    return {
        "name": room.name,
        "epoch": room.epoch,
        "last_offset": room.last_offset,
        "created_by": room.created_by,
        "created_at": room.created_at,
        "private": room.is_private,
        "role": room.role,
    }

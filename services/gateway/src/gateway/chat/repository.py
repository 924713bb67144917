"""Chat rooms, their members and messages in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from chassis import queries
from chassis.paging import page_of
from chassis.postgres import Connection, Row
from gateway.chat.inputs import MembersQuery, Role, RoomsQuery
from gateway.http.problems import invalid

_SQL = queries.of("gateway")

# Of the messages that are read at once: at least 30, as the largest has 16 KiB.
MOST_BYTES = 512 * 1024
# Public rooms, and those of its reader, that one page compares with times.
MOST_EXAMINED = 2000
_ROOMS_CLEANED_AT_ONCE = 100
_REMOVED_OF_ROOM = 50


@dataclass(frozen=True, slots=True)
class Room:
    """A chat room; offsets of its messages count from 1 within `epoch`.

    `role` is that of the user who requested the room, None for a user who is not a member.
    """

    name: str
    epoch: str
    last_offset: int
    created_by: str
    created_at: datetime
    is_private: bool = False
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a private room."""

    user_id: int
    role: Role
    added_at: datetime


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a room; `client` is the connection that has published it, None over HTTP."""

    room: str
    offset: int
    user_id: str
    user_name: str
    data: Any
    created_at: datetime
    client: str | None = None


async def create(connection: Connection, name: str, *, created_by: int, is_private: bool) -> Room | None:
    """Create a room, a private one with its creator as manager; return None if the name is taken."""
    row = await connection.fetchrow(_SQL["insert_room"], name, created_by, is_private)
    return Room(**row) if row else None


async def lock_rooms_of(connection: Connection, user_id: int) -> None:
    """Lock the creation of rooms by a user until the transaction ends."""
    await connection.execute(_SQL["lock_rooms_of"], user_id)


async def count_rooms_of(connection: Connection, user_id: int, *, most: int) -> int:
    """Return how many rooms a user has created, or `most` if there are more."""
    return int(await connection.fetchval(_SQL["count_rooms_of"], user_id, most))


async def find(connection: Connection, name: str, user_id: int) -> Room | None:
    """Return a room that `user_id` may see: a public one, or a private one with the user as a member."""
    row = await connection.fetchrow(_SQL["get_room"], name, user_id)
    return Room(**row) if row else None


async def page(connection: Connection, query: RoomsQuery, user_id: int) -> tuple[list[Room], str | None]:
    """Return a page of the rooms that `user_id` may see, by name, and the name behind which it ends.

    By times it examines `MOST_EXAMINED` rooms at most: it may have fewer than `limit`, or none.
    """
    after, end = query.cursor or "", None
    if query.created_after or query.created_before:
        end = await connection.fetchval(_SQL["find_last_examined_room"], after, MOST_EXAMINED, user_id)
    rows = await connection.fetch(
        _SQL["list_rooms"],
        *(after, query.limit + 1, query.created_after, query.created_before, user_id, end),
    )
    page, following = page_of([Room(**row) for row in rows], query.limit, lambda room: room.name)
    return page, following or end


async def lock(connection: Connection, name: str) -> None:
    """Lock the members of a room against other changes until the transaction ends."""
    await connection.execute(_SQL["lock_room"], name)


async def count_members(connection: Connection, room: str) -> tuple[int, int]:
    """Return the number of members of a room, and the number of managers among them."""
    row = await connection.fetchrow(_SQL["count_members"], room)
    assert row is not None, "a count returns one row"
    return row["members"], row["managers"]


async def put_member(connection: Connection, room: str, user_id: int, role: Role) -> Member:
    """Add a user, or change the user's role. Raise `InvalidInput` when there is no such user."""
    try:
        row = await connection.fetchrow(_SQL["put_member"], room, user_id, role)
    except asyncpg.ForeignKeyViolationError:
        raise invalid("/user_id", f"There is no user {user_id}.") from None
    assert row is not None, "an upsert returns its row"
    return Member(**row)


async def find_member(connection: Connection, room: str, user_id: int) -> Member | None:
    """Return the membership of a user in a room; None without one."""
    row = await connection.fetchrow(_SQL["get_member"], room, user_id)
    return Member(**row) if row else None


async def remove_member(connection: Connection, room: str, user_id: int) -> None:
    """End the membership of a user in a room, if there is one."""
    await connection.execute(_SQL["delete_member"], room, user_id)


async def list_members(connection: Connection, room: str, query: MembersQuery) -> list[Member]:
    """Return a page of members by the id of their user, and one more if there is one."""
    rows = await connection.fetch(_SQL["list_members"], room, query.cursor or 0, query.limit + 1)
    return [Member(**row) for row in rows]


async def find_former_members(
    connection: Connection, known: Sequence[tuple[str, str]]
) -> dict[str, set[str]]:
    """Return, by room, those of the `known` rooms and users who are no members of the room."""
    found: dict[str, set[str]] = defaultdict(set)
    rooms, users = [room for room, _ in known], [int(user_id) for _, user_id in known]
    for row in await connection.fetch(_SQL["list_former_members"], rooms, users):
        found[row["room"]].add(str(row["user_id"]))
    return found


async def list_ahead(connection: Connection, offsets: Mapping[str, int]) -> dict[str, int]:
    """Return the newest offsets of the rooms with messages after those of `offsets`."""
    statement = _SQL["list_rooms_ahead"]
    rows = await connection.fetch(statement, list(offsets), list(offsets.values()))
    return {row["name"]: row["last_offset"] for row in rows}


async def add_message(
    connection: Connection,
    room: str,
    user_id: str,
    user_name: str,
    data: Any,
    *,
    sender_id: str | None = None,
    client: str | None = None,
) -> ChatMessage | None:
    """Append a message and assign its offset; return None if the user may not post to the room.

    If the same user has already sent a message with this `sender_id`, that one is returned instead.
    """
    arguments = (room, user_id, user_name, orjson.dumps(data).decode(), sender_id, client)
    statement = _SQL["insert_message"]
    try:
        # In a savepoint, so that the caller's transaction can continue if it fails.
        async with connection.transaction():
            row = await connection.fetchrow(statement, *arguments)
    except asyncpg.UniqueViolationError:
        # The same message was sent twice concurrently: the first one has been stored by now.
        row = await connection.fetchrow(statement, *arguments)
    return _message(room, row) if row else None


async def list_messages_after(
    connection: Connection, room: str, offset: int, limit: int
) -> list[ChatMessage]:
    """Return messages with higher offsets, oldest first: at most `limit`, and `MOST_BYTES` together."""
    rows = await connection.fetch(_SQL["list_messages_after"], room, offset, limit, MOST_BYTES)
    return [_message(room, row) for row in rows]


async def list_messages_before(
    connection: Connection, room: str, offset: int, limit: int
) -> list[ChatMessage]:
    """Return messages with lower offsets, newest first: at most `limit`, and `MOST_BYTES` together."""
    rows = await connection.fetch(_SQL["list_messages_before"], room, offset, limit, MOST_BYTES)
    return [_message(room, row) for row in rows]


async def remove_old_messages(
    connection: Connection, *, after: str, keep_days: int
) -> tuple[str | None, int]:
    """Remove some messages older than `keep_days` of some rooms behind the name `after`.

    Return the name of the last of these rooms, None if there are none, and the number of messages removed.
    """
    row = await connection.fetchrow(
        _SQL["remove_old_messages"], after, _ROOMS_CLEANED_AT_ONCE, keep_days, _REMOVED_OF_ROOM
    )
    assert row is not None, "an aggregate returns one row"
    return row["last"], row["removed"]


def _message(room: str, row: Row) -> ChatMessage:
    return ChatMessage(
        room,
        row["offset"],
        row["user_id"],
        row["user_name"],
        orjson.loads(row["data"]),
        row["created_at"],
        row["client"],
    )

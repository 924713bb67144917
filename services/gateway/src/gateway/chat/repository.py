"""Chat rooms and their messages in PostgreSQL, shared by all gateways."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from chassis.errors import NotFound
from chassis.postgres import Connection, Postgres
from gateway.chat.inputs import RoomsQuery


@dataclass(frozen=True, slots=True)
class Room:
    """A chat room; offsets of its messages count from 1 within `epoch`."""

    name: str
    epoch: str
    last_offset: int
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a room."""

    room: str
    offset: int
    user_id: str
    user_name: str
    data: Any
    created_at: datetime


class RoomRepository:
    """Every method is one statement."""

    def __init__(self, postgres: Postgres, queries: Mapping[str, str]) -> None:
        self._postgres = postgres
        self._queries = queries

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """Open a transaction for several statements."""
        return self._postgres.transaction()

    async def create(self, connection: Connection, name: str, created_by: str) -> Room | None:
        """Make a room; return None when there is one of that name."""
        rows = await connection.fetch(self._queries["insert_room"], name, created_by)
        return Room(**rows[0]) if rows else None

    async def get(self, name: str) -> Room:
        """Return a room by name. Raise `NotFound`."""
        rows = await self._fetch("get_room", name)
        if not rows:
            raise NotFound(f"There is no room {name!r}; make it with POST /v1/rooms.")
        return Room(**rows[0])

    async def page(self, query: RoomsQuery) -> list[Room]:
        """Return a page of rooms by name, and one more if there is one."""
        rows = await self._fetch(
            "list_rooms", query.cursor or "", query.limit + 1, query.created_after, query.created_before
        )
        return [Room(**row) for row in rows]

    async def add(
        self,
        connection: Connection,
        room: str,
        user_id: str,
        user_name: str,
        data: Any,
        *,
        sender_id: str | None = None,
    ) -> ChatMessage:
        """Append a message, which gives it its offset. Raise `NotFound` when there is no such room.

        A message that the same user has sent under the same `sender_id` before is returned instead.
        """
        arguments = (room, user_id, user_name, orjson.dumps(data).decode(), sender_id)
        statement = self._queries["insert_message"]
        try:
            # In a transaction of its own, so that the caller's can go on when it fails.
            async with connection.transaction():
                rows = await connection.fetch(statement, *arguments)
        except asyncpg.UniqueViolationError:
            # The same message came twice at the same time: now the first one is there to be found.
            rows = await connection.fetch(statement, *arguments)
        if not rows:
            raise NotFound(f"There is no room {room!r}; make it with POST /v1/rooms.")
        return _message(room, rows[0])

    async def after(self, room: str, offset: int, limit: int) -> list[ChatMessage]:
        """Return messages with higher offsets, oldest first."""
        return [_message(room, row) for row in await self._fetch("list_messages_after", room, offset, limit)]

    async def before(self, room: str, offset: int, limit: int) -> list[ChatMessage]:
        """Return messages with lower offsets, newest first."""
        return [_message(room, row) for row in await self._fetch("list_messages_before", room, offset, limit)]

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async with self._postgres.connection() as connection:
            return await connection.fetch(self._queries[query], *arguments)


def _message(room: str, row: asyncpg.Record) -> ChatMessage:
    return ChatMessage(
        room, row["offset"], row["user_id"], row["user_name"], orjson.loads(row["data"]), row["created_at"]
    )

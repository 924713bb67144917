"""The gateway's realtime parts without servers: rooms in memory, a broker that may lose what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from chassis.broker.envelope import Outgoing
from chassis.deadlines import Deadline
from chassis.errors import BrokerUnavailable, DatabaseUnavailable, NotFound
from gateway.chat.repository import ChatMessage, Room
from gateway.chat.service import Chat
from gateway.http.principal import Principal
from gateway.realtime.channels import Channels
from gateway.realtime.hub import Hub
from gateway.stocks.book import QuoteBook

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Rooms:
    """The repository of rooms, shared by several gateways; it can be away, and slow."""

    epochs: dict[str, str] = field(default_factory=lambda: {"lobby": "epoch-1"})
    messages: list[ChatMessage] = field(default_factory=list)
    is_away: bool = False
    reads: int = 0

    async def get(self, name: str) -> Room:
        await self._visit()
        if name not in self.epochs:
            raise NotFound(f"There is no room {name!r}.")
        return Room(name, self.epochs[name], self._last(name), "1", NOW)

    async def add(self, room: str, user_id: str, user_name: str, data: Any) -> ChatMessage:
        await self.get(room)
        message = ChatMessage(room, self._last(room) + 1, user_id, user_name, data, NOW)
        self.messages.append(message)
        return message

    async def after(self, room: str, offset: int, limit: int) -> list[ChatMessage]:
        await self._visit()
        self.reads += 1
        return [m for m in self.messages if m.room == room and m.offset > offset][:limit]

    async def before(self, room: str, offset: int, limit: int) -> list[ChatMessage]:
        await self._visit()
        return [m for m in reversed(self.messages) if m.room == room and m.offset < offset][:limit]

    def _last(self, room: str) -> int:
        return max((m.offset for m in self.messages if m.room == room), default=0)

    async def _visit(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise DatabaseUnavailable("The database is away.")


@dataclass
class Exchange:
    """The broker: every gateway hears what any of them sends, unless it is lost on the way."""

    chats: list[Chat] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    is_away: bool = False
    loses: bool = False

    async def send(self, message: Outgoing) -> None:
        if self.is_away:
            raise BrokerUnavailable("The broker is away.")
        self.sent.append(message.body)
        if not self.loses:
            for chat in self.chats:
                await chat.heard(message.body)


@dataclass
class Gateway:
    """The realtime parts of one gateway."""

    rooms: Rooms
    exchange: Exchange
    hub: Hub = field(default_factory=Hub)
    book: QuoteBook = field(default_factory=lambda: QuoteBook(fresh_s=60))
    batches: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    quotes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rooms: Any = self.rooms
        exchange: Any = self.exchange
        self.chat = Chat(rooms, self.hub, exchange)
        self.exchange.chats.append(self.chat)
        self.channels = Channels(
            hub=self.hub,
            book=self.book,
            chat=self.chat,
            find_batch=self._find_batch,
            find_quote=self._find_quote,
            epoch="gateway-epoch",
        )

    async def _find_batch(self, principal: Principal, id_: UUID, deadline: Deadline) -> Mapping[str, Any]:
        found = self.batches.get(id_)
        if found is None or found["owner_id"] != principal.owner_id:
            raise NotFound(f"There is no batch {id_}.")
        return found

    async def _find_quote(self, symbol: str, deadline: Deadline) -> bytes:
        if symbol not in self.quotes:
            raise NotFound(f"There is no symbol {symbol}.")
        return orjson.dumps(self.quotes[symbol])

"""The gateway's realtime parts without servers: rooms in memory, and a broker that may lose messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson

from chassis import shares
from chassis.broker.envelope import Outgoing
from chassis.deadlines import Deadline
from chassis.errors import BrokerUnavailable, DatabaseUnavailable, NotFound, Unauthenticated, Unavailable
from chassis.loop_turns import LoopTurns
from contracts.alerts import AlertFired, Firing, Firings, ListFirings
from contracts.gateways import ChatPosted
from gateway.alerts.feed import AlertFeed
from gateway.chat.inputs import Role
from gateway.chat.repository import ChatMessage, Room
from gateway.chat.service import ChatService
from gateway.http.principal import Principal
from gateway.publishing.hub import Hub
from gateway.realtime.access import Access
from gateway.realtime.bar_feed import BarFeed
from gateway.realtime.channels import Channels, channel_of
from gateway.realtime.codes import CloseCode
from gateway.realtime.command_rate import OwnerRates
from gateway.realtime.command_table import COMMANDS
from gateway.realtime.operations import ReadingOperations
from gateway.realtime.presence import Presence
from gateway.realtime.quote_feed import QuoteFeed
from gateway.realtime.session import ClientSession, Realtime
from gateway.stocks.book import QuoteBook
from support.doubles.statements import AnsweredConnection

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_LOBBY = channel_of("chat:lobby")


@dataclass
class Rooms:
    """The database with its rooms, shared by several gateways; it can be away, and slow.

    A room that is in `members` is private.
    """

    epochs: dict[str, str] = field(default_factory=lambda: {"lobby": "epoch-1"})
    members: dict[str, dict[int, Role]] = field(default_factory=dict)
    messages: list[ChatMessage] = field(default_factory=list)
    is_away: bool = False
    # The error of a read of messages or members.
    failure: Exception | None = None
    # What a read of messages waits for once it has read them.
    hold: asyncio.Event | None = None
    reads: int = 0
    # The owners in whose share the connections were lent.
    lent_to: list[str] = field(default_factory=list)
    # The rooms and users of which it was asked whether they are members.
    looked_up: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._connection = AnsweredConnection(self)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AnsweredConnection]:
        self.lent_to.append(shares.current.get())
        yield self._connection

    transaction = connection

    async def get_room(self, name: str, user_id: int) -> dict[str, Any] | None:
        await self._visit()
        if name not in self.epochs:
            return None
        members = self.members.get(name)
        if members is not None and user_id not in members:
            return None
        role = None if members is None else members[user_id]
        return asdict(Room(name, self.epochs[name], self._last(name), "1", NOW, members is not None, role))

    async def list_former_members(self, rooms: list[str], users: list[int]) -> list[dict[str, Any]]:
        await self._visit()
        if self.failure is not None:
            raise self.failure
        known = list(zip(rooms, users, strict=True))
        self.looked_up += known
        return [{"room": room, "user_id": user} for room, user in known if user not in self.members[room]]

    async def list_rooms_ahead(self, rooms: list[str], offsets: list[int]) -> list[dict[str, Any]]:
        await self._visit()
        newest = [(room, self._last(room), offset) for room, offset in zip(rooms, offsets, strict=True)]
        return [{"name": room, "last_offset": last} for room, last, offset in newest if last > offset]

    async def insert_message(
        self, room: str, user_id: str, user_name: str, data: str, sender_id: str | None, client: str | None
    ) -> dict[str, Any] | None:
        found = await self.get_room(room, int(user_id))
        if found is None or found["role"] == "reader":
            return None
        for known in self.messages:
            names = (known.room, known.user_id, known.data.get("id"))
            if sender_id is not None and names == (room, user_id, sender_id):
                return _row(known)
        written = orjson.loads(data)
        message = ChatMessage(room, self._last(room) + 1, user_id, user_name, written, NOW, client)
        self.messages.append(message)
        return _row(message)

    async def list_messages_after(
        self, room: str, offset: int, limit: int, _bytes: int
    ) -> list[dict[str, Any]]:
        await self._visit()
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        found = [m for m in self.messages if m.room == room and m.offset > offset][:limit]
        if self.hold is not None:
            await self.hold.wait()
        return [_row(message) for message in found]

    async def list_messages_before(
        self, room: str, offset: int, limit: int, _bytes: int
    ) -> list[dict[str, Any]]:
        await self._visit()
        found = [m for m in reversed(self.messages) if m.room == room and m.offset < offset][:limit]
        return [_row(message) for message in found]

    def _last(self, room: str) -> int:
        return next((m.offset for m in reversed(self.messages) if m.room == room), 0)

    async def _visit(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise DatabaseUnavailable("The database is away.")


def _row(message: ChatMessage) -> dict[str, Any]:
    return {
        "offset": message.offset,
        "user_id": message.user_id,
        "user_name": message.user_name,
        "data": orjson.dumps(message.data).decode(),
        "created_at": message.created_at,
        "client": message.client,
    }


@dataclass
class Broker:
    """The broker: every gateway receives the messages of all others, unless they are lost."""

    gateways: list[Gateway] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    is_away: bool = False
    loses: bool = False

    async def send(self, message: Outgoing) -> None:
        if self.is_away:
            raise BrokerUnavailable("The broker is away.")
        self.sent.append(message.body)
        if not self.loses:
            for gateway in self.gateways:
                part = gateway.chat if message.message_type == ChatPosted.message_type else gateway.presence
                await part.heard(message.body)


@dataclass
class FiringStore:
    """Stores the firings of each owner, as stock-data does; it can be unavailable."""

    epoch: str = "epoch-a"
    of: dict[str, list[Firing]] = field(default_factory=dict)
    is_away: bool = False
    reads: int = 0
    gone: int = 0
    # What the reads of an owner's firings wait for.
    held: dict[str, asyncio.Event] = field(default_factory=dict)

    def fire(self, owner_id: str) -> bytes:
        """Store a firing, and return its event."""
        firings = self.of.setdefault(owner_id, [])
        firing = Firing.model_validate(
            {
                "id": uuid4(),
                "offset": len(firings) + 1,
                "alert_id": uuid4(),
                "symbol": "A",
                "condition": {"above": 10},
                "price": 11,
                "as_of": NOW,
                "source": "double",
                "simulated": True,
            }
        )
        firings.append(firing)
        event = AlertFired(owner_id=owner_id, made_by="k", epoch=self.epoch, firing=firing, notify=[])
        return event.model_dump_json().encode()

    async def call(self, question: ListFirings, _: type[Firings], deadline: Deadline) -> Firings:
        await asyncio.sleep(0)
        self.reads += 1
        if self.is_away:
            raise Unavailable("stock-data is away.")
        if question.owner_id in self.held:
            await self.held[question.owner_id].wait()
        firings = self.of.get(question.owner_id)
        if firings is None:
            return Firings(epoch="none", offset=0, data=[])
        before = len(firings) + 1 if question.before is None else question.before
        found = [one for one in firings if max(question.after or 0, self.gone) < one.offset < before]
        ordered = found[::-1] if question.newest_first else found
        return Firings(epoch=self.epoch, offset=len(firings), data=ordered[: question.limit])


@dataclass
class Gateway:
    """The realtime parts of one gateway."""

    rooms: Rooms
    exchange: Broker
    hub: Hub = field(default_factory=Hub)
    book: QuoteBook = field(default_factory=lambda: QuoteBook(fresh_s=60))
    work: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    quotes: dict[str, dict[str, Any]] = field(default_factory=dict)
    callers: dict[str, Access] = field(default_factory=dict)
    firings: FiringStore = field(default_factory=lambda: FiringStore())
    buffer_bytes: int = 1 << 20
    owner_rates: OwnerRates = field(default_factory=lambda: OwnerRates(500, pause_s=0))
    turns: LoopTurns = field(default_factory=LoopTurns)

    def __post_init__(self) -> None:
        rooms: Any = self.rooms
        exchange: Any = self.exchange
        self.chat = ChatService(rooms, self.hub, exchange)
        self.presence = Presence(exchange)
        self.feed = QuoteFeed(self.book, self.hub, silent_after_s=5)
        firings: Any = self.firings
        self.alerts = AlertFeed(self.hub, firings)
        self.bars = BarFeed(self.hub, silent_after_s=5)
        self.exchange.gateways.append(self)
        self.channels = Channels(
            hub=self.hub,
            feed=self.feed,
            bars=self.bars,
            chat=self.chat,
            alerts=self.alerts,
            find=dict.fromkeys(("batch", "task", "email"), self._find_work),
            find_quote=self._find_quote,
        )

    @property
    def realtime(self) -> Realtime:
        return Realtime(
            commands=COMMANDS,
            channels=self.channels,
            presence=self.presence,
            authenticate=self.authenticate,
            call_operation=ReadingOperations(timeout_s=5).call,
            owner_rates=self.owner_rates,
            turns=self.turns,
            buffer_bytes=self.buffer_bytes,
        )

    async def authenticate(self, token: str | None, address: str | None = None) -> Access:
        found = self.callers.get(token or "")
        if found is None:
            raise Unauthenticated("The API key is not known, has expired or was revoked.")
        return found

    async def _find_work(self, principal: Principal, id_: UUID, deadline: Deadline) -> Mapping[str, Any]:
        found = self.work.get(id_)
        if found is None or found["owner_id"] != principal.owner_id:
            raise NotFound(f"There is no batch {id_}.")
        return found

    async def _find_quote(self, symbol: str, deadline: Deadline) -> bytes:
        if symbol not in self.quotes:
            raise NotFound(f"There is no symbol {symbol}.")
        return orjson.dumps(self.quotes[symbol])


def payload(frame: bytes) -> bytes:
    """Return the payload of one unmasked text frame."""
    (only,) = payloads(frame)
    return only


def payloads(frames: bytes) -> Iterator[bytes]:
    """Yield the payloads of unmasked text frames."""
    while frames:
        length, head = frames[1], 2
        if length > 125:
            head = 4 if length == 126 else 10
            length = int.from_bytes(frames[2:head], "big")
        yield frames[head : head + length]
        frames = frames[head + length :]


class Client:
    """A connection: it sends commands, and records the frames that it receives."""

    def __init__(
        self,
        gateway: Gateway,
        access: Access | None,
        *,
        admit: Callable[[Access], None] = lambda _: None,
        realtime: Realtime | None = None,
    ) -> None:
        self.frames: list[Any] = []
        self.closed: list[tuple[CloseCode, str]] = []
        self.session = ClientSession(
            realtime or gateway.realtime,
            offered=access,
            admit=admit,
            write=lambda frames: self.frames.extend(map(orjson.loads, payloads(frames))),
            close_connection=lambda code, reason: self.closed.append((code, reason)),
        )
        self._number = 0

    async def ask(self, **command: Any) -> Any:
        """Return the part of the reply under the command's name, or the error."""
        self._number += 1
        await self.session.receive(orjson.dumps({"id": self._number, **command}))
        [reply] = [frame for frame in self.frames if frame.get("id") == self._number]
        self.frames.remove(reply)
        ((_, content),) = ((name, content) for name, content in reply.items() if name != "id")
        return content

    def pushes(self) -> list[Any]:
        """Return the pushes that have come since the last look."""
        found, self.frames = [frame["push"] for frame in self.frames if "push" in frame], []
        return found

    def offsets(self) -> list[int]:
        """Return the offsets of the publications that have come since the last look."""
        return [push["pub"]["offset"] for push in self.pushes()]


async def connected(gateway: Gateway, access: Access) -> Client:
    """Return a connection that is logged in."""
    client = Client(gateway, access)
    assert "client" in await client.ask(connect={})
    return client


def quote(symbol: str, offset: int) -> dict[str, Any]:
    return {"symbol": symbol, "as_of": "2026-01-01T00:00:00Z", "stream": {"epoch": "feed", "offset": offset}}


async def say(gateway: Gateway, ann: Access, *texts: str) -> None:
    for text in texts:
        await gateway.channels.publish(ann, _LOBBY, {"text": text})

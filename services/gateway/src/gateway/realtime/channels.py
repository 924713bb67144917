"""What may be subscribed to: `quotes:<symbol>`, `batch:<id>`, `chat:<room>`, and what each gives."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from chassis.deadlines import Deadline
from chassis.errors import Forbidden, InvalidInput, NotFound
from contracts.scopes import Scope
from gateway.chat.repository import ChatMessage
from gateway.chat.service import Chat, publication
from gateway.http.principal import Principal
from gateway.http.strict_json import MOST_ID
from gateway.realtime.hub import Hub, Publication
from gateway.stocks.book import Entry, QuoteBook
from gateway.stocks.service import symbol_of

MOST_RECOVERED = 300

_ROOM = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

FindBatch = Callable[[Principal, UUID, Deadline], Awaitable[Mapping[str, Any]]]
FindQuote = Callable[[str, Deadline], Awaitable[bytes]]


@dataclass(frozen=True)
class Joined:
    """The state of a channel at the moment of subscribing."""

    epoch: str
    offset: int
    recovered: bool
    publications: list[dict[str, Any]]
    is_conflated: bool

    def without_recovery(self) -> Joined:
        """The same, where what was missed cannot be given at once."""
        return replace(self, recovered=False, publications=[])


class Channels:
    """Checks who may listen and post, and gives what a subscriber has missed."""

    def __init__(
        self,
        *,
        hub: Hub,
        book: QuoteBook,
        chat: Chat,
        find_batch: FindBatch,
        find_quote: FindQuote,
        epoch: str,
    ) -> None:
        self.hub = hub
        self.chat = chat
        self._book = book
        self._find_batch = find_batch
        self._find_quote = find_quote
        self._epoch = epoch
        book.on_quote(self._quote_pushed)

    async def join(self, principal: Principal, channel: str, recover: Mapping[str, Any] | None) -> Joined:
        """What a new subscriber gets at once. Raises `Forbidden`, `NotFound` or `InvalidInput`."""
        kind, name = split(channel)
        if kind == "quotes":
            return await self._join_quotes(principal, name)
        if kind == "batch":
            return await self._join_batch(principal, name)
        return await self._join_chat(name, recover)

    async def post(self, principal: Principal, channel: str, data: Any) -> int:
        """Publish to a chat room; gives the offset."""
        kind, name = split(channel)
        if kind != "chat":
            raise Forbidden("Only chat channels take messages from clients.")
        _require(principal, Scope.CHAT_WRITE)
        message: ChatMessage = await self.chat.post(name, principal, data)
        return message.offset

    async def history(self, channel: str, *, before: int | None, limit: int) -> list[dict[str, Any]]:
        """The last messages of a chat room before an offset, oldest first."""
        kind, name = split(channel)
        if kind != "chat":
            raise InvalidInput("Only chat channels have a history.")
        found = await self.chat.repository.before(name, MOST_ID if before is None else before, limit)
        return [_document(message) for message in reversed(found)]

    async def _join_quotes(self, principal: Principal, symbol: str) -> Joined:
        _require(principal, Scope.QUOTES_READ)
        entry = self._book.last(symbol)
        if entry is not None:
            stream = entry.quote["stream"]
            now = quote_publication(entry).document()
            return Joined(stream["epoch"], stream["offset"], False, [now], True)
        # Nothing was pushed yet: the answer to a request also tells whether there is such a symbol.
        quote = orjson.loads(await self._find_quote(symbol, Deadline.after(5)))
        stream = quote["stream"] or {"epoch": self._epoch, "offset": 0}
        now = Publication(f"quotes:{symbol}", stream["offset"], quote["as_of"], quote).document()
        return Joined(stream["epoch"], stream["offset"], False, [now], True)

    async def _join_batch(self, principal: Principal, name: str) -> Joined:
        _require(principal, Scope.BATCHES_READ)
        batch_id = UUID(name)
        batch = await self._find_batch(principal, batch_id, Deadline.after(5))
        now = Publication(f"batch:{batch_id}", 0, _now(), dict(batch))
        return Joined(self._epoch, 0, False, [now.document()], True)

    async def _join_chat(self, room: str, recover: Mapping[str, Any] | None) -> Joined:
        seen = _seen(recover)
        offset = await self.chat.follow(room, at_least=seen[1] if seen else 0)
        found = await self.chat.repository.get(room)
        now = Joined(found.epoch, offset, False, [], False)
        if seen is None or seen[0] != found.epoch or not seen[1] <= offset <= seen[1] + MOST_RECOVERED:
            return now
        missed = await self.chat.repository.after(room, seen[1], MOST_RECOVERED)
        # What is newer than `offset` will come as a push: it must not come twice.
        publications = [_document(message) for message in missed if message.offset <= offset]
        return replace(now, recovered=True, publications=publications)

    def _quote_pushed(self, symbol: str, entry: Entry) -> None:
        if self.hub.has_listeners(f"quotes:{symbol}"):
            self.hub.publish(quote_publication(entry))


def split(channel: str) -> tuple[str, str]:
    """Kind and name of a channel. Raises `InvalidInput` when there is no such kind."""
    kind, _, name = channel.partition(":")
    if kind not in ("quotes", "batch", "chat") or not name:
        raise InvalidInput("A channel is quotes:<symbol>, batch:<id> or chat:<room>.")
    if kind == "quotes":
        return kind, symbol_of(name)
    if kind == "batch":
        return kind, _batch_name(name)
    if not is_room(name):
        raise InvalidInput("A room's name has 1 to 64 of a-z, 0-9, _ and -.")
    return kind, name


def is_room(name: str) -> bool:
    """Whether a room can have this name."""
    return _ROOM.fullmatch(name) is not None


def _batch_name(text: str) -> str:
    # One batch has one channel, however its id is written.
    try:
        return str(UUID(text))
    except ValueError:
        raise NotFound(f"There is no batch {text[:100]!r}.") from None


def quote_publication(entry: Entry) -> Publication:
    """A pushed quote as its channel shows it."""
    quote = entry.quote
    return Publication(f"quotes:{quote['symbol']}", quote["stream"]["offset"], quote["as_of"], quote)


def _seen(recover: Mapping[str, Any] | None) -> tuple[str, int] | None:
    """Epoch and offset up to which a subscriber has seen a room, if it says so."""
    epoch, offset = (recover or {}).get("epoch"), (recover or {}).get("offset")
    is_place = isinstance(epoch, str) and isinstance(offset, int) and 0 <= offset <= MOST_ID
    return (str(epoch), int(offset)) if is_place and offset is not None else None


def _document(message: ChatMessage) -> dict[str, Any]:
    return publication(message).document()


def _require(principal: Principal, scope: Scope) -> None:
    if not principal.may(scope):
        raise Forbidden(f"This needs the scope {scope}; the key does not have it.")


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")

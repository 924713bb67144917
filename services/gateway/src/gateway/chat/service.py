"""Chat: a message is stored in PostgreSQL before it is published, and every gateway publishes in order."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

import orjson

from chassis import logging, redaction, shares
from chassis.broker.publisher import Publisher
from chassis.errors import Forbidden, InvalidInput, NotFound, ServiceError
from chassis.postgres import DATABASE_FAILURES, Connection, Postgres
from contracts.gateways import ChatPosted
from contracts.scopes import Scope
from gateway.chat import repository
from gateway.chat.repository import ChatMessage, Room
from gateway.http import strict_json
from gateway.http.principal import Principal
from gateway.publishing.announcing import announce
from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.publishing.signals import MembersLeft

log = logging.get(__name__)

_CATCH_UP = 150
# Pages of missed messages that are read at once. What is left comes with the next look.
_MOST_PAGES = 10
# A crowd that has not taken what was published gets that many missed messages at once, and more at a look.
_FEW_MISSED = 20
_CATCH_UP_EVERY_S = 5.0
_ROWS_AT_ONCE = 1000
# Seconds between two reads of a room for clients that claim to be ahead of it, as anybody may.
AHEAD_EVERY_S = 0.25
# For how long such a client waits until this gateway has published what it has seen elsewhere.
AHEAD_WITHIN_S = 5.0
_LONGEST_TEXT = 4000
_LONGEST_ID = 64
_LARGEST_DATA = 16 * 1024
_ROOM = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass
class _Shown:
    """The position up to which a room was published here, and the lock that preserves the order."""

    epoch: str
    offset: int
    is_private: bool
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    # The read that has not begun yet, for all clients that are ahead, and when the last one began.
    next_read: asyncio.Task[bool] | None = None
    read_at: float = -math.inf


class ChatService:
    """Posts to rooms, and publishes the messages that are posted here or through another gateway.

    The broker only announces new messages. They are published in the order of their offsets; a gap, or the
    loss of an announcement, is filled from the database. For users who are not members a private room does
    not exist; a removed member loses its subscriptions at once, or within seconds if the broker is down.
    """

    def __init__(self, postgres: Postgres, hub: Hub, publisher: Publisher) -> None:
        self._postgres = postgres
        self._hub = hub
        self._publisher = publisher
        self._gateway = uuid4().hex
        self._shown: dict[str, _Shown] = {}
        # One room at a time is read for clients that are ahead: other work needs connections, too.
        self._reading = asyncio.Lock()

    async def room(self, name: str, principal: Principal) -> Room:
        """Return a room as the caller sees it. Raise `NotFound`, also for a private room of others."""
        async with self._postgres.connection() as connection:
            return await self.find(connection, name, principal)

    async def find(self, connection: Connection, name: str, principal: Principal) -> Room:
        """Return a room, read in the caller's transaction. Raise `NotFound` as `room` does."""
        found = await repository.find(connection, name, principal.user_id) if is_room(name) else None
        if found is None:
            raise NotFound(f"There is no room {name[:100]!r}; create it with POST /v1/rooms.")
        return found

    async def post(
        self, room: str, principal: Principal, data: Any, *, client: str | None = None
    ) -> ChatMessage:
        """Append to a room and publish the message. Raise `NotFound`, `Forbidden` or `InvalidInput`.

        `data.id` is chosen by the sender: posting the same id again returns the first message. `client` is
        the connection that publishes it.
        """
        async with self._postgres.transaction() as connection:
            message = await self.append(connection, room, principal, data, client=client)
        await self.announce(message)
        return message

    async def append(
        self,
        connection: Connection,
        room: str,
        principal: Principal,
        data: Any,
        *,
        client: str | None = None,
    ) -> ChatMessage:
        """Store a message in the caller's transaction; `announce` it once that has committed."""
        principal.require(Scope.CHAT_WRITE)
        if not isinstance(data, dict) or not isinstance(data.get("text"), str) or not data["text"].strip():
            raise InvalidInput("A chat message must be an object with a non-empty 'text'.")
        encoded = orjson.dumps(data)
        if len(data["text"]) > _LONGEST_TEXT or len(encoded) > _LARGEST_DATA:
            raise InvalidInput(
                f"A chat message must have at most {_LONGEST_TEXT} characters of text and "
                f"{_LARGEST_DATA} bytes."
            )
        sender_id = data.get("id")
        if sender_id is not None and not (isinstance(sender_id, str) and 1 <= len(sender_id) <= _LONGEST_ID):
            raise InvalidInput(
                f"The 'id' of a chat message must be a string of 1 to {_LONGEST_ID} characters."
            )
        strict_json.require_keepable(encoded, data)
        message = None
        # An invalid name may contain characters that the database rejects.
        if is_room(room):
            message = await repository.add_message(
                connection,
                room,
                principal.owner_id,
                principal.user_name,
                data,
                sender_id=sender_id,
                client=client,
            )
        if message is None:
            await self.find(connection, room, principal)
            raise Forbidden(f"You may read the room {room} but not post to it; ask one of its managers.")
        return message

    async def announce(self, message: ChatMessage) -> None:
        """Publish a stored message, here and on the other gateways.

        A lost announcement does no harm: the other gateways find the message when they catch up.
        """
        await self._try_to_show(message.room, message)
        await announce(
            self._publisher,
            ChatPosted(
                gateway=self._gateway,
                room=message.room,
                offset=message.offset,
                user_id=message.user_id,
                user_name=message.user_name,
                data=message.data,
                created_at=message.created_at,
                client=message.client,
            ),
        )

    async def announce_members(self, room: str) -> None:
        """End the subscriptions of former members of a private room, here and on the other gateways."""
        await self._end_for_former_members([room])
        await announce(self._publisher, ChatPosted(gateway=self._gateway, room=room, members="changed"))

    async def follow(self, room: str, principal: Principal, *, at_least: int = 0) -> ChannelPosition:
        """Begin to publish a room here; return the position up to which it was published.

        A client that has seen the offset `at_least` on another gateway may be ahead of this one: then the
        database is queried, a page at a time, once for all such clients of a room. If this gateway has not
        published as much in time, or anybody could not take it, the position is a lower one. Raise
        `NotFound`, also for a private room of others.
        """
        shown = self._shown.get(room)
        if shown is None or shown.is_private:
            found = await self.room(room, principal)
            shown = self._shown.setdefault(room, _Shown(found.epoch, found.last_offset, found.is_private))
        is_read = True
        try:
            async with asyncio.timeout(AHEAD_WITHIN_S) as waiting:
                while is_read and shown.offset < at_least:
                    shown.next_read = shown.next_read or asyncio.create_task(self._read_page(room, shown))
                    is_read = await asyncio.shield(shown.next_read)
        except TimeoutError:
            if not waiting.expired():
                raise
        return ChannelPosition(shown.epoch, shown.offset)

    async def _read_page(self, room: str, shown: _Shown) -> bool:
        """Publish a page of what was stored, for all clients that are ahead; return whether there was any."""
        await asyncio.sleep(shown.read_at + AHEAD_EVERY_S - time.monotonic())
        async with self._reading:
            # This read finds what was stored before now; later clients wait for the next one.
            shown.next_read, shown.read_at = None, time.monotonic()
            return await self._show(room, None, most_pages=1)

    async def after(self, room: str, offset: int, limit: int) -> list[ChatMessage]:
        """Return messages with higher offsets, oldest first.

        The caller must have checked the access to the room.
        """
        async with self._postgres.connection() as connection:
            return await repository.list_messages_after(connection, room, offset, limit)

    async def before(self, room: str, offset: int, limit: int) -> list[ChatMessage]:
        """Return messages with lower offsets, newest first. The caller must have checked the access."""
        async with self._postgres.connection() as connection:
            return await repository.list_messages_before(connection, room, offset, limit)

    async def heard(self, body: bytes) -> None:
        """Handle another gateway's announcement that a message was stored, or that members changed."""
        news = orjson.loads(body)
        if news["gateway"] == self._gateway or news["room"] not in self._shown:
            return
        if "members" in news:
            await self._end_for_former_members([news["room"]])
            return
        created_at = datetime.fromisoformat(news["created_at"])
        message = ChatMessage(
            news["room"],
            news["offset"],
            news["user_id"],
            news["user_name"],
            news["data"],
            created_at,
            # The release before does not know it.
            news.get("client"),
        )
        await self._try_to_show(message.room, message)

    async def catch_up(self) -> None:
        """Check every few seconds for messages and members whose announcement was lost, until cancelled."""
        while True:
            await asyncio.sleep(_CATCH_UP_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Read the new messages and the former members of the rooms with listeners here, once.

        A room without news costs a row of one statement for many. Of others, a page is read in turn, so that
        one with very many messages delays no other.
        """
        for room in list(self._shown):
            if not self._hub.has_listeners(f"chat:{room}"):
                del self._shown[room]
        rooms = list(self._shown)
        await self._end_for_former_members(rooms)
        behind: dict[str, int] = {}
        for first in range(0, len(rooms), _ROWS_AT_ONCE):
            some = rooms[first : first + _ROWS_AT_ONCE]
            offsets = {room: self._shown[room].offset for room in some if room in self._shown}
            try:
                async with self._postgres.connection() as connection:
                    behind |= await repository.list_ahead(connection, offsets)
            except (ServiceError, *DATABASE_FAILURES) as error:
                log.warning(
                    "rooms could not be checked for news",
                    rooms=len(some),
                    reason=redaction.safe_message(error),
                )
                return
        while behind:
            for room, newest in list(behind.items()):
                shown = self._shown.get(room)
                is_read = (
                    shown is not None
                    # Whoever has the lock reads what is missing.
                    and not shown.lock.locked()
                    and await self._try_to_show(room, None, most_pages=1)
                    and shown.offset < newest
                )
                if not is_read:
                    del behind[room]

    async def _end_for_former_members(self, rooms: Collection[str]) -> None:
        private = [room for room in rooms if room in self._shown and self._shown[room].is_private]
        known = [(room, user_id) for room in private for user_id in self._hub.signalled(f"chat:{room}")]
        for first in range(0, len(known), _ROWS_AT_ONCE):
            try:
                async with self._postgres.connection() as connection:
                    some = known[first : first + _ROWS_AT_ONCE]
                    former = await repository.find_former_members(connection, some)
            except (ServiceError, *DATABASE_FAILURES) as error:
                # The change is stored: it is applied when the rooms catch up.
                reason = redaction.safe_message(error)
                log.warning("room members could not be read", rooms=len(private), reason=reason)
                return
            for room, users in former.items():
                self._hub.signal(MembersLeft(f"chat:{room}", frozenset(users)))

    async def _try_to_show(
        self, room: str, news: ChatMessage | None, *, most_pages: int = _MOST_PAGES
    ) -> bool:
        """Publish as `_show` does; return False also if the messages could not be read."""
        try:
            return await self._show(room, news, most_pages=most_pages)
        except (ServiceError, *DATABASE_FAILURES) as error:
            # The message is stored: it is published when the room catches up.
            reason = redaction.safe_message(error)
            log.warning("missed messages of a room could not be read", room=room, reason=reason)
        except Exception as error:  # of one room: the others are looked at, too
            log.error("messages of a room could not be published", room=room, exc_info=error)
        return False

    async def _show(self, room: str, news: ChatMessage | None, *, most_pages: int = _MOST_PAGES) -> bool:
        """Publish `news` after the messages that are missing before it, or those that are stored.

        Read `most_pages` of them at most, and not many for a crowd that has not taken the last ones: without
        all of them `news` is not published either. A later look goes on. Return whether any was read.
        """
        shown = self._shown.get(room)
        if shown is None:
            return False
        # Everybody in the room waits for what is read here: it must not wait for the share of one owner.
        share = shares.current.set("")
        try:
            async with shown.lock:
                return await self._show_in_order(room, shown, news, most_pages)
        finally:
            shares.current.reset(share)

    async def _show_in_order(
        self, room: str, shown: _Shown, news: ChatMessage | None, most_pages: int
    ) -> bool:
        pages = 0
        while (missing := math.inf if news is None else news.offset - shown.offset - 1) > 0:
            is_crowded = missing > _FEW_MISSED and self._hub.is_behind(f"chat:{room}")
            if pages == most_pages or is_crowded:
                return pages > 0
            page = await self.after(room, shown.offset, _CATCH_UP)
            if not page:
                break
            await self._publish(shown, page)
            pages += 1
        await self._publish(shown, [news] if news else [])
        return pages > 0

    async def _publish(self, shown: _Shown, messages: list[ChatMessage]) -> None:
        for message in messages:
            if message.offset > shown.offset:
                shown.offset = message.offset
                self._hub.publish(publication(message, shown.epoch), is_ordered=True)
            if len(messages) > 1:
                # There may be very many listeners.
                await asyncio.sleep(0)


def is_room(name: str) -> bool:
    """Return whether a room can have this name."""
    return _ROOM.fullmatch(name) is not None


def publication(message: ChatMessage, epoch: str) -> Publication:
    """Return a message as a publication of its channel."""
    # The sender's fields come first, so that they cannot replace those of the gateway.
    written = message.data if isinstance(message.data, dict) else {"text": message.data}
    data = {**written, "user_id": message.user_id, "user": message.user_name}
    time_ms = int(message.created_at.timestamp() * 1000)
    info = {"user": message.user_id} | ({"client": message.client} if message.client else {})
    return Publication(
        f"chat:{message.room}", ChannelPosition(epoch, message.offset), data, time_ms=time_ms, info=info
    )

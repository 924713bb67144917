"""The channels, the scope that each needs, and the initial state for a subscriber."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from contracts.scopes import Scope
from gateway.alerts import feed as alert_feed
from gateway.alerts.feed import AlertFeed
from gateway.chat.repository import ChatMessage
from gateway.chat.service import ChatService, is_room, publication
from gateway.http.principal import Principal
from gateway.http.rates import Charge, RateClass, charge_nothing
from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.realtime.access import Access
from gateway.realtime.bar_feed import BarFeed
from gateway.realtime.codes import CommandError, ErrorCode
from gateway.realtime.commands import MOST_HISTORY
from gateway.realtime.quote_feed import NO_EPOCH, QuoteFeed
from gateway.stocks.inputs import symbol_of

MOST_RECOVERED = 300
_STATE_S = 5.0

FindWork = Callable[[Principal, UUID, Deadline], Awaitable[Mapping[str, Any]]]
FindQuote = Callable[[str, Deadline], Awaitable[bytes]]


@dataclass(frozen=True)
class ChannelKind:
    """A family of channels, `<name>:<argument>`, and its required scopes.

    Publications of an ordered kind are never dropped and can be recovered; of other kinds only the newest
    matters. Subscribers of a kind that `has_moves` can be notified of joins and leaves.
    """

    name: str
    argument: str
    summary: str
    read: Scope
    write: Scope | None = None
    is_ordered: bool = False
    has_moves: bool = False

    @property
    def form(self) -> str:
        """The pattern of the channels' names for documents."""
        return f"{self.name}:<{self.argument}>" if self.argument else self.name


KINDS = {
    kind.name: kind
    for kind in (
        ChannelKind("quotes", "symbol", "The newest quote of a symbol.", Scope.QUOTES_READ),
        ChannelKind("bars", "symbol", "The current one-minute bar of a symbol.", Scope.QUOTES_READ),
        ChannelKind(
            "chat",
            "room",
            "The messages of a chat room.",
            Scope.CHAT_READ,
            write=Scope.CHAT_WRITE,
            is_ordered=True,
            has_moves=True,
        ),
        ChannelKind("batch", "id", "The progress of a batch of yours.", Scope.BATCHES_READ),
        ChannelKind("task", "id", "The progress of a task of yours.", Scope.BATCHES_READ),
        ChannelKind("email", "id", "The status of a mail of yours.", Scope.EMAILS_READ),
        ChannelKind("alerts", "", "Your price alerts that fire.", Scope.ALERTS_READ, is_ordered=True),
    )
}


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel with its name in canonical form."""

    kind: ChannelKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name}:{self.name}" if self.name else self.kind.name

    def topic(self, owner_id: str) -> str:
        """Return a name that is unique over all owners: `alerts` is a different channel for each."""
        return str(self) if self.name else alert_feed.topic(owner_id)


@dataclass(frozen=True)
class Joined:
    """The state of a channel at the time of subscribing: its position and the initial publications."""

    position: ChannelPosition
    publications: list[Publication] = field(default_factory=list)
    is_recovered: bool = False


def channel_of(text: str) -> Channel:
    """Return the channel named `text`. Raise `CommandError` if there is no such channel."""
    name, _, argument = text.partition(":")
    kind = KINDS.get(name)
    if kind is None or bool(kind.argument) != bool(argument) or text.endswith(":"):
        known = ", ".join(one.form for one in KINDS.values())
        raise CommandError(ErrorCode.UNKNOWN_CHANNEL, f"{text[:100]!r}; the channels are {known}.")
    try:
        return Channel(kind, _spelled(kind, argument))
    except (InvalidInput, ValueError):
        raise CommandError(
            ErrorCode.UNKNOWN_CHANNEL, f"{text[:100]!r} does not name a valid {kind.argument}."
        ) from None


def _spelled(kind: ChannelKind, argument: str) -> str:
    if not kind.argument:
        return ""
    # A batch has one channel for all spellings of its id.
    if kind.argument == "symbol":
        return symbol_of(argument)
    if kind.name != "chat":
        return str(UUID(argument))
    if not is_room(argument):
        raise ValueError(argument)
    return argument


class Channels:
    """Reads the initial state for subscribers, and accepts publications of clients, for every interface."""

    def __init__(
        self,
        *,
        hub: Hub,
        feed: QuoteFeed,
        bars: BarFeed,
        chat: ChatService,
        alerts: AlertFeed,
        find: Mapping[str, FindWork],
        find_quote: FindQuote,
        charge: Charge = charge_nothing,
    ) -> None:
        self.hub = hub
        self.feed = feed
        self.bars = bars
        self._chat = chat
        self._alerts = alerts
        self._find = find
        self._find_quote = find_quote
        self._charge = charge

    async def join(self, access: Access, channel: Channel, since: ChannelPosition | None) -> Joined:
        """Return the initial state for a new subscriber; `since` is the last position that it has seen.

        Raise `Forbidden`, `NotFound`, or an error of reading the state.
        """
        access.require(channel.kind.read, str(channel))
        if channel.kind.name == "quotes":
            now = self.feed.now(channel.name)
            if now is None:
                # Nothing was pushed yet: a request also shows whether the symbol exists.
                quote = orjson.loads(await self._find_quote(channel.name, Deadline.after(_STATE_S)))
                now = self.feed.now(channel.name) or self.feed.publication(quote)
            return Joined(now.position, [now])
        if channel.kind.name == "bars":
            if self.bars.now(channel.name) is None:
                # Nothing was pushed yet: the quote shows whether the symbol exists.
                await self._find_quote(channel.name, Deadline.after(_STATE_S))
            now = self.bars.now(channel.name)
            return Joined(ChannelPosition(NO_EPOCH, 0)) if now is None else Joined(now.position, [now])
        if channel.kind.name == "chat":
            return await self._join_chat(access.principal, channel.name, since)
        if channel.kind.name == "alerts":
            return await self._join_alerts(access.principal, since)
        work = await self._find[channel.kind.name](
            access.principal, UUID(channel.name), Deadline.after(_STATE_S)
        )
        position = ChannelPosition(channel.name, work.get("revision", 0))
        return Joined(position, [Publication(str(channel), position, work)])

    async def publish(
        self, access: Access, channel: Channel, data: Any, *, client: str | None = None
    ) -> ChatMessage:
        """Post `data` of the connection `client` to a chat room.

        It counts in the limit of chat. Raise `Forbidden`, `NotFound`, `InvalidInput` or `RateLimited`.
        """
        if channel.kind.write is None:
            raise CommandError(
                ErrorCode.PERMISSION_DENIED,
                f"{channel} does not accept publications from clients.",
            )
        access.require(channel.kind.write, str(channel))
        await self._charge(access.principal, RateClass.CHAT, 1)
        return await self._chat.post(channel.name, access.principal, data, client=client)

    async def history(
        self, access: Access, channel: Channel, *, limit: int, since: ChannelPosition | None, reverse: bool
    ) -> Joined:
        """Return at most `limit` publications after `since`, or before it in `reverse`.

        Without `since` start at the oldest, or in `reverse` at the newest; -1 means as many as are allowed.
        It counts in the limit of reads, as the routes that list the same do.
        """
        access.require(channel.kind.read, str(channel))
        await self._charge(access.principal, RateClass.READ, 1)
        if not channel.kind.is_ordered:
            raise CommandError(ErrorCode.NOT_AVAILABLE, f"{channel} has no history.")
        most = MOST_HISTORY if limit < 0 else min(limit, MOST_HISTORY)
        if channel.kind.name == "alerts":
            offset = since.offset if since else None
            position, firings = await self._alerts.read(
                access.principal,
                after=None if reverse else offset,
                before=offset if reverse else None,
                newest_first=reverse,
                limit=most,
            )
            _require_epoch(channel, position, since)
            return Joined(position, firings)
        room = await self._chat.room(channel.name, access.principal)
        position = ChannelPosition(room.epoch, room.last_offset)
        _require_epoch(channel, position, since)
        if not most:
            return Joined(position)
        if reverse:
            before = since.offset if since else room.last_offset + 1
            found = await self._chat.before(channel.name, before, most)
        else:
            found = await self._chat.after(channel.name, since.offset if since else 0, most)
        return Joined(position, [publication(message, room.epoch) for message in found])

    def refreshed(self, publication: Publication) -> Publication:
        """Return a publication that has waited, brought up to date."""
        if publication.channel.startswith("bars:"):
            return self.bars.refreshed(publication)
        return self.feed.refreshed(publication)

    async def _join_alerts(self, principal: Principal, since: ChannelPosition | None) -> Joined:
        position = await self._alerts.follow(principal, at_least=since.offset if since else 0)
        if since is None or since.epoch != position.epoch:
            return Joined(position)
        if not since.offset <= position.offset <= since.offset + MOST_RECOVERED:
            return Joined(position)
        # Newer publications are pushed, and must not be sent twice.
        _, missed = await self._alerts.read(principal, after=since.offset, before=position.offset + 1)
        # Firings are kept for a month: an older position cannot be recovered completely.
        is_whole = len(missed) == position.offset - since.offset
        return Joined(position, missed, is_recovered=True) if is_whole else Joined(position)

    async def _join_chat(self, principal: Principal, room: str, since: ChannelPosition | None) -> Joined:
        position = await self._chat.follow(room, principal, at_least=since.offset if since else 0)
        if since is None or since.epoch != position.epoch:
            return Joined(position)
        if not since.offset <= position.offset <= since.offset + MOST_RECOVERED:
            return Joined(position)
        found = await self._chat.after(room, since.offset, MOST_RECOVERED)
        # Newer publications are pushed, and must not be sent twice.
        missed = [publication(one, position.epoch) for one in found if one.offset <= position.offset]
        # Messages that are too large together, or too old, cannot be recovered completely.
        is_whole = len(missed) == position.offset - since.offset
        return Joined(position, missed, is_recovered=True) if is_whole else Joined(position)


def _require_epoch(channel: Channel, position: ChannelPosition, since: ChannelPosition | None) -> None:
    if since is not None and since.epoch and since.epoch != position.epoch:
        raise CommandError(ErrorCode.UNRECOVERABLE_POSITION, f"The epoch of {channel} is {position.epoch}.")

"""The subscriptions of one connection: first the state, then held publications, then new ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from chassis import metrics
from chassis.errors import Overloaded, TooManyAtOnce
from gateway.publishing.positions import ChannelPosition, Handover, HandoverOverflow
from gateway.publishing.publications import Publication
from gateway.publishing.signals import FellBehind, Signal
from gateway.publishing.text_frames import text_frame
from gateway.realtime.access import Access
from gateway.realtime.channels import Channel, Channels, Joined, channel_of
from gateway.realtime.codes import CommandError, ErrorCode, UnsubscribeCode
from gateway.realtime.commands import MOST_CHANNELS, RecoverArguments
from gateway.realtime.presence import Presence
from gateway.realtime.send_queue import SendQueue

_REJECT_UNRECOVERED = 2


@dataclass(slots=True)
class Subscription:
    """One channel of one connection."""

    channel: Channel
    handover: Handover[Publication]
    interval_s: float
    user: str
    is_told_of_moves: bool = False
    stop: Callable[[], None] = lambda: None
    stop_moves: Callable[[], None] = lambda: None

    @property
    def topic(self) -> str:
        """The name of the channel among those of all owners."""
        return self.channel.topic(self.user)


@dataclass(frozen=True)
class Opened:
    """A subscription whose `answer` must be sent before its publications; then call `Subscriptions.begin`."""

    subscription: Subscription
    position: ChannelPosition
    answer: dict[str, Any]


class ReplyRoom:
    """The bytes of recovered publications that one reply may carry, for all of its channels together."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def take(self, size: int) -> bool:
        """Return whether `size` more bytes fit, and count them if they do."""
        fits = size <= self._left
        self._left -= size if fits else 0
        return fits


class Subscriptions:
    """Subscribes, passes publications to the queue, and ends subscriptions beyond the current rights."""

    def __init__(self, channels: Channels, presence: Presence, queue: SendQueue, *, client: str) -> None:
        self._channels = channels
        self._presence = presence
        self._queue = queue
        self._client = client
        self._open: dict[str, Subscription] = {}
        self._has_ended = False

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, name: str) -> bool:
        return name in self._open

    async def open(self, access: Access, name: str, wanted: RecoverArguments, *, room: ReplyRoom) -> Opened:
        """Hold the publications of a channel, and read its state; what is recovered takes from `room`.

        Raise `CommandError` or `ServiceError`.
        """
        channel = channel_of(name)
        name = str(channel)
        if name in self._open:
            raise CommandError(ErrorCode.ALREADY_SUBSCRIBED, name)
        if self._has_ended:
            raise CommandError(ErrorCode.NOT_AVAILABLE, "The connection has ended.")
        if len(self._open) >= MOST_CHANNELS:
            raise CommandError(
                ErrorCode.LIMIT_EXCEEDED, f"A connection may have at most {MOST_CHANNELS} channels."
            )
        interval_s = wanted.data.conflate_ms / 1000 if wanted.data else 0.0
        subscription = Subscription(
            channel,
            Handover(is_ordered=channel.kind.is_ordered),
            interval_s,
            user=access.principal.owner_id,
            is_told_of_moves=wanted.join_leave and channel.kind.has_moves,
        )
        try:
            subscription.stop = self._channels.hub.listen(
                subscription.topic,
                lambda one: self._show(subscription, one),
                owner=subscription.user,
                on_signal=(lambda one: self._take(subscription, one)) if channel.kind.is_ordered else None,
            )
        except (Overloaded, TooManyAtOnce) as error:
            # Unlike the limit of a connection, it may be over soon: a client library tries again.
            raise CommandError(ErrorCode.LIMIT_EXCEEDED, error.detail, is_temporary=True) from None
        self._open[name] = subscription
        since = ChannelPosition(wanted.epoch, wanted.offset) if wanted.recover else None
        try:
            joined = await self._channels.join(access, channel, since)
            if self._open.get(name) is not subscription:
                raise CommandError(ErrorCode.PERMISSION_DENIED, f"The right to {name} was lost.")
            answer = _answer(channel, joined, wanted, room)
        except BaseException:
            self.end(name)
            raise
        return Opened(subscription, joined.position, answer)

    def begin(self, opened: Opened) -> None:
        """Send the held publications after the answer, and new ones from now on."""
        subscription = opened.subscription
        name = str(subscription.channel)
        if self._open.get(name) is not subscription:
            return
        try:
            held = subscription.handover.begin(opened.position)
        except HandoverOverflow:
            self._take_away(
                name, UnsubscribeCode.STATE_LOST, "Too much was published; subscribe and recover."
            )
            return
        for publication in held:
            self._send(subscription, publication)
        if subscription.is_told_of_moves:
            subscription.stop_moves = self._presence.moves.listen(subscription.topic, self._queue.put)
        self._presence.join(
            subscription.topic, self._client, subscription.user, is_told=subscription.channel.kind.has_moves
        )

    def end(self, name: str) -> None:
        """Unsubscribe from a channel."""
        subscription = self._open.pop(name, None)
        if subscription is not None:
            subscription.stop()
            subscription.stop_moves()
            self._queue.forget(name)
            self._presence.leave(
                subscription.topic, self._client, is_told=subscription.channel.kind.has_moves
            )

    def end_all(self) -> None:
        """Unsubscribe from all channels, for good."""
        self._has_ended = True
        for name in list(self._open):
            self.end(name)

    def keep_within(self, access: Access) -> None:
        """End the subscriptions that `access` does not cover, and notify the client of each."""
        for name, subscription in list(self._open.items()):
            if not access.may(subscription.channel.kind.read, name):
                self._take_away(name, UnsubscribeCode.RIGHT_LOST, f"The right to {name} was lost.")

    def _take_away(self, name: str, code: UnsubscribeCode, reason: str) -> None:
        self.end(name)
        push = {"channel": name, "unsubscribe": {"code": int(code), "reason": reason}}
        self._queue.put(text_frame(orjson.dumps({"push": push})))

    def _show(self, subscription: Subscription, publication: Publication) -> None:
        handover = subscription.handover
        if handover.renew(publication) if publication.is_state else handover.offer(publication):
            self._send(subscription, publication)

    def _take(self, subscription: Subscription, signal: Signal) -> None:
        if isinstance(signal, FellBehind):
            metrics.FELL_BEHIND.inc()
        if isinstance(signal, FellBehind) and subscription.handover.position is None:
            # Its client knows of no subscription before the answer, and is told after it.
            subscription.handover.lose()
        elif isinstance(signal, FellBehind):
            reason = "Too much was published for all subscribers of this owner; subscribe and recover."
            self._take_away(str(subscription.channel), UnsubscribeCode.STATE_LOST, reason)
        elif subscription.user in signal.users:
            reason = f"You are no longer a member of {signal.channel}."
            self._take_away(signal.channel, UnsubscribeCode.RIGHT_LOST, reason)

    def _send(self, subscription: Subscription, publication: Publication) -> None:
        if subscription.channel.kind.is_ordered:
            self._queue.put(publication.frame())
        else:
            self._queue.put_latest(publication, interval_s=subscription.interval_s)


def _answer(channel: Channel, joined: Joined, wanted: RecoverArguments, room: ReplyRoom) -> dict[str, Any]:
    publications = [one.document() for one in joined.publications]
    is_recovered = joined.is_recovered
    if is_recovered and not room.take(len(orjson.dumps(publications))):
        # The reply must fit into the queue in addition to the frames that wait.
        publications, is_recovered = [], False
    if wanted.recover and channel.kind.is_ordered:
        metrics.RECOVERIES.labels("recovered" if is_recovered else "lost").inc()
        if not is_recovered and wanted.flag & _REJECT_UNRECOVERED:
            raise CommandError(ErrorCode.UNRECOVERABLE_POSITION, str(channel))
    return {
        "recoverable": channel.kind.is_ordered,
        "positioned": True,
        "epoch": joined.position.epoch,
        "offset": joined.position.offset,
        "was_recovering": wanted.recover,
        "recovered": is_recovered,
        "publications": publications,
    }

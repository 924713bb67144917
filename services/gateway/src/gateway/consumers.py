"""The message edge: events and live messages of the other services, and their handlers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from aiormq.abc import DeliveredMessage

from chassis import logging, metrics, redaction
from chassis.broker import bundles
from chassis.broker.bundles import BrokenBundle
from chassis.broker.envelope import Delivery
from chassis.broker.handlers import Handler, InTransaction
from chassis.broker.rabbitmq import Link
from chassis.postgres import Connection
from contracts import headers as names
from contracts import topology
from contracts.alerts import AlertFired
from contracts.batches import BatchFinished, BatchProgressed
from contracts.domains import DomainChanged
from contracts.emails import EmailStatusChanged
from contracts.gateways import ChatPosted, PresenceTold, WaitingEmailEnded
from contracts.message import Message
from contracts.operations import OperationsAnnounced
from contracts.parked import ParkedChanged
from contracts.schedules import ScheduleFired
from contracts.stocks import BarsTicked, QuotesTicked
from contracts.topology import LIVE
from gateway.acceptance import repository as acceptances
from gateway.alerts import firings as alert_firings
from gateway.alerts import mails as alert_mails
from gateway.alerts.feed import AlertFeed
from gateway.batches import repository as operations
from gateway.chat.service import ChatService
from gateway.domains.senders import VerifiedSenders
from gateway.emails import accepted_mail
from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.realtime.bar_feed import BarFeed
from gateway.realtime.presence import Presence
from gateway.schedules.runs import ScheduledRuns
from gateway.stocks.book import QuoteBook
from gateway.webhooks import events as webhook_events
from gateway.webhooks.promises import Promises

log = logging.get(__name__)

EVENTS = "gateway.events"
_AGES = {
    kind: metrics.LIVE_AGE.labels(kind)
    for kind in (
        QuotesTicked.message_type,
        BarsTicked.message_type,
        BatchProgressed.message_type,
        ChatPosted.message_type,
    )
}
# The beginning of the progress of a batch, as batch-processor writes it; other ones are read as a whole.
BEGIN_OF_PROGRESS = re.compile(rb'\{"batch":\{"id":"([0-9a-f-]{36})","kind":"([a-z]+)"')
# The most messages in a queue that a gateway does not read; a bundle counts as one message.
_MOST_LIVE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class _LiveQueue:
    """A transient queue: its bindings, and its capacity; the oldest messages are dropped first."""

    bindings: tuple[tuple[str, str], ...]
    most: int


LIVE_QUEUES = (
    _LiveQueue(((LIVE, QuotesTicked.routing_key),), 2_000),
    _LiveQueue(((LIVE, BarsTicked.routing_key),), 2_000),
    _LiveQueue(((LIVE, ChatPosted.routing_key),), 10_000),
    _LiveQueue(((LIVE, PresenceTold.routing_key),), 10_000),
    _LiveQueue(
        ((LIVE, "batch.*"), (topology.EVENTS, "email.*"), (LIVE, WaitingEmailEnded.routing_key)), 10_000
    ),
    _LiveQueue(((topology.EVENTS, "alert.*"),), 10_000),
)


def events(
    senders: VerifiedSenders,
    scheduled_runs: ScheduledRuns,
    webhooks: Promises,
    *,
    committed: Callable[[], None],
) -> Mapping[type[Message], Handler]:
    """Return the handlers of durable events: one gateway handles each, in the database that all share.

    `committed` is called after each commit that added messages to the outbox.
    """

    async def emails_changed(
        connection: Connection, deliveries: Sequence[Delivery[EmailStatusChanged]]
    ) -> None:
        changes = [(d.message.email_id, str(d.message.status), d.message.at) for d in deliveries]
        await acceptances.change_statuses(connection, changes)
        happened = (webhook_events.of_mail(delivery.message) for delivery in deliveries)
        await webhooks.promise(connection, [event for event in happened if event is not None])

    async def batches_finished(connection: Connection, deliveries: Sequence[Delivery[BatchFinished]]) -> None:
        now = datetime.now(UTC)
        changes = [
            (d.message.batch.id, str(d.message.batch.status), d.message.batch.finished_at or now)
            for d in deliveries
        ]
        await acceptances.change_statuses(connection, changes)
        await webhooks.promise(connection, [webhook_events.of_batch(d.message, now=now) for d in deliveries])

    async def alerts_fired(connection: Connection, deliveries: Sequence[Delivery[AlertFired]]) -> None:
        await alert_mails.promise(connection, deliveries)
        await webhooks.promise(connection, await alert_firings.events_of(connection, deliveries))

    def fired() -> None:
        committed()
        webhooks.committed()

    return {
        EmailStatusChanged: InTransaction(emails_changed, group=200, committed=webhooks.committed),
        BatchFinished: InTransaction(batches_finished, group=200, committed=webhooks.committed),
        ParkedChanged: InTransaction(_parked_changed, group=50),
        OperationsAnnounced: InTransaction(_operations_announced),
        DomainChanged: InTransaction(senders.changed, group=50),
        AlertFired: InTransaction(alerts_fired, group=100, committed=fired),
        ScheduleFired: InTransaction(scheduled_runs.accept, group=50, committed=committed),
    }


async def _parked_changed(connection: Connection, deliveries: Sequence[Delivery[ParkedChanged]]) -> None:
    for delivery in deliveries:
        await acceptances.note_parked(connection, delivery.message)


async def _operations_announced(
    connection: Connection, deliveries: Sequence[Delivery[OperationsAnnounced]]
) -> None:
    await operations.replace_operations(connection, deliveries[-1].message.operations)


class LiveFeed:
    """Transient messages: every gateway receives all of them, on queues of its own that end with it.

    Ticks, bars, chat, presence, progress and alerts have a queue each: a flood of one kind never displaces
    another.
    """

    def __init__(
        self,
        *,
        book: QuoteBook,
        bars: BarFeed,
        alerts: AlertFeed,
        hub: Hub,
        chat: ChatService,
        presence: Presence,
    ) -> None:
        self._book = book
        self._bars = bars
        self._alerts = alerts
        self._hub = hub
        self._chat = chat
        self._presence = presence

    async def attach(self, link: Link) -> None:
        """Declare the queues and consume them over a new connection."""
        for queue in LIVE_QUEUES:
            channel = await link.channel(confirms=False)
            declared = await channel.queue_declare(
                "",
                exclusive=True,
                auto_delete=True,
                arguments={
                    "x-max-length": queue.most,
                    "x-max-length-bytes": _MOST_LIVE_BYTES,
                    "x-overflow": "drop-head",
                },
            )
            for exchange, key in queue.bindings:
                await channel.queue_bind(declared.queue or "", exchange, routing_key=key)
            channel.on_consumer_cancel_callbacks.add(lambda _: link.interrupt())
            await channel.basic_consume(declared.queue or "", self._take, no_ack=True)
        self._alerts.note_interruption()
        await self._presence.greet()

    async def _take(self, message: DeliveredMessage) -> None:
        properties = message.header.properties
        message_type = properties.message_type or ""
        if message_type != bundles.MESSAGE_TYPE:
            await self._hear(message_type, message.body, properties.headers or {})
            return
        try:
            parts = bundles.unwrap(message.body)
        except BrokenBundle as error:
            log.warning("live messages not understood", reason=error.detail)
            return
        for part in parts:
            await self._hear(part.message_type, part.body, part.headers)

    async def _hear(self, message_type: str, body: bytes, headers: Mapping[str, Any]) -> None:
        try:
            if message_type == QuotesTicked.message_type:
                _push_each(self._book.push, orjson.loads(body)["quotes"])
                metrics.LAST_PUSH.set_to_current_time()
            elif message_type == BarsTicked.message_type:
                _push_each(self._bars.push, orjson.loads(body)["bars"])
            elif message_type == BatchProgressed.message_type:
                begin = BEGIN_OF_PROGRESS.match(body)
                # Of most tasks, nobody follows the progress: those are not read.
                if begin is None or self._hub.has_listeners(f"{begin[2].decode()}:{begin[1].decode()}"):
                    progress = orjson.loads(body)
                    batch = progress["batch"]
                    # Revisions are stored with the batch, so they continue after every restart.
                    position = ChannelPosition(batch["id"], progress["offset"])
                    self._hub.publish(Publication(f"{batch['kind']}:{batch['id']}", position, batch))
            elif message_type in (EmailStatusChanged.message_type, WaitingEmailEnded.message_type):
                change = orjson.loads(body)
                email_id, at = change["email_id"], change["at"]
                # Of most mails, nobody follows the states.
                if self._hub.has_listeners(f"email:{email_id}"):
                    position = ChannelPosition(email_id, accepted_mail.offset(datetime.fromisoformat(at)))
                    data = {"id": email_id, "status": change["status"], "at": at}
                    self._hub.publish(Publication(f"email:{email_id}", position, data))
            elif message_type == AlertFired.message_type:
                await self._alerts.heard(body)
            elif message_type == ChatPosted.message_type:
                await self._chat.heard(body)
            elif message_type == PresenceTold.message_type:
                await self._presence.heard(body)
        except Exception as error:  # any error: the following messages must still be handled
            log.warning(
                "live message cannot be decoded", type=message_type, reason=redaction.safe_message(error)
            )
            return
        histogram, sent_at = _AGES.get(message_type), headers.get(names.SENT_AT)
        if histogram is not None and isinstance(sent_at, int):
            histogram.observe(max(0.0, time.time() - sent_at / 1000))


def _push_each(push: Callable[[Sequence[Any]], None], elements: Sequence[Any]) -> None:
    """Push each element by itself, so that a broken one does not affect the others."""
    for element in elements:
        try:
            push([element])
        except Exception as error:  # as above
            log.warning("part of a live message cannot be decoded", reason=redaction.safe_message(error))

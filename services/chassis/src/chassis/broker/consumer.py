"""The one place that settles messages: decode, validate, inbox, handler, commit, acknowledge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from chassis import exemplars, inbox, logging, metrics, redaction, shares, spans
from chassis.broker import parking, retries
from chassis.broker.activity import Activity
from chassis.broker.arrivals import Arrivals, owner_of
from chassis.broker.envelope import Delivery, text
from chassis.broker.excess import Excess, ExcessTraffic
from chassis.broker.handlers import Direct, Handler
from chassis.broker.incoming import Incoming, Undecodable, UnknownType, context_of
from chassis.broker.publisher import Publisher
from chassis.broker.rabbitmq import Link, cancel_consumer
from chassis.broker.settling import Settler
from chassis.deadlines import Deadline
from chassis.errors import DatabaseUnavailable, ServiceError
from chassis.postgres import Postgres
from chassis.supervision import failure_of
from chassis.waits import until_set
from contracts import headers as names
from contracts.message import Message
from contracts.topology import ladder

log = logging.get(__name__)

_ERROR_LENGTH = 500
_MOST_DOUBTS = 3
_DOUBT_PAUSE_S = 0.5
_PING_EVERY_S = 0.5
# A single count can be older than the consumer.
_MOST_MISSED_COUNTS = 2
# A message that is being handled takes several times its bytes of memory.
GROUP_BYTES = 4 << 20
# The bytes of a group that are read before others have their turn of the loop; about a millisecond.
_READ_AT_ONCE_BYTES = 16 * 1024


class Consumer:
    """Consumes one queue and settles each message: acknowledged, retried on the ladder, or parked.

    `concurrency` groups are handled concurrently, each within `deadline_s` seconds, and none grows beyond the
    message with which it has `group_bytes`. While the database is
    down, messages are kept and not failed: nothing is wrong with them. At a stop they are returned.

    When `most_of_owner` messages of an owner wait here, its further commands go on to their excess queue, if
    they have one: the broker delivers in the order of arrival, and would deliver all of them before those of
    others. They stay if that queue takes no more: here they delay others, there they would delay everybody.
    `traffic` counts those on their way, for all consumers of a process.
    """

    def __init__(
        self,
        queue: str,
        handlers: Mapping[type[Message], Handler],
        *,
        service: str,
        postgres: Postgres,
        publisher: Publisher,
        concurrency: int = 1,
        prefetch: int = 200,
        deadline_s: float = 60,
        most_of_owner: int | None = None,
        traffic: ExcessTraffic | None = None,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self.queue = queue
        self._handlers = {message.message_type: (message, handler) for message, handler in handlers.items()}
        self._service = service
        self._rungs = ladder(service)
        self._postgres = postgres
        self._settler = Settler(queue, publisher, service=service, types=self._handlers.keys())
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._deadline_s = deadline_s
        self._group_bytes = group_bytes
        self._arrived = Arrivals()
        contracts = {message.message_type: message for message in handlers}
        self._excess = Excess(self._arrived, contracts, most=most_of_owner)
        self._traffic = traffic or ExcessTraffic()
        self._channel: Channel | None = None
        self._tag: str | None = None
        self._activity = Activity()
        self._stopping = asyncio.Event()
        self._missed_counts = 0
        self._ages = metrics.MESSAGE_AGE.labels(queue)
        self._reason: str | None = "not consuming yet"
        metrics.QUEUE_CONSUMERS_EXPECTED.labels(queue).set(1)
        metrics.CONSUMER_PAUSED.labels(queue).set(0)

    async def attach(self, link: Link) -> None:
        """Start consuming over a new connection."""
        if self._stopping.is_set():
            return
        channel = await link.channel(confirms=False)
        await channel.basic_qos(prefetch_count=self._prefetch)
        # Messages of an earlier connection will be delivered again: forget them.
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._link, self._channel, self._missed_counts = link, channel, 0
        self._settler.attach(link, channel)
        channel.on_consumer_cancel_callbacks.add(lambda _: link.interrupt())
        started = await channel.basic_consume(self.queue, self._take)
        self._tag = started.consumer_tag
        self._reason = None

    def lost(self) -> None:
        """Forget the connection, which is gone."""
        self._channel = None
        self._settler.lost()
        self._reason = "consumer lost its connection"

    def check(self) -> str | None:
        """Return why nothing is consumed, for readiness; the connection itself may be up."""
        channel = self._channel
        if self._reason is None and channel is not None and self._tag not in channel.consumers:
            return "the broker has no consumer of this process on the queue"
        return self._reason

    def is_missing_among(self, consumers: int) -> bool:
        """Return whether the broker lists no consumer, although this one should be there.

        Reconnect at the second time in a row.
        """
        if consumers or self._channel is None or self._stopping.is_set():
            self._missed_counts = 0
            return False
        self._missed_counts += 1
        if self._missed_counts == _MOST_MISSED_COUNTS:
            self._reason = "the broker lists no consumer on this queue"
            log.error("the broker lists no consumer, reconnecting", queue=self.queue)
            self._link.interrupt()
        return True

    def stuck(self) -> str | None:
        """Return which worker hangs, for liveness: busy for twice the deadline of a handling."""
        still_s = self._activity.longest_s()
        return (
            f"a worker has made no progress for {still_s:.0f} s" if still_s > 2 * self._deadline_s else None
        )

    async def run(self) -> None:
        """Handle messages until cancelled."""
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._concurrency):
                    workers.create_task(self._work())
        except Exception:
            # Nothing settles the messages that the workers were handling: a new connection redelivers them.
            self._link.interrupt()
            raise

    async def drain(self, deadline: Deadline) -> None:
        """Stop taking messages and wait until those at work are settled, or the deadline has passed.

        Messages that wait for an outage to end are returned now: it may last longer.
        """
        self._stopping.set()
        self._reason = "stopping"
        metrics.QUEUE_CONSUMERS_EXPECTED.labels(self.queue).set(0)
        tag, self._tag = self._tag, None
        await cancel_consumer(self._channel, tag)
        self._settler.stop()
        while deadline.remaining_s():
            if self._arrived.empty() and self._activity.is_idle and self._settler.is_idle:
                return
            await asyncio.sleep(0.02)

    async def _take(self, message: DeliveredMessage) -> None:
        incoming = Incoming.of(message)
        async with self._settling(incoming):
            whole = None if message.redelivered else self._excess.of_all(incoming)
            if whole is not None:
                with self._traffic.moving(whole.types.total()):
                    is_gone = await self._settler.move_whole(
                        incoming, whole.queue, "excess", types=whole.types
                    )
                if not is_gone:
                    self._keep(*incoming.parts())
                return
            try:
                parts = await self._settler.open(incoming, is_again=bool(message.redelivered))
            except Undecodable as error:
                await self._fail(incoming, error)
                return
            excess: dict[str, list[Incoming]] = {}
            for part in parts:
                if excess_queue := self._excess.queue_of(part.message_type, owner_of(part.headers)):
                    excess.setdefault(excess_queue, []).append(part)
                else:
                    self._keep(part)
            for excess_queue, some in excess.items():
                with self._traffic.moving(len(some)):
                    is_gone = await self._settler.move_together(some, excess_queue, "excess")
                if not is_gone:
                    self._keep(*some)

    def _keep(self, *messages: Incoming) -> None:
        for incoming in messages:
            # Those of a connection that was lost will be delivered again.
            if incoming.channel is self._channel:
                incoming.observe_age(self._ages)
                self._arrived.put_nowait(incoming)
        self._traffic.notice()

    async def _work(self) -> None:
        while True:
            await self._traffic.wait(is_urgent=self._excess.is_urgent)
            group = [await self._arrived.get()]
            most, size = self._most_with(group[0]), len(group[0].body)
            # Messages that have arrived meanwhile are handled with it, up to a number and a size.
            while len(group) < most and size < self._group_bytes and not self._arrived.empty():
                group.append(self._arrived.get_nowait())
                most = min(most, self._most_with(group[-1]))
                size += len(group[-1].body)
            with self._activity.busy():
                await self._settle_group(group)

    def _most_with(self, incoming: Incoming) -> int:
        """Return how many messages may be handled together when this is one of them."""
        _, handler = self._handlers.get(incoming.message_type, (None, None))
        return handler.group if handler else 1

    async def _settle_group(self, group: list[Incoming]) -> None:
        decoded: dict[str, list[Incoming]] = {}
        unyielded = 0
        for incoming in group:
            unyielded += len(incoming.body)
            if unyielded > _READ_AT_ONCE_BYTES:
                unyielded = len(incoming.body)
                await asyncio.sleep(0)
            contract, _ = self._handlers.get(incoming.message_type, (None, None))
            try:
                fit = incoming.fit(contract)
            except (Undecodable, UnknownType) as error:
                await self._end(incoming, error, time.time_ns())
            else:
                decoded.setdefault(fit.message_type, []).append(fit)
        for message_type, messages in decoded.items():
            await self._handle(self._handlers[message_type][1], messages)

    async def _handle(self, handler: Handler, group: list[Incoming]) -> None:
        started, started_ns = time.perf_counter(), time.time_ns()
        with context_of(group), spans.following():
            error = await self._try(handler, group)
        if error is None:
            elapsed_s = time.perf_counter() - started
            exemplar = exemplars.of_messages(*(incoming.traceparent for incoming in group))
            metrics.HANDLE_SECONDS.labels(self.queue, group[0].message_type).observe(elapsed_s, exemplar)
        elif len(group) > 1:
            # One bad message must not fail the others.
            for part in shares.parts_of(group, lambda one: text(one.headers, names.TENANT) or ""):
                for incoming in part:
                    self._record(incoming, started_ns, error)
                await self._handle(handler, part)
            return
        if error is None and not logging.Verbosity.is_debug:
            # The usual case, in which nothing is logged for a single message.
            for incoming in group:
                self._record(incoming, started_ns, None)
                await self._settler.acknowledge(incoming)
            return
        for incoming in group:
            await self._end(incoming, error, started_ns)

    async def _end(self, incoming: Incoming, error: BaseException | None, started_ns: int) -> None:
        self._record(incoming, started_ns, error)
        async with self._settling(incoming):
            if isinstance(error, DatabaseUnavailable) and self._stopping.is_set():
                await self._settler.give_back(incoming)
            elif error is not None:
                await self._fail(incoming, error)
            else:
                log.debug("message handled", queue=self.queue, type=incoming.message_type)
                await self._settler.acknowledge(incoming)

    @asynccontextmanager
    async def _settling(self, incoming: Incoming) -> AsyncIterator[None]:
        """Run the block in the trace of the message, and return one that the block cannot settle."""
        with incoming.message_context():
            try:
                yield
            except Exception:
                # The others are handled; the broker parks a message that comes back too often.
                log.exception("failed message could not be moved", queue=self.queue)
                await self._settler.give_back(incoming, has_failed=True)

    def _record(self, incoming: Incoming, started_ns: int, error: BaseException | None) -> None:
        if spans.SpanRecorder.tracer is None:
            return
        # The link to the trace that made the message survives retries, parking and replay, like the header.
        spans.record(
            f"process {incoming.message_type}",
            "consumer",
            incoming.traceparent,
            started_ns=started_ns,
            ended_ns=time.time_ns(),
            attributes={
                "messaging.system": "rabbitmq",
                "messaging.destination.name": self.queue,
                "messaging.message.id": incoming.message_id,
                "tickwire.attempt": incoming.attempt,
            },
            failed=None if error is None else redaction.safe_message(error)[:_ERROR_LENGTH],
            is_linked=True,
        )

    async def _try(self, handler: Handler, group: list[Incoming]) -> BaseException | None:
        """Call the handler; return why it failed.

        Wait for the end of an outage of the database, until a stop. A handler that reports an outage several
        times running while the database answers has failed: its statement may be the cause.
        """
        doubts, deliveries = 0, [m.delivery for m in group if m.delivery is not None]
        while True:
            # In a separate task: a handler that cancels itself, or the like, ends only that.
            error = await failure_of(partial(self._call, handler, deliveries), timeout_s=self._deadline_s)
            self._activity.made()
            if not isinstance(error, DatabaseUnavailable):
                return error
            doubts = 0 if await self._wait_for_database(error) else doubts + 1
            self._activity.made()
            if doubts == _MOST_DOUBTS or self._stopping.is_set():
                return error
            await asyncio.sleep(doubts * _DOUBT_PAUSE_S)

    async def _call(self, handler: Handler, deliveries: list[Delivery[Any]]) -> None:
        if isinstance(handler, Direct):
            for delivery in deliveries:
                await handler.function(delivery)
            return
        async with self._postgres.transaction() as connection:
            fresh = await inbox.claim(connection, self.queue, [d.message_id for d in deliveries])
            first_of = {
                delivery.message_id: delivery for delivery in deliveries if delivery.message_id in fresh
            }
            metrics.INBOX_DUPLICATES.labels(self.queue).inc(len(deliveries) - len(first_of))
            if first_of:
                await handler.function(connection, list(first_of.values()))
        handler.committed()

    async def _wait_for_database(self, error: DatabaseUnavailable) -> bool:
        """Wait until the database answers; return whether it was down."""
        log.warning("consumer paused", queue=self.queue, reason=error.detail)
        metrics.CONSUMER_PAUSED.labels(self.queue).set(1)
        was_away = False
        while not self._stopping.is_set() and not await self._postgres.ping():
            was_away = True
            # A worker that waits for the database is not stuck.
            self._activity.made()
            await until_set(self._stopping, _PING_EVERY_S)
        metrics.CONSUMER_PAUSED.labels(self.queue).set(0)
        return was_away

    async def _fail(self, incoming: Incoming, error: BaseException) -> None:
        """Put the message on the rung where it waits for its next attempt; park it when none is left."""
        is_permanent = isinstance(error, asyncpg.DataError) or (
            isinstance(error, ServiceError) and not error.retryable
        )
        reason = "permanent" if is_permanent else "attempts-exhausted"
        rung = None if is_permanent else retries.rung_after(incoming.attempt, self._rungs)
        if isinstance(error, UnknownType | Undecodable):
            reason = error.code
        # A newer replica cannot know a message without a type either.
        if (is_unknown := isinstance(error, UnknownType)) and incoming.message_type:
            rung = retries.rung_of_unknown(incoming.unknown_waits, self._rungs)
        message = redaction.safe_message(error)[:_ERROR_LENGTH]
        log.warning(
            "message failed",
            queue=self.queue,
            type=incoming.message_type,
            attempt=incoming.attempt,
            next=rung.queue if rung else "parked",
            exc_info=None if isinstance(error, ServiceError) else error,
            error=message,
        )
        if rung is None:
            copy = parking.copy_for(incoming, self._service, queue=self.queue, reason=reason, error=message)
            await self._settler.move(incoming, [copy], "park")
        else:
            copy = retries.copy_for(incoming, rung, queue=self.queue, error=message, is_unknown=is_unknown)
            await self._settler.move(incoming, [copy], "retry")

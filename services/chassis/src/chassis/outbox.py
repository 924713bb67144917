"""The outbox: messages written in the business transaction, and published by a relay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

import orjson

from chassis import beats, logging, metrics, outbox_rows, queries, redaction, spans
from chassis.broker.envelope import Outgoing, text
from chassis.broker.publisher import ConnectionBroken, Publisher
from chassis.errors import BrokerUnavailable, Overloaded, ServiceError, Unavailable
from chassis.outbox_room import MOST_WAITING, OutboxRoom
from chassis.outbox_rows import WaitingRow
from chassis.postgres import DATABASE_FAILURES, Connection, Postgres
from chassis.waits import until_set
from contracts import headers as names

log = logging.get(__name__)

_SQL = queries.of("chassis")
# Messages that have failed are published each alone: one that hangs holds up few others.
_FAILED_STEP = 10
# A step ends with the message that reaches this: two hundred of the largest would not fit into memory.
STEP_BYTES = 4 * 1024 * 1024
# Less than the second between two measurements, the second of which may come a little early.
_MEASURED_FOR_S = 0.9
_PUBLISH_TIMEOUT_S = 10
# Attempts for a message that the broker rejects or that cannot be encoded; the first is made with others.
_MOST_REFUSALS = 5
# Attempts for a message that no queue accepts, half a minute apart: about an hour.
_MOST_RETURNS = 120

# While an old snapshot is held, the rows of sent messages stay in the table. A measurement that begins where
# the remaining rows begin skips them; rows that took longer to commit than this need a complete measurement.
_COMMITTED_WITHIN_S = 10
_WHOLE_LOOK_EVERY_S = 30
_EPOCH = datetime.fromtimestamp(0, UTC)

Park = Callable[[Connection, int, str], Awaitable[None]]


async def add(connection: Connection, messages: Sequence[Outgoing]) -> None:
    """Write `messages` in the caller's transaction; they leave after it has committed."""
    packed = outbox_rows.pack(messages)
    rows = columns([row for row, _ in packed])
    await connection.execute(_SQL["add_to_outbox"], *rows, [count for _, count in packed])


def columns(messages: Sequence[Outgoing]) -> tuple[list[object], ...]:
    """Return `messages` as six arrays, one per column of the outbox, for statements on many rows."""
    return (
        [UUID(message.message_id) for message in messages],
        [message.exchange for message in messages],
        [message.routing_key for message in messages],
        [message.message_type for message in messages],
        [orjson.dumps(dict(message.headers)).decode() for message in messages],
        [message.body for message in messages],
    )


class OutboxRelay:
    """Publishes the messages of the outbox, oldest first, and deletes those that the broker has confirmed.

    The process that wrote messages wakes it (`wake`). Messages that another replica left behind, or that
    failed before, are published when the measurement of each second finds messages in the outbox. Rows are
    locked while they are published, so replicas never overlap. A row that has failed is published over a
    separate connection from then on, and finally passed to `park` with the reason, so that it does not hold
    up others.
    """

    def __init__(
        self,
        postgres: Postgres,
        publisher: Publisher,
        *,
        park: Park,
        bound: int = MOST_WAITING,
        step: int = 200,
        poll_s: float = 1,
    ) -> None:
        self._postgres = postgres
        self._publisher = publisher
        self._park = park
        self._room = OutboxRoom(bound)
        self._step = step
        self._poll_s = poll_s
        self._wake = asyncio.Event()
        self._has_messages = asyncio.Event()
        self._depth = 0
        self._measured_at = 0.0
        # No remaining row is due before this time.
        self.due_from = _EPOCH
        self._look_whole_at = 0.0

    def wake(self) -> None:
        """Publish the messages that were just committed, at once."""
        self._wake.set()

    def require_room(self, messages: int = 1) -> None:
        """Count messages of the present owner that are to be written, or raise, as `OutboxRoom.take` does."""
        self._room.take(messages)

    async def run(self) -> None:
        """Publish messages that have not failed yet, until cancelled."""
        while True:
            was_woken = self._wake.is_set()
            self._wake.clear()
            await self._run_once(self.flush, has_work=was_woken)
            await until_set(self._wake, beats.due_in_s(self._poll_s))

    async def run_failed(self) -> None:
        """Publish messages that have failed before, each alone, until cancelled."""
        while True:
            # Set by `run`, which measures for both.
            await self._has_messages.wait()
            await self._run_once(self._drain_failed)
            await beats.following(self._poll_s)

    async def flush(self) -> None:
        """Publish all that is due and has not failed yet; the last step before a shutdown."""
        is_more = True
        while is_more:
            async with self._postgres.transaction() as connection:
                rows = await _take(connection, "take_fresh", self._step, self.due_from, STEP_BYTES)
                if not rows:
                    break
                self._has_messages.set()
                started_ns = time.time_ns()
                messages = [message for row in rows for message in row.messages]
                outcomes = await self._publisher.publish_together(messages)
                for message, error in zip(messages, outcomes, strict=True):
                    _tell(message, error, started_ns=started_ns)
                await _settle(connection, rows, outcomes)
            # While the broker accepts nothing, the next step would be in vain. Messages that cannot be
            # encoded are out of the way now, and those behind them must not wait.
            # A bundle has more bytes than its messages, but not twice as many.
            is_full = len(rows) == self._step or sum(len(one.body) for one in messages) >= STEP_BYTES // 2
            is_more = is_full and any(map(_is_no_fault_of_the_broker, outcomes))
            # Under a constant load, nothing else measures how many messages wait.
            await self._measure()

    async def _run_once(self, drain: Callable[[], Awaitable[None]], *, has_work: bool = False) -> None:
        try:
            is_connected = await self._publisher.wait_connected(self._poll_s)
            await self._measure()
            if is_connected and (has_work or self._depth):
                await drain()
        except DATABASE_FAILURES as error:
            log.warning("outbox pass failed, retrying", reason=redaction.safe_message(error))
            await asyncio.sleep(1)

    async def _publish_alone(self, message: Outgoing) -> Exception | None:
        started_ns = time.time_ns()
        try:
            await self._publisher.publish_alone(message, timeout_s=_PUBLISH_TIMEOUT_S)
        except Exception as error:  # whatever it is, the other messages must be published
            _tell(message, error, started_ns=started_ns)
            return error
        _tell(message, None, started_ns=started_ns)
        return None

    async def _drain_failed(self) -> None:
        is_more = True
        while is_more:
            async with self._postgres.transaction() as connection:
                rows = await _take(connection, "take_failed", _FAILED_STEP)
                if not rows:
                    break
                outcomes = await asyncio.gather(*(self._publish_alone(row.messages[0]) for row in rows))
                sent = [row.id for row, error in zip(rows, outcomes, strict=True) if error is None]
                await connection.execute(_SQL["delete_sent"], sent)
                failed = [(row, error) for row, error in zip(rows, outcomes, strict=True) if error]
                for row, error in failed:
                    await self._postpone_or_park(connection, row, error)
            is_more = len(rows) == _FAILED_STEP

    async def _postpone_or_park(self, connection: Connection, row: WaitingRow, error: Exception) -> None:
        # Without a broker, or with a full queue, the message itself is not to blame.
        is_counted = isinstance(error, ConnectionBroken) or not isinstance(
            error, (TimeoutError, Overloaded, BrokerUnavailable)
        )
        most = _MOST_RETURNS if type(error) is Unavailable else _MOST_REFUSALS
        if not is_counted or row.attempts + 1 < most:
            await connection.execute(_SQL["postpone"], [row.id], int(is_counted))
            return
        reason = redaction.safe_message(error)
        await self._park(connection, row.id, reason)
        message = row.messages[0]
        with message.message_context():
            log.error("message parked", type=message.message_type, reason=reason)

    def look_whole(self) -> None:
        """Make the next measurement complete: begin with the oldest message."""
        self._look_whole_at = 0.0

    async def _measure(self) -> None:
        if time.monotonic() - self._measured_at >= _MEASURED_FOR_S:
            await self.measure()

    async def measure(self) -> None:
        """Measure how many messages wait, and remember where they begin."""
        self._measured_at = time.monotonic()
        if self._measured_at >= self._look_whole_at:
            self._look_whole_at = self._measured_at + _WHOLE_LOOK_EVERY_S
            self.due_from = _EPOCH
        arguments = self._room.most, self.due_from, _COMMITTED_WITHIN_S
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(_SQL["measure_outbox"], *arguments)
        assert row is not None
        self.due_from = row["due_from"]
        self._depth = row["depth"]
        self._room.note_depth(self._depth)
        if self._depth:
            self._has_messages.set()
        else:
            self._has_messages.clear()
        metrics.OUTBOX_DEPTH.set(row["depth"])
        metrics.OUTBOX_OLDEST.set(row["oldest_s"])


async def _take(connection: Connection, statement: str, *arguments: object) -> list[WaitingRow]:
    records = await connection.fetch(_SQL[statement], *arguments)
    # Rows that have failed are published unopened.
    return [outbox_rows.read(record, opened=statement == "take_fresh") for record in records]


async def _settle(
    connection: Connection, rows: Sequence[WaitingRow], outcomes: Sequence[Exception | None]
) -> None:
    """Delete what was sent, and leave what failed for `run_failed`, which publishes each message alone."""
    sent: list[int] = []
    suspect: list[int] = []
    failed: list[int] = []
    following = iter(outcomes)
    for row in rows:
        errors = list(islice(following, len(row.messages)))
        left = [(message, e) for message, e in zip(row.messages, errors, strict=True) if e is not None]
        if not left:
            sent.append(row.id)
        elif len(left) == len(errors) and not any(_has_failed(error) for _, error in left):
            continue
        elif len(errors) > 1:
            attempts = [int(_has_failed(error)) for _, error in left]
            parts = columns([message for message, _ in left])
            await connection.execute(_SQL["split_bundle"], row.id, *parts, attempts)
        elif isinstance(errors[0], ConnectionBroken):
            suspect.append(row.id)
        else:
            failed.append(row.id)
    # Nearly always everything was sent, which saves two statements.
    if sent:
        await connection.execute(_SQL["delete_sent"], sent)
    if suspect:
        await connection.execute(_SQL["suspect"], suspect)
    if failed:
        await connection.execute(_SQL["postpone"], failed, 1)


def _is_no_fault_of_the_broker(error: Exception | None) -> bool:
    return not isinstance(error, (ServiceError, TimeoutError, OSError))


def _has_failed(error: Exception) -> bool:
    """Return whether a message was attempted; without a broker that accepts messages it was not."""
    return type(error) is not BrokerUnavailable


def _tell(message: Outgoing, error: Exception | None, *, started_ns: int) -> None:
    """Log the outcome of a publish, and record its span when it succeeded."""
    if error is not None or logging.Verbosity.is_debug:
        with message.message_context():
            if error is None:
                log.debug("message published", type=message.message_type)
            else:
                reason = redaction.safe_message(error)
                log.warning("message stays in the outbox", type=message.message_type, reason=reason)
    if error is not None or spans.SpanRecorder.tracer is None:
        return
    spans.record(
        f"publish {message.message_type}",
        "producer",
        text(message.headers, names.TRACEPARENT),
        started_ns=started_ns,
        ended_ns=time.time_ns(),
        attributes={
            "messaging.system": "rabbitmq",
            "messaging.destination.name": message.exchange,
            "messaging.rabbitmq.destination.routing_key": message.routing_key,
            "messaging.message.id": message.message_id,
        },
    )

"""The outbox: messages written in the business transaction, brought to the broker by a relay."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import orjson

from chassis import logging, metrics, redaction, spans
from chassis.broker.envelope import Outgoing, text
from chassis.broker.rabbitmq import Publisher
from chassis.errors import DatabaseUnavailable, Overloaded, Unavailable
from chassis.postgres import Connection, Postgres
from contracts import headers as names

log = logging.get(__name__)

INSERT = """
INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::bytea[])
"""
_TAKE = """
SELECT id, message_id, exchange, routing_key, message_type, headers, body, attempts
FROM outbox WHERE due_at <= now() ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED
"""
_DELETE = "DELETE FROM outbox WHERE id = ANY($1::bigint[])"
_POSTPONE = """
UPDATE outbox SET attempts = attempts + 1,
    due_at = now() + least(30, 0.5 * 2 ^ least(attempts, 6)) * interval '1 s'
WHERE id = ANY($1::bigint[])
"""
_MEASURE = """
SELECT count(*) AS depth, greatest(0, extract(epoch FROM now() - min(created_at)))::float8 AS oldest_s
FROM (SELECT created_at FROM outbox ORDER BY id LIMIT $1) AS head
"""


async def add(connection: Connection, messages: Sequence[Outgoing]) -> None:
    """Write `messages` in the caller's transaction; they leave after it has committed."""
    await connection.execute(INSERT, *columns(messages))


def columns(messages: Sequence[Outgoing]) -> tuple[list[object], ...]:
    """`messages` as the six arrays that `INSERT` takes, for statements that do more at once."""
    return (
        [UUID(message.message_id) for message in messages],
        [message.exchange for message in messages],
        [message.routing_key for message in messages],
        [message.message_type for message in messages],
        [orjson.dumps(dict(message.headers)).decode() for message in messages],
        [message.body for message in messages],
    )


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    message: Outgoing


class Relay:
    """Publishes what is in the outbox, oldest first, and deletes what the broker has confirmed.

    It is woken by the process that wrote (`wake`) and looks by itself every `poll_s` seconds, which finds
    what another replica left behind. Rows are locked while they are published, so replicas never overlap.
    """

    def __init__(
        self,
        postgres: Postgres,
        publisher: Publisher,
        *,
        bound: int = 100_000,
        step: int = 500,
        poll_s: float = 0.5,
    ) -> None:
        self._postgres = postgres
        self._publisher = publisher
        self._bound = bound
        self._step = step
        self._poll_s = poll_s
        self._wake = asyncio.Event()
        self._depth = 0
        self._measured_at = 0.0

    def wake(self) -> None:
        """Say that something was just committed."""
        self._wake.set()

    def require_room(self) -> None:
        """Raise `Overloaded` while the outbox holds its bound of messages."""
        if self._depth >= self._bound:
            raise Overloaded(
                "Too much accepted work is waiting for the message broker; try again later.", retry_after_s=10
            )

    async def run(self) -> None:
        """Relay for ever."""
        while True:
            try:
                if await self._publisher.wait_connected(self._poll_s):
                    await self._drain()
                await self._measure()
            except (DatabaseUnavailable, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("the outbox cannot be read", reason=redaction.safe_message(error))
                await asyncio.sleep(1)
            except Exception:
                # Whatever it was, the rows are there: without a relay they would be there for ever.
                log.exception("relaying failed")
                await asyncio.sleep(1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._poll_s)
            self._wake.clear()

    async def flush(self) -> None:
        """Publish all that is due now; the last act before a shutdown."""
        await self._drain()

    async def _drain(self) -> None:
        while await self._relay_step() == self._step:
            # Under a load that never lets up this is the only place that sees how much waits.
            await self._measure()

    async def _relay_step(self) -> int:
        async with self._postgres.transaction() as connection:
            rows = [_row(record) for record in await connection.fetch(_TAKE, self._step)]
            if not rows:
                return 0
            outcomes = await asyncio.gather(*(self._publish(row.message) for row in rows))
            sent = [row.id for row, ok in zip(rows, outcomes, strict=True) if ok]
            kept = [row.id for row, ok in zip(rows, outcomes, strict=True) if not ok]
            await connection.execute(_DELETE, sent)
            if kept:
                await connection.execute(_POSTPONE, kept)
            # A step that only failed must not be followed by another at once.
            return len(rows) if sent else 0

    async def _publish(self, message: Outgoing) -> bool:
        try:
            started_ns = time.time_ns()
            await self._publisher.publish(message)
            _record_publish(message, started_ns)
        except Unavailable as error:
            with message.message_context():
                log.warning("message stays in the outbox", type=message.message_type, reason=error.detail)
            return False
        if logging.Verbosity.is_debug:
            with message.message_context():
                log.debug("message published", type=message.message_type)
        return True

    async def _measure(self) -> None:
        if time.monotonic() - self._measured_at < 1:
            return
        self._measured_at = time.monotonic()
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(_MEASURE, self._bound)
        assert row is not None
        self._depth = row["depth"]
        metrics.OUTBOX_DEPTH.set(row["depth"])
        metrics.OUTBOX_OLDEST.set(row["oldest_s"])


def _record_publish(message: Outgoing, started_ns: int) -> None:
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


def _row(record: asyncpg.Record) -> _Row:
    message = Outgoing(
        exchange=record["exchange"],
        routing_key=record["routing_key"],
        message_type=record["message_type"],
        message_id=str(record["message_id"]),
        headers=orjson.loads(record["headers"]),
        body=record["body"],
    )
    return _Row(record["id"], message)

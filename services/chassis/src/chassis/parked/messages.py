"""Parked messages in the service's database: stored, listed, inspected, replayed, discarded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from chassis import logging, metrics, plain, queries, redaction, tracing
from chassis.broker import bundles
from chassis.broker.answering import Answer
from chassis.broker.bundles import Part
from chassis.broker.envelope import text
from chassis.broker.rabbitmq import AWAY, Link
from chassis.broker.retries import without_broker_headers
from chassis.deadlines import Deadline
from chassis.errors import DatabaseUnavailable, InvalidInput, NotFound
from chassis.paging import page_of
from chassis.parked import news
from chassis.postgres import Connection, Postgres, affected_rows
from contracts import headers as names
from contracts.message import Request
from contracts.parked import (
    CountParked,
    DiscardParked,
    InspectParked,
    ListParked,
    ParkedChanged,
    ParkedCount,
    ParkedDecided,
    ParkedDetail,
    ParkedFilter,
    ParkedMessage,
    ParkedPage,
    ReplayParked,
)
from contracts.topology import parked_queue

log = logging.get(__name__)

_PAUSE_S = 1
_DELIVERY_LIMIT = "delivery-limit"
_DIED = "the consumer died with this message each time"
_MOST_ATTEMPTS = 1_000_000
_CLEAN_STEP = 1000
# The limit of AMQP for names; a longer one would not fit into an index.
_LONGEST_NAME = 255
_LONGEST_HEADER = 1_000_000
_LATEST_MS = 253_402_300_800_000

_SQL = queries.of("chassis")
_UNPUBLISHABLE = "unpublishable"
# Headers that parking added. If a replayed message kept them and crashed its consumer, the broker would park
# it with them, and it would be taken for the same parking.
_OF_PARKING = [
    names.PARKED_AT,
    names.REASON,
    names.QUEUE,
    names.ERROR,
    names.FIRST_ERROR,
    names.UNKNOWN_WAITS,
]


async def park_unpublishable(connection: Connection, row_id: int, error: str) -> None:
    """Move a message that cannot be published from the outbox to the parked ones, in this transaction."""
    row = await connection.fetchrow(_SQL["park_unpublishable"], row_id, _UNPUBLISHABLE, error)
    # An event about an event that cannot be published would be parked in turn.
    if row is not None and row["message_type"] != ParkedChanged.message_type:
        await news.tell(connection, "parked", [row["message_id"]], reason=_UNPUBLISHABLE)


class Parked:
    """The parked messages of one service."""

    def __init__(self, postgres: Postgres, *, replayed: Callable[[], None] = lambda: None) -> None:
        self._postgres = postgres
        self._replayed = replayed
        self._queues: set[str] = set()

    def expect(self, queue: str) -> None:
        """Report `queue` in the gauge even while nothing of it is parked."""
        self._queues.add(queue)

    def answers(self) -> Mapping[type[Request], Answer]:
        """Return the handlers of the requests about parked messages, which every service answers."""
        return {
            ListParked: self.page,
            InspectParked: self.inspect,
            CountParked: self.count,
            ReplayParked: self.replay,
            DiscardParked: self.discard,
        }

    async def store(self, message: DeliveredMessage) -> None:
        """Store a message from the parked queue; store each part of a bundle by itself."""
        properties = message.header.properties
        whole = Part(
            properties.message_type or "", properties.message_id or "", properties.headers or {}, message.body
        )
        async with self._postgres.transaction() as connection:
            for part in bundles.parts_of_parked(whole):
                await self._store(connection, part)

    async def _store(self, connection: Connection, message: Part) -> None:
        headers = {**message.headers, **_death(message.headers)}
        attempts = headers.get(names.ATTEMPT)
        reason = plain.text(text(headers, names.REASON) or "", most=_LONGEST_NAME) or _DELIVERY_LIMIT
        stored = await connection.execute(
            _SQL["store_parked"],
            plain.text(message.message_id, most=_LONGEST_NAME),
            plain.text(message.message_type, most=_LONGEST_NAME),
            plain.text(text(headers, names.QUEUE) or "", most=_LONGEST_NAME),
            reason,
            attempts if isinstance(attempts, int) and 0 < attempts < _MOST_ATTEMPTS else 1,
            plain.text(text(headers, names.FIRST_ERROR) or "") or _DIED,
            plain.text(text(headers, names.ERROR) or "") or _DIED,
            plain.json(without_broker_headers(headers), most_characters=_LONGEST_HEADER),
            message.body,
            _moment(headers.get(names.SENT_AT)),
            _moment(headers.get(names.PARKED_AT)) or datetime.now(UTC),
        )
        # An event about an event that cannot be handled would be parked in turn.
        if stored == "INSERT 0 1" and message.message_type != ParkedChanged.message_type:
            await news.tell(connection, "parked", [message.message_id], reason=reason)

    async def page(self, request: ListParked, _: Deadline) -> ParkedPage:
        """Return a page of parked messages."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                _SQL["list_parked"],
                *_arguments(request.wanted),
                request.state,
                request.after,
                request.limit + 1,
            )
        page, following = page_of(rows, request.limit, lambda row: row["id"])
        return ParkedPage(data=list(map(_message, page)), next_after=following)

    async def inspect(self, request: InspectParked, _: Deadline) -> ParkedDetail:
        """Return one parked message with its headers and body. Raise `NotFound`."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(_SQL["get_parked"], request.id)
        if row is None:
            raise NotFound(f"There is no parked message {request.id}.")
        try:
            body = orjson.loads(row["body"])
        except orjson.JSONDecodeError:
            body = row["body"].decode("utf-8", "replace")
        return ParkedDetail(message=_message(row), headers=orjson.loads(row["headers"]), body=body)

    async def count(self, request: CountParked, _: Deadline) -> ParkedCount:
        """Return how many messages a replay or a discard would find."""
        _require_choice(request.wanted)
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(_SQL["count_matching_parked"], *_arguments(request.wanted))
        return ParkedCount.model_validate(dict(row or {}))

    async def replay(self, request: ReplayParked, _: Deadline) -> ParkedDecided:
        """Send messages to their queues again under their old ids, with attempts counted from 1.

        Those without a valid id are skipped and stay parked: they can only be discarded.
        """
        _require_choice(request.wanted)
        now = {names.ATTEMPT: 1, names.SENT_AT: int(time.time() * 1000)}
        decision = _decision(request, "replayed")
        async with self._postgres.transaction() as connection:
            row = await connection.fetchrow(
                _SQL["replay_parked"], *decision, request.rate_per_s, _OF_PARKING, orjson.dumps(now).decode()
            )
            assert row is not None
            await news.tell(connection, "replayed", row["ids"])
        decided = ParkedDecided(count=len(row["ids"]), skipped=row["skipped"], remaining=row["remaining"])
        self._replayed()
        log.info(
            "parked messages replayed",
            **decided.model_dump(),
            actor=request.actor,
            wanted=str(request.wanted),
        )
        return decided

    async def discard(self, request: DiscardParked, _: Deadline) -> ParkedDecided:
        """Discard messages; their record stays for 30 days."""
        _require_choice(request.wanted)
        async with self._postgres.transaction() as connection:
            row = await connection.fetchrow(_SQL["discard_parked"], *_decision(request, "discarded"))
            assert row is not None
            await news.tell(connection, "discarded", row["ids"])
        decided = ParkedDecided(count=len(row["ids"]), remaining=row["remaining"])
        log.info(
            "parked messages discarded", count=decided.count, actor=request.actor, wanted=str(request.wanted)
        )
        return decided

    async def measure(self) -> None:
        """Set the gauge of parked messages."""
        async with self._postgres.connection() as connection:
            counts = await connection.fetch(_SQL["count_parked"])
        found = {row["queue"]: row["count"] for row in counts}
        self._queues |= found.keys()
        for queue in self._queues:
            metrics.PARKED.labels(queue).set(found.get(queue, 0))

    async def clean(self) -> None:
        """Delete messages that were decided 30 days ago, a thousand per step."""
        removed = _CLEAN_STEP
        while removed == _CLEAN_STEP:
            async with self._postgres.connection() as connection:
                removed = affected_rows(await connection.execute(_SQL["clean_parked"], _CLEAN_STEP))


class ParkedKeeper:
    """Moves messages from the service's parked queue into its database, one at a time."""

    def __init__(self, service: str, parked: Parked) -> None:
        self._queue = parked_queue(service)
        self._parked = parked

    async def attach(self, link: Link) -> None:
        """Start over a new connection."""
        channel = await link.channel(confirms=False)
        await channel.basic_qos(prefetch_count=10)
        channel.on_consumer_cancel_callbacks.add(lambda _: link.interrupt())
        await channel.basic_consume(self._queue, self._take)

    async def _take(self, message: DeliveredMessage) -> None:
        assert message.delivery_tag is not None
        assert isinstance(message.channel, Channel)
        is_stored = False
        while not is_stored:
            try:
                await self._parked.store(message)
                is_stored = True
            except (DatabaseUnavailable, TimeoutError) as error:
                log.warning("parked message stays in its queue", reason=redaction.safe_message(error))
                await asyncio.sleep(_PAUSE_S)
            except Exception:
                # Other messages are stored meanwhile; without a retry it would wait for the next connection.
                log.exception("parked message cannot be stored, retrying")
                await asyncio.sleep(_PAUSE_S)
        try:
            await message.channel.basic_ack(message.delivery_tag, wait=False)
        except AWAY as error:
            log.debug("parked message will be redelivered", reason=redaction.safe_message(error))


def _require_choice(wanted: ParkedFilter) -> None:
    if wanted.is_empty:
        raise InvalidInput("Select the messages by ids, queue, message_type or reason.")


def _decision(request: ReplayParked | DiscardParked, state: str) -> tuple[object, ...]:
    trace = tracing.current()
    return (
        *_arguments(request.wanted),
        state,
        request.actor,
        trace.request_id if trace else None,
        request.most,
    )


def _arguments(wanted: ParkedFilter) -> tuple[object, ...]:
    return wanted.ids, wanted.queue, wanted.message_type, wanted.reason


def _message(row: asyncpg.Record) -> ParkedMessage:
    return ParkedMessage.model_validate({name: row[name] for name in ParkedMessage.model_fields})


def _moment(epoch_ms: object) -> datetime | None:
    if not (isinstance(epoch_ms, int) and 0 <= epoch_ms < _LATEST_MS):
        return None
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


def _death(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that parking would have added to a message that the broker has parked itself.

    The time is the same at every redelivery. The broker reports it in whole seconds: a message that was sent
    later than that has died later.
    """
    deaths = headers.get("x-death")
    if not (isinstance(deaths, list) and deaths and isinstance(deaths[0], dict)):
        return {}
    found: dict[str, Any] = {
        names.QUEUE: str(deaths[0].get("queue", "")),
        names.REASON: _DELIVERY_LIMIT,
        names.ERROR: _DIED,
    }
    died_at, sent_at = deaths[0].get("time"), headers.get(names.SENT_AT)
    if isinstance(died_at, datetime):
        died_ms = int(died_at.timestamp() * 1000)
        found[names.PARKED_AT] = max(died_ms, sent_at) if isinstance(sent_at, int) else died_ms
    return found

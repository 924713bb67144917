"""Messages in the outbox are measured while they are sent, and only late ones count as late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY

from chassis import outbox, queries
from chassis.broker.envelope import Delivery, Outgoing
from chassis.broker.handlers import Direct
from chassis.deadlines import Deadline
from chassis.errors import Overloaded
from chassis.outbox import STEP_BYTES, OutboxRelay
from chassis.parked import park_unpublishable
from chassis.postgres import Connection, Postgres
from chassis.runtime import ServiceRuntime
from contracts.batches import INTAKE, CancelBatch
from contracts.parked import ListParked, ParkedFilter, ParkedMessage, ReplayParked
from contracts.topology import BATCH_PROCESSOR
from support.bench import Bench
from support.databases import FreshDatabase
from support.effects import cancel
from support.explained import buffers
from support.waiting import until
from support.waiting_messages import waiting_messages

_MANY = 2000
_ADD = queries.of("chassis")["add_to_outbox"]


async def test_an_outbox_over_its_bound_refuses_while_the_relay_is_busy_with_it(
    bench: Bench, fresh_database: FreshDatabase
) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    postgres = Postgres(await fresh_database("support.sample_service"))
    await postgres.open()
    async with postgres.connection() as connection:
        await connection.execute(_ADD, *outbox.columns([cancel() for _ in range(_MANY)]), [1] * _MANY)
    # A row at a time is slow enough to look on, and every step is a full one.
    relay = OutboxRelay(postgres, worker.messaging.publisher, park=park_unpublishable, bound=10, step=1)
    relaying = asyncio.create_task(relay.run())
    try:
        await until(lambda: _refuses(relay))
        assert await _depth(postgres) > 0
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
        await postgres.close()


class ConfirmingBroker:
    """A publisher that confirms everything, and records the sizes of what it gets at a time."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []

    async def publish_together(self, messages: Sequence[Outgoing]) -> list[Exception | None]:
        self.steps.append([len(one.body) for one in messages])
        return [None for _ in messages]


async def test_large_messages_are_taken_a_few_at_a_time(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "STEP_BYTES", 3000)
    postgres, broker = Postgres(await fresh_database("support.sample_service")), ConfirmingBroker()
    await postgres.open()
    large = [replace(cancel(), body=b"x" * size) for size in [*[1000] * 7, 5000, 10]]
    async with postgres.connection() as connection:
        await connection.execute(_ADD, *outbox.columns(large), [1] * len(large))
    await OutboxRelay(postgres, cast(Any, broker), park=park_unpublishable).flush()
    assert broker.steps == [[1000] * 3, [1000] * 3, [1000, 5000], [10]]
    assert await _depth(postgres) == 0
    await postgres.close()


async def test_a_replay_that_is_spread_over_time_is_not_late(bench: Bench) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    async with worker.postgres.connection() as connection:
        await _park(connection, 5)
    replay = ReplayParked(wanted=ParkedFilter(queue=INTAKE), rate_per_s=0.001, actor="test")
    assert (await worker.parked.replay(replay, Deadline.after(5))).count == 5
    await until(lambda: _depth_told() == 4)
    assert _oldest_told() == 0
    async with worker.postgres.connection() as connection:
        # An hour later most of them are late.
        await connection.execute(
            "UPDATE outbox SET created_at = created_at - $1::interval", timedelta(hours=1)
        )
    await until(lambda: _oldest_told() > 2000)


async def test_a_message_that_cannot_be_published_is_late_although_it_waits_for_its_next_try(
    bench: Bench,
) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    nowhere = Outgoing("commands", "nobody.takes.it", b"{}", "x.v1", cancel().message_id)
    async with worker.postgres.transaction() as connection:
        await outbox.add(connection, [nowhere])
        await connection.execute("UPDATE outbox SET created_at = now() - interval '1 minute', attempts = 6")
    worker.relay.wake()
    await until(lambda: _is_postponed(worker))
    await until(lambda: _oldest_told() > 60)


async def send(worker: ServiceRuntime, *messages: Outgoing, attempts: int = 0) -> None:
    async with worker.postgres.transaction() as connection:
        await outbox.add(connection, messages)
        await connection.execute("UPDATE outbox SET attempts = $1", attempts)
    worker.relay.wake()


NO_EXCHANGE = replace(cancel(), exchange="no-such-exchange")
NO_FRAME = replace(cancel(), headers={"x-long": "x" * 400_000})
NO_AMQP = replace(cancel(), headers={"x-huge": 2**64 - 1})


@pytest.mark.parametrize("poison", [NO_EXCHANGE, NO_FRAME, NO_AMQP], ids=["exchange", "frame", "encoding"])
async def test_a_message_that_cannot_be_published_is_parked_and_its_neighbours_go_on(
    bench: Bench, poison: Outgoing
) -> None:
    handled: set[str] = set()

    async def handle(delivery: Delivery[CancelBatch]) -> None:
        handled.add(str(delivery.message_id))

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: Direct(handle)}, concurrency=10)
    await bench.run(worker)
    neighbours = [cancel() for _ in range(200)]
    await send(worker, *neighbours[:100], poison, *neighbours[100:])
    await until(lambda: handled == {message.message_id for message in neighbours})
    (message,) = await until(lambda: _parked(worker))
    assert (message.message_id, message.reason) == (poison.message_id, "unpublishable")
    assert message.attempts == 5
    assert message.last_error
    # It broke nothing while it was alone.
    later = cancel()
    await send(worker, later)
    await until(lambda: later.message_id in handled)
    await until(lambda: worker.health.reasons() == {})


async def test_one_pass_skips_all_messages_that_cannot_be_published(
    bench: Bench, fresh_database: FreshDatabase
) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    postgres = Postgres(await fresh_database("support.sample_service"))
    await postgres.open()
    poison = [replace(NO_AMQP, message_id=str(uuid4())) for _ in range(25)]
    async with postgres.connection() as connection:
        await connection.execute(_ADD, *outbox.columns([*poison, cancel()]), [1] * 26)
    relay = OutboxRelay(postgres, worker.messaging.publisher, park=park_unpublishable, step=10)
    await relay.flush()
    assert await _depth(postgres) == 25
    await postgres.close()


async def test_messages_that_are_written_together_wait_in_one_row_and_are_counted_each(
    bench: Bench, fresh_database: FreshDatabase
) -> None:
    handled: list[UUID] = []

    async def handle(delivery: Delivery[CancelBatch]) -> None:
        handled.append(delivery.message_id)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: Direct(handle)}, concurrency=10)
    await bench.run(worker)
    postgres = Postgres(await fresh_database("support.sample_service"))
    await postgres.open()
    messages = [cancel() for _ in range(40)]
    relay = OutboxRelay(postgres, worker.messaging.publisher, park=park_unpublishable, bound=40)
    async with postgres.connection() as connection:
        await outbox.add(connection, messages[:39])
        await relay.measure()
        relay.require_room()
        await outbox.add(connection, messages[39:])
        assert await _depth(postgres) == 2
        assert await waiting_messages(connection) == messages
    await relay.measure()
    with pytest.raises(Overloaded):
        relay.require_room()
    await relay.flush()
    assert await _depth(postgres) == 0
    await until(lambda: len(handled) == 40)
    assert set(handled) == {UUID(message.message_id) for message in messages}
    await postgres.close()


async def test_of_messages_in_one_row_that_cannot_be_published_each_is_parked_by_itself(bench: Bench) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    nowhere = [replace(cancel(), exchange="no-such-exchange") for _ in range(5)]
    async with worker.postgres.transaction() as connection:
        await outbox.add(connection, nowhere)
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 1
    worker.relay.wake()
    await until(lambda: _has_parked(worker, 5))
    parked = await _parked(worker)
    assert {message.message_id for message in parked} == {message.message_id for message in nowhere}
    assert {(message.message_type, message.attempts) for message in parked} == {("batch.cancel.v1", 5)}


async def test_a_message_that_no_queue_takes_is_parked_in_the_end_and_can_be_replayed(bench: Bench) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    nowhere = replace(cancel(), routing_key="nobody.takes.it")
    # Twice, as after a replay of a message that was parked twice.
    await send(worker, nowhere, nowhere, attempts=119)
    (message,) = await until(lambda: _parked(worker))
    async with worker.postgres.connection() as connection:
        waiting = "SELECT count(*) FROM outbox WHERE message_id = $1"
        assert await connection.fetchval(waiting, UUID(nowhere.message_id)) == 0
    assert (message.message_id, message.attempts) == (nowhere.message_id, 120)
    assert message.reason == "unpublishable"
    replay = ReplayParked(wanted=ParkedFilter(ids=[message.id]), actor="test")
    assert (await worker.parked.replay(replay, Deadline.after(5))).count == 1
    async with worker.postgres.connection() as connection:
        row = await connection.fetchrow(
            "SELECT exchange, routing_key FROM outbox WHERE message_id = $1", UUID(nowhere.message_id)
        )
    assert row is not None
    assert tuple(row) == ("commands", "nobody.takes.it")


async def test_a_poll_reads_no_more_rows_while_a_held_snapshot_keeps_sent_messages(
    bench: Bench, fresh_database: FreshDatabase
) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    dsn = await fresh_database("support.sample_service")
    postgres, holder = Postgres(dsn), await asyncpg.connect(dsn)
    await postgres.open()
    relay = OutboxRelay(postgres, worker.messaging.publisher, park=park_unpublishable)
    await worker.messaging.publisher.wait_connected(5)
    async with holder.transaction(isolation="repeatable_read"), postgres.connection() as connection:
        await holder.fetchval("SELECT count(*) FROM outbox")
        # So long ago that everything has been committed since.
        add = _ADD.replace("messages)", "messages, due_at)")
        add = add.replace("SELECT *", "SELECT *, now() - interval '1 minute'")
        await connection.execute(add, *outbox.columns([cancel() for _ in range(10_000)]), [1] * 10_000)
        await relay.flush()
        assert await _depth(postgres) == 0
        await relay.measure()
        await connection.execute(_ADD, *outbox.columns([cancel() for _ in range(10)]), [1] * 10)
        whole = await buffers(
            connection, "take_fresh", 500, datetime.fromtimestamp(0, UTC), STEP_BYTES, package="chassis"
        )
        taken = await buffers(connection, "take_fresh", 500, relay.due_from, STEP_BYTES, package="chassis")
        measured = await buffers(connection, "measure_outbox", 100, relay.due_from, 10, package="chassis")
    await relay.flush()
    assert await _depth(postgres) == 0
    await holder.close()
    await postgres.close()
    print(f"buffers behind 10,000 that were sent: {taken} to take 10 ({whole} from the first on)")
    print(f"and {measured} to measure")
    assert taken < 100
    assert measured < 100


async def test_a_message_that_is_committed_late_is_found_by_the_full_scan(
    bench: Bench, fresh_database: FreshDatabase
) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    postgres = Postgres(await fresh_database("support.sample_service"))
    await postgres.open()
    async with postgres.connection() as connection:
        relay = OutboxRelay(postgres, worker.messaging.publisher, park=park_unpublishable)
        await worker.messaging.publisher.wait_connected(5)
        await relay.measure()
        await outbox.add(connection, [cancel()])
        await connection.execute("UPDATE outbox SET due_at = due_at - interval '1 minute'")
        await relay.flush()
        assert await _depth(postgres) == 1
        relay.look_whole()
        await relay.measure()
        await relay.flush()
    assert await _depth(postgres) == 0
    await postgres.close()


async def _parked(worker: ServiceRuntime) -> list[ParkedMessage]:
    return (await worker.parked.page(ListParked(), Deadline.after(5))).data


async def _has_parked(worker: ServiceRuntime, count: int) -> bool:
    return len(await _parked(worker)) == count


def _refuses(relay: OutboxRelay) -> bool:
    try:
        relay.require_room()
    except Overloaded:
        return True
    return False


async def _depth(postgres: Postgres) -> int:
    async with postgres.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM outbox"))


async def _is_postponed(worker: ServiceRuntime) -> bool:
    async with worker.postgres.connection() as connection:
        return bool(
            await connection.fetchval("SELECT true FROM outbox WHERE due_at > now() + interval '9 s'")
        )


async def _park(connection: Connection, count: int) -> None:
    await connection.executemany(
        """INSERT INTO parked (message_id, message_type, queue, reason, attempts, first_error, last_error,
                               headers, body, parked_at)
           VALUES ($1, 'batch.cancel.v1', $2, 'permanent', 1, '', '', '{}', '', now())""",
        [(cancel().message_id, INTAKE) for _ in range(count)],
    )


def _depth_told() -> float | None:
    return REGISTRY.get_sample_value("tickwire_outbox_messages")


def _oldest_told() -> float:
    return REGISTRY.get_sample_value("tickwire_outbox_oldest_seconds") or 0

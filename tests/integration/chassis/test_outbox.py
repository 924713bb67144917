"""What waits in the outbox is measured while it is being sent, and only what is late counts as late."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

from prometheus_client import REGISTRY

from chassis import migrations, outbox
from chassis.broker.envelope import Outgoing, command
from chassis.deadlines import Deadline
from chassis.errors import Overloaded
from chassis.outbox import Relay
from chassis.postgres import Connection, Postgres
from chassis.runtime import ServiceRuntime
from contracts.batches import INTAKE, CancelBatch
from contracts.parked import ParkedFilter, ReplayParked
from contracts.topology import BATCH_PROCESSOR
from support.bench import Bench
from support.databases import FreshDatabase
from support.waiting import until

_MANY = 2000


def cancel() -> Outgoing:
    return command(CancelBatch(batch_id=uuid4(), owner_id="ann"))


async def test_an_outbox_over_its_bound_refuses_while_the_relay_is_busy_with_it(
    bench: Bench, fresh_database: FreshDatabase
) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    postgres = Postgres(await fresh_database())
    await postgres.open()
    async with postgres.connection() as connection:
        await migrations.migrate(connection, "support.sample_service")
        await outbox.add(connection, [cancel() for _ in range(_MANY)])
    # A row at a time is slow enough to look on, and every step is a full one.
    relay = Relay(postgres, worker.messaging.publisher, bound=10, step=1)
    relaying = asyncio.create_task(relay.run())
    try:
        await until(lambda: _refuses(relay))
        assert await _depth(postgres) > 0
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
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


def _refuses(relay: Relay) -> bool:
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

"""A worker that begins its scan where the chunks begin misses none, in whatever order they are committed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from batch_processor.execution import claim_repository
from batch_processor.execution.claims import Claim
from batch_processor.execution.lanes import Lanes
from support.batch_engine import BatchEngine
from support.explained import buffers

_STEPS = 60

_ADD = """
WITH batch AS (
    INSERT INTO batches (id, owner_id, operation, status, accepted_at, total, received, chunk_count)
    VALUES (gen_random_uuid(), $1, 'echo', 'running', now(), $2, $2, $2) RETURNING id
)
INSERT INTO chunks (
    batch_id, number, state, first_position, last_position, remaining, due_at, owner_id, priority
)
SELECT id, number, $3, number, number, 1, now() - interval '1 hour', $1, $4
FROM batch, generate_series(0, $2 - 1) AS number
"""
_LEFT = "SELECT count(*) FROM chunks WHERE state <> 'running'"


@dataclass
class LaneWorld:
    """Writers whose transactions end when they like, and a worker that claims meanwhile."""

    worker: asyncpg.Connection
    writers: list[asyncpg.Connection]
    lanes: Lanes = field(default_factory=Lanes)
    at_work: list[Claim] = field(default_factory=list)
    open: dict[int, asyncpg.transaction.Transaction] = field(default_factory=dict)

    async def write(self, choose: random.Random) -> None:
        """Add chunks in a transaction that stays open, or end one that is open."""
        nth = choose.randrange(len(self.writers))
        if transaction := self.open.pop(nth, None):
            await (transaction.rollback() if choose.random() < 0.2 else transaction.commit())
            return
        self.open[nth] = self.writers[nth].transaction()
        await self.open[nth].start()
        arguments = choose.choice("abc"), choose.randint(1, 3), choose.choice(("ready", "delayed"))
        await self.writers[nth].execute(_ADD, *arguments, choose.choice((2, 5, 8)))

    async def claim(self, most: int) -> int:
        """Claim as a worker does; return how many chunks."""
        found = await self.lanes.look(self.worker, most=2)
        if not found:
            return 0
        in_flight_from = self.lanes.in_flight_from
        taken = await claim_repository.claim(
            self.worker, found, most=most, for_any=most, lease_s=60, in_flight_from=in_flight_from
        )
        self.at_work += taken
        return len(taken)

    async def finish(self) -> None:
        """End the chunk that is at work for the longest time."""
        if self.at_work:
            await claim_repository.finish(self.worker, [self.at_work.pop(0)])

    async def give_back(self) -> None:
        """Put the chunk that was claimed last back into the queue."""
        if self.at_work:
            await claim_repository.give_back(self.worker, [self.at_work.pop()])

    async def promote(self) -> None:
        """Make delayed chunks ready, with the place of an hour ago."""
        await self.worker.execute("UPDATE chunks SET state = 'ready' WHERE state = 'delayed'")

    async def raise_priority(self) -> None:
        """Change a chunk that waits as a statement does that knows nothing of stamps."""
        await self.worker.execute(
            "UPDATE chunks SET priority = 9 WHERE (batch_id, number) = "
            "(SELECT batch_id, number FROM chunks WHERE state = 'ready' LIMIT 1)"
        )


@pytest.fixture
async def world(dsn: str) -> AsyncIterator[LaneWorld]:
    async with AsyncExitStack() as stack:
        connections = [await asyncpg.connect(dsn) for _ in range(4)]
        for connection in connections:
            stack.push_async_callback(connection.close)
        yield LaneWorld(connections[0], connections[1:])


async def test_no_chunk_is_missed_in_whatever_order_transactions_are_committed(world: LaneWorld) -> None:
    await world.claim(1)
    for seed in range(40):
        choose = random.Random(seed)
        for _ in range(_STEPS):
            match choose.randrange(8):
                case 0 | 1 | 2:
                    await world.write(choose)
                case 3 | 4:
                    await world.claim(choose.randint(1, 4))
                case 5:
                    await world.finish()
                case 6:
                    await world.give_back()
                case _:
                    await (world.promote() if choose.random() < 0.5 else world.raise_priority())
        for nth in list(world.open):
            await world.open.pop(nth).commit()
        await world.promote()
        # Two owners a look, of three.
        for _ in range(3):
            while await world.claim(10):
                pass
        assert await world.worker.fetchval(_LEFT) == 0, seed
        await claim_repository.finish(world.worker, world.at_work)
        world.at_work.clear()


async def test_a_chunk_that_was_restored_from_another_server_does_not_wait_for_newer_ones(
    engine: BatchEngine, world: LaneWorld
) -> None:
    await world.worker.execute(_ADD, "a", 1, "ready", 5)
    await world.worker.execute("UPDATE chunks SET stamp = 1000000000")
    [restored] = await world.worker.fetch("SELECT batch_id FROM chunks")
    await engine.coordinator.sweep()
    await world.worker.execute(_ADD, "a", 1, "ready", 5)
    assert await world.claim(1) == 1
    assert [claim.batch_id for claim in world.at_work] == [restored["batch_id"]]


async def test_a_delayed_chunk_is_found_without_passing_those_that_were_due_before(
    engine: BatchEngine, world: LaneWorld
) -> None:
    await engine.coordinator.promote()
    holder = world.writers[0]
    async with holder.transaction(isolation="repeatable_read"):
        await holder.fetchval("SELECT count(*) FROM chunks")
        await world.worker.execute(_ADD, "a", 10_000, "delayed", 5)
        await world.promote()
        due_from = datetime.now(UTC) - timedelta(minutes=1)
        read = await buffers(world.worker, "next_due_in_s", due_from)
        whole = await buffers(world.worker, "next_due_in_s", datetime.fromtimestamp(0, UTC))
        await world.worker.execute(_ADD, "a", 1, "delayed", 5)
        await world.worker.execute("UPDATE chunks SET due_at = now() WHERE state = 'delayed'")
        await engine.coordinator.promote()
    assert await world.worker.fetchval("SELECT count(*) FROM chunks WHERE state = 'delayed'") == 0
    print(f"buffers to find what is due next behind 10,000 that were due: {read}, {whole} from the first on")
    assert read < 20 < whole

"""The worker: claims a chunk, runs its items, stores the results with their count, and goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from batch_processor import batches, repository, results
from batch_processor.batches import Batch
from batch_processor.chunks import ChunkRun, Failure, Item, Outcomes
from batch_processor.contexts import ContextFactory
from batch_processor.errors import OperationMissing
from batch_processor.intake import announce_finished
from batch_processor.operation import Operation
from batch_processor.progress_publisher import ProgressPublisher
from batch_processor.repository import Claim
from chassis import logging, metrics, outbox
from chassis.broker.envelope import Delivery
from chassis.outbox import OutboxRelay
from chassis.postgres import Connection, Postgres
from contracts.batches import Batch as View
from contracts.batches import RunChunk

log = logging.get(__name__)

# So often may an item that is alone in its chunk be at work when a worker dies.
_MOST_LOST = 3

Ending = Literal["done", "cancelled", "interrupted"]


class TakenOver(Exception):
    """Another worker has claimed the chunk: what was computed here must not be stored."""


@dataclass(frozen=True, slots=True)
class ChunkTiming:
    """The lease of a chunk, the pause between its signs of life, and the time that it may take (seconds)."""

    lease_s: float = 60
    checkpoint_s: float = 1
    budget_s: float = 600


@dataclass(frozen=True, slots=True)
class Rest:
    """Items of a claimed chunk that go on in a chunk of their own."""

    positions: Sequence[int]
    attempt: int
    delay_s: float = 0


class Worker:
    """Handles `RunChunk`. `finished` is called after each chunk: there is room for another."""

    def __init__(
        self,
        postgres: Postgres,
        relay: OutboxRelay,
        operations: Mapping[str, Operation],
        *,
        contexts: ContextFactory,
        progress: ProgressPublisher,
        finished: Callable[[], None],
        timing: ChunkTiming | None = None,
    ) -> None:
        self._postgres = postgres
        self._relay = relay
        self._operations = operations
        self._contexts = contexts
        self._progress = progress
        self._timing = timing or ChunkTiming()
        self._running: set[tuple[UUID, int]] = set()
        # The claims that ended here with an error: whoever lives to make the next one was not lost.
        self._broken_off: dict[tuple[UUID, int], int] = {}
        self._stopping = asyncio.Event()
        self._finished = finished

    def stop(self) -> None:
        """Begin nothing more and give back what is not done; the order of shutdown calls it first."""
        self._stopping.set()

    async def handle(self, delivery: Delivery[RunChunk]) -> None:
        """Run a chunk. A duplicate, or one that is done, does nothing."""
        key = (delivery.message.batch_id, delivery.message.chunk)
        if key in self._running:
            return
        self._running.add(key)
        try:
            await self._claim_and_run(*key)
        except TakenOver:
            log.info("chunk was taken over", batch_id=str(key[0]), chunk=key[1])
        finally:
            self._running.discard(key)
            self._finished()

    async def _claim_and_run(self, batch_id: UUID, number: int) -> None:
        broken_off = self._broken_off.pop((batch_id, number), None)
        async with self._postgres.connection() as connection:
            if self._stopping.is_set():
                await repository.release_chunk(connection, batch_id, number)
                return
            claim = await repository.claim_chunk(
                connection, batch_id, number, lease_s=self._timing.lease_s, broken_off=broken_off
            )
            if claim is None:
                return
            self._broken_off[batch_id, number] = claim.run
            operation = self._operations.get(claim.operation)
            if operation is None:
                raise OperationMissing(f"This worker has no operation named {claim.operation!r}.")
            items = await repository.load_items(connection, claim)
        if not await self._isolate_culprit(claim, items):
            started = time.perf_counter()
            run = ChunkRun(operation, items, attempt=claim.attempt, context=self._contexts.of_chunk(claim))
            await self._end(claim, run, await self._watch(claim, run))
            metrics.BATCH_CHUNK_SECONDS.labels(claim.operation).observe(time.perf_counter() - started)
        del self._broken_off[batch_id, number]

    async def _isolate_culprit(self, claim: Claim, items: Sequence[Item]) -> bool:
        """Cut up a chunk whose worker was lost, until what kills workers is alone, and at last fails.

        Return whether that is all there is to do for the chunk.
        """
        if not claim.lost or (len(items) < 2 and claim.lost < _MOST_LOST) or not items:
            return False
        positions = [item.position for item in items]
        outcomes, rests = Outcomes(), []
        if len(positions) > 1:
            middle = len(positions) // 2
            rests = [Rest(part, claim.attempt) for part in (positions[:middle], positions[middle:])]
        else:
            detail = f"{claim.lost} workers were lost while they ran this item."
            outcomes.failures.append(Failure(positions[0], "worker-died", detail))
        async with self._postgres.transaction() as connection:
            if not await repository.finish_chunk(connection, claim):
                raise TakenOver
            stored = await self._store(connection, claim, outcomes, rests=rests)
        log.warning("chunk cut up after its worker was lost", batch_id=str(claim.batch_id), items=len(items))
        self._after_commit(claim, outcomes, stored)
        return True

    async def _watch(self, claim: Claim, run: ChunkRun) -> Ending:
        """Let `run` work; store what has ended and look for a reason to stop at each checkpoint."""
        executing = asyncio.create_task(run.execute())
        stopping = asyncio.create_task(self._stopping.wait())
        end = time.monotonic() + self._timing.budget_s
        # The first chunk starts the batch: with its results, or when it takes longer than a checkpoint.
        begin = claim.status == "queued"
        try:
            while True:
                await asyncio.wait(
                    (executing, stopping),
                    timeout=self._timing.checkpoint_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if executing.done():
                    await executing
                    return "done"
                if stopping.done() or time.monotonic() > end:
                    return "interrupted"
                if await self._checkpoint(claim, run, begin=begin) == "cancelling":
                    return "cancelled"
                begin = False
        finally:
            executing.cancel()
            stopping.cancel()
            await asyncio.gather(executing, stopping, return_exceptions=True)

    async def _checkpoint(self, claim: Claim, run: ChunkRun, *, begin: bool) -> str:
        outcomes = run.take()
        async with self._postgres.transaction() as connection:
            status = await repository.keep_chunk(
                connection, claim, state="running", done=len(outcomes), lease_s=self._timing.lease_s
            )
            if status is None:
                raise TakenOver
            stored = await self._store(connection, claim, outcomes) if outcomes or begin else None
        if stored is not None:
            self._after_commit(claim, outcomes, stored)
        return status

    async def _end(self, claim: Claim, run: ChunkRun, ending: Ending) -> None:
        outcomes = run.take()
        unfinished = run.unfinished
        async with self._postgres.transaction() as connection:
            if ending == "interrupted" and unfinished:
                kept = await repository.keep_chunk(
                    connection, claim, state="ready", done=len(outcomes), lease_s=self._timing.lease_s
                )
                mine = kept is not None
            else:
                mine = await repository.finish_chunk(connection, claim)
            if not mine:
                raise TakenOver
            cancelled = unfinished if ending == "cancelled" else []
            rests = (
                [Rest(run.retries, claim.attempt + 1, run.retry_delay_s)]
                if ending == "done" and run.retries and run.retry_delay_s is not None
                else []
            )
            stored = await self._store(connection, claim, outcomes, cancelled=cancelled, rests=rests)
        self._after_commit(claim, outcomes, stored, cancelled=len(cancelled))

    async def _store(
        self,
        connection: Connection,
        claim: Claim,
        outcomes: Outcomes,
        *,
        cancelled: Sequence[int] = (),
        rests: Sequence[Rest] = (),
    ) -> tuple[Batch, View | None]:
        tally = await results.store(
            connection, claim.batch_id, outcomes, attempt=claim.attempt, cancelled=cancelled
        )
        if outcomes.commands:
            await outbox.add(connection, outcomes.commands)
        # Last, because every chunk of the batch waits for this row.
        found = await repository.lock_batches(connection, [claim.batch_id])
        running = batches.run(found[claim.batch_id], now=claim.claimed_at)
        batch = batches.record(running, tally, now=datetime.now(UTC))
        for number, rest in enumerate(rests, start=batch.chunk_count):
            await repository.create_chunk(
                connection,
                claim,
                number=number,
                attempt=rest.attempt,
                positions=rest.positions,
                delay_s=rest.delay_s,
            )
        batch = replace(batch, chunk_count=batch.chunk_count + len(rests))
        await repository.save_progress(connection, batch)
        views = await announce_finished(connection, [batch])
        return batch, views.get(batch.id)

    def _after_commit(
        self, claim: Claim, outcomes: Outcomes, stored: tuple[Batch, View | None], *, cancelled: int = 0
    ) -> None:
        batch, view = stored
        if batch.is_finished or outcomes.commands:
            self._relay.wake()
        self._progress.note(batch, view)
        items = metrics.BATCH_ITEMS
        items.labels(claim.operation, "succeeded").inc(len(outcomes.positions))
        items.labels(claim.operation, "failed").inc(len(outcomes.failures))
        items.labels(claim.operation, "cancelled").inc(cancelled)

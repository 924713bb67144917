"""The worker: claims a chunk, runs its items, stores the results with their count, and goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from batch_processor import batches, repository
from batch_processor.batches import Batch
from batch_processor.chunks import ChunkRun, Outcomes
from batch_processor.errors import OperationMissing
from batch_processor.intake import announce_finished
from batch_processor.operation import Operation
from batch_processor.progress import Progress
from batch_processor.repository import Claim
from batch_processor.sharing import Tools
from chassis import logging, metrics, outbox
from chassis.broker.envelope import Delivery, command
from chassis.outbox import Relay
from chassis.postgres import Connection, Postgres
from contracts.batches import Batch as View
from contracts.batches import RunChunk

log = logging.get(__name__)

Ending = Literal["done", "cancelled", "interrupted"]


class TakenOver(Exception):
    """Another worker has claimed the chunk: what was computed here must not be stored."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a chunk is leased, how often it says that it is alive, and how long it may take (seconds)."""

    lease_s: float = 60
    checkpoint_s: float = 1
    budget_s: float = 600


class Worker:
    """Handles `RunChunk`. `finished` is called after each chunk: there is room for another."""

    def __init__(
        self,
        postgres: Postgres,
        relay: Relay,
        operations: Mapping[str, Operation],
        *,
        tools: Tools,
        progress: Progress,
        finished: Callable[[], None],
        pace: Pace | None = None,
    ) -> None:
        self._postgres = postgres
        self._relay = relay
        self._operations = operations
        self._tools = tools
        self._progress = progress
        self._pace = pace or Pace()
        self._running: set[tuple[UUID, int]] = set()
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
            await self._handle(*key)
        except TakenOver:
            log.info("chunk was taken over", batch_id=str(key[0]), chunk=key[1])
        finally:
            self._running.discard(key)
            self._finished()

    async def _handle(self, batch_id: UUID, number: int) -> None:
        async with self._postgres.connection() as connection:
            if self._stopping.is_set():
                await repository.release_chunk(connection, batch_id, number)
                return
            claim = await repository.claim_chunk(connection, batch_id, number, lease_s=self._pace.lease_s)
            if claim is None:
                return
            operation = self._find(claim)
            items = await repository.load_items(connection, claim)
        started = time.perf_counter()
        run = ChunkRun(operation, items, attempt=claim.attempt, context=self._tools.contexts(claim))
        ending = await self._watch(claim, run)
        await self._end(claim, run, ending)
        metrics.BATCH_CHUNK_SECONDS.labels(claim.operation).observe(time.perf_counter() - started)

    def _find(self, claim: Claim) -> Operation:
        operation = self._operations.get(claim.operation)
        if operation is None:
            raise OperationMissing(f"This worker has no operation named {claim.operation!r}.")
        return operation

    async def _watch(self, claim: Claim, run: ChunkRun) -> Ending:
        """Let `run` work; store what has ended and look for a reason to stop at each checkpoint."""
        executing = asyncio.create_task(run.execute())
        stopping = asyncio.create_task(self._stopping.wait())
        end = time.monotonic() + self._pace.budget_s
        # The first chunk starts the batch: with its results, or when it takes longer than a checkpoint.
        begin = claim.status == "queued"
        try:
            while True:
                await asyncio.wait(
                    (executing, stopping),
                    timeout=self._pace.checkpoint_s,
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
                connection, claim, state="running", done=len(outcomes), lease_s=self._pace.lease_s
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
                    connection, claim, state="ready", done=len(outcomes), lease_s=self._pace.lease_s
                )
                mine = kept is not None
            else:
                mine = await repository.finish_chunk(connection, claim)
            if not mine:
                raise TakenOver
            cancelled = unfinished if ending == "cancelled" else []
            retried = unfinished if ending == "done" else []
            stored = await self._store(connection, claim, outcomes, cancelled=cancelled, retried=retried)
        self._after_commit(claim, outcomes, stored, cancelled=len(cancelled))

    async def _store(
        self,
        connection: Connection,
        claim: Claim,
        outcomes: Outcomes,
        *,
        cancelled: list[int] | None = None,
        retried: list[int] | None = None,
    ) -> tuple[Batch, View | None]:
        tally = await repository.store_outcomes(connection, claim, outcomes, cancelled=cancelled or [])
        commands = [command(c, message_id=id_, tenant=claim.owner_id) for c, id_ in outcomes.commands]
        if commands:
            await outbox.add(connection, commands)
        # Last, because every chunk of the batch waits for this row.
        found = await repository.lock_batches(connection, [claim.batch_id])
        running = batches.run(found[claim.batch_id], now=claim.claimed_at)
        batch = batches.record(running, tally, now=datetime.now(UTC))
        if retried:
            delay_s = self._operations[claim.operation].retry.delay_s(claim.attempt) or 0
            await repository.create_retry(
                connection, claim, number=batch.chunk_count, positions=retried, delay_s=delay_s
            )
            batch = replace(batch, chunk_count=batch.chunk_count + 1)
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

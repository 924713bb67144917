"""Storing the reports on chunks: one transaction for all that report at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from batch_processor.batches import batch_repository, life_cycle
from batch_processor.batches.announcing import announce_finished
from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.batches.progress_publisher import ProgressPublisher
from batch_processor.execution import claim_repository, result_repository
from batch_processor.execution.claims import ChunkKey, Claim, RemainingItems
from batch_processor.execution.result_repository import Entry
from batch_processor.execution.running_chunk import Outcomes
from chassis import metrics, outbox
from chassis.outbox import OutboxRelay
from chassis.postgres import Connection, Postgres

# `delayed`: another worker may run it, this one cannot.
Fate: TypeAlias = Literal["done", "running", "ready", "delayed"]


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """A worker's report on a chunk that it claimed.

    `begins` is true when a chunk that continues reports for the first time; `rests` continue in new chunks,
    and the chunk itself with the positions in `keeps`, if there are any. `cancelled` are positions with
    the attempts that had begun.
    """

    claim: Claim
    fate: Fate
    outcomes: Outcomes = field(default_factory=Outcomes)
    cancelled: Mapping[int, int] = field(default_factory=dict)
    rests: Sequence[RemainingItems] = ()
    begins: bool = False
    keeps: Sequence[int] = ()

    @property
    def changes_batch(self) -> bool:
        """Return whether the batch's row must be updated."""
        has_news = self.outcomes or self.outcomes.setbacks or self.cancelled or self.rests
        return self.fate == "done" or self.begins or bool(has_news)


class Settlement:
    """Stores reports. A claim that another worker has taken over meanwhile stores nothing."""

    def __init__(
        self, postgres: Postgres, relay: OutboxRelay, progress: ProgressPublisher, *, lease_s: float
    ) -> None:
        self._postgres = postgres
        self._relay = relay
        self._progress = progress
        self._lease_s = lease_s

    async def store(self, reports: Sequence[ChunkReport]) -> dict[ChunkKey, str]:
        """Store all of the reports or none; return the chunks that were still ours with their batch's status.

        The status of a chunk that is done is `done`.
        """
        async with self._postgres.transaction() as connection:
            ours = await self._settle_chunks(connection, reports)
            kept = [report for report in reports if report.claim.key in ours and report.changes_batch]
            if not kept:
                return ours
            tallies = await result_repository.store(
                connection, [Entry(r.claim.batch_id, r.claim.attempt, r.outcomes, r.cancelled) for r in kept]
            )
            commands = [command for report in kept for command in report.outcomes.commands]
            if commands:
                await outbox.add(connection, commands)
            # Last, because every chunk of the batches waits for these rows.
            found = await batch_repository.lock_batches(connection, sorted(tallies))
            now, after = datetime.now(UTC), []
            for batch_id, batch in found.items():
                of_batch = [report for report in kept if report.claim.batch_id == batch_id]
                begun = life_cycle.run(batch, now=min(report.claim.claimed_at for report in of_batch))
                counted = life_cycle.record(begun, tallies[batch_id], now=now)
                after.append(await self._create_rests(connection, counted, of_batch))
            await batch_repository.save_progress(connection, after)
            # All is known of a task that succeeded at once; reading it would be two of nine statements.
            views = await announce_finished(
                connection,
                # A batch may have finished before the last report of one of its chunks.
                [batch for batch in after if not found[batch.id].is_finished],
                results={
                    r.claim.batch_id: text
                    for r in kept
                    if r.claim.attempt == 1
                    for text in r.outcomes.results[:1]
                },
                traces={r.claim.batch_id: (r.claim.traceparent, r.claim.request_id) for r in kept},
            )
        if commands or views:
            self._relay.wake()
        for batch in after:
            self._progress.note(batch, views.get(batch.id))
        for report in kept:
            items = metrics.BATCH_ITEMS
            items.labels(report.claim.operation, "succeeded").inc(len(report.outcomes.positions))
            items.labels(report.claim.operation, "failed").inc(len(report.outcomes.failures))
            items.labels(report.claim.operation, "cancelled").inc(len(report.cancelled))
        return ours

    async def _settle_chunks(
        self, connection: Connection, reports: Sequence[ChunkReport]
    ) -> dict[ChunkKey, str]:
        done = [report.claim for report in reports if report.fate == "done"]
        going_on = [report for report in reports if report.fate != "done"]
        ours = dict.fromkeys(await claim_repository.finish(connection, done), "done")
        return ours | await claim_repository.renew(
            connection,
            [report.claim for report in going_on],
            states=[report.fate for report in going_on],
            done=[len(report.outcomes) for report in going_on],
            lease_s=self._lease_s,
        )

    async def _create_rests(
        self, connection: Connection, batch: StoredBatch, reports: Sequence[ChunkReport]
    ) -> StoredBatch:
        rests = [(rest, report.claim.gate) for report in reports for rest in report.rests]
        if not rests:
            return batch
        for report in reports:
            if report.keeps:
                await claim_repository.shrink(connection, report.claim, report.keeps)
        for number, (rest, gate) in enumerate(rests, start=batch.chunk_count):
            await claim_repository.create_chunk(connection, batch.id, number, rest, gate=gate)
        return replace(batch, chunk_count=batch.chunk_count + len(rests))

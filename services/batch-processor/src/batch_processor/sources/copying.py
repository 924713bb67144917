"""Batches whose items are copied from another batch, some thousand at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from batch_processor.background import rounds
from batch_processor.background.backoff import Backoff
from batch_processor.batches import batch_repository, life_cycle
from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.intake.handlers import Intake
from batch_processor.operation import LEFT_TO_OTHERS_S
from batch_processor.sources import repository
from chassis.postgres import Connection, Postgres
from contracts.batches import Source

# What one transaction copies at most, beside the first item.
STEP, STEP_BYTES = 5_000, 8 * 2**20
# For work that neither this process nor its lookout has found.
_IDLE_S = 30.0
# A batch that cannot be filled is tried again after this pause, up to so many times.
PAUSE_S = 5.0
_MOST_TRIES = 3


class Sources:
    """Fills and seals batches that have a source; several may run at once.

    `begun` is called when a batch has left `open`. Batches of an operation that is not in `operations` are
    left for a while to a replica that has it.
    """

    def __init__(
        self, postgres: Postgres, intake: Intake, *, operations: Collection[str], begun: Callable[[], None]
    ) -> None:
        self._postgres = postgres
        self._intake = intake
        self._operations = list(operations)
        self._begun = begun
        self._last_owner = ""
        self._backoff = Backoff(postgres, "sources", first_s=PAUSE_S, most_s=PAUSE_S)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look soon for batches to fill."""
        self._wake.set()

    async def copy_forever(self) -> None:
        """Fill batches, until cancelled."""

        async def copy_all() -> None:
            while await self.copy():
                self._begun()

        while True:
            await rounds.attempt("copy", copy_all)
            await rounds.wait(self._wake, most_s=_IDLE_S)

    async def copy(self) -> bool:
        """Copy the next items of a batch that waits for them; return whether there was one.

        Owners take turns, and so do the batches of each. One that cannot be filled is set aside for a while,
        and fails after some attempts.
        """
        batch_id: UUID | None = None
        try:
            async with self._postgres.transaction() as connection:
                found = await repository.find_next(
                    connection,
                    self._last_owner,
                    but=self._backoff.ids(),
                    operations=self._operations,
                    left_to_others_s=LEFT_TO_OTHERS_S,
                )
                if found is None:
                    return False
                batch_id, self._last_owner = found
                batch = (await batch_repository.lock_batches(connection, [batch_id]))[batch_id]
                if self._backoff.tries(batch_id) < _MOST_TRIES:
                    after = await _fill(connection, batch)
                else:
                    detail = (
                        "Its items could not be copied from the source batch; ask an operator for the log."
                    )
                    after = life_cycle.fail(
                        batch, code="source-not-usable", detail=detail, now=datetime.now(UTC)
                    )
                await self._intake.advance(connection, batch, after)
        except Exception as error:
            await self._backoff.failed(batch_id, error)
        else:
            self._backoff.succeeded(batch_id)
        return True


async def _fill(connection: Connection, batch: StoredBatch) -> StoredBatch:
    """Copy the next items of its source to a locked batch; return the changed batch.

    The source is not locked, and its owner may retry it meanwhile. So its revision is compared with that of
    the first step, and once more after the items were read.
    """
    now, source = datetime.now(UTC), Source.model_validate_json(batch.source or "")
    other = await batch_repository.get_batch(connection, source.batch_id)
    if other is None or other.owner_id != batch.owner_id or not other.is_finished:
        detail = f"The batch {source.batch_id} does not exist or has not ended: its items cannot be copied."
        return life_cycle.fail(batch, code="source-not-usable", detail=detail, now=now)
    begun = batch if batch.source_revision is not None else replace(batch, source_revision=other.revision)
    after = await _copy_step(connection, begun, source, other, now=now)
    seen = await batch_repository.get_batch(connection, source.batch_id)
    if seen is None or not begun.source_revision == other.revision == seen.revision:
        detail = (
            f"The batch {source.batch_id} was retried, changed or removed while its items were copied: "
            "when it has ended, send this one again."
        )
        return life_cycle.fail(after, code="source-not-usable", detail=detail, now=now)
    return after


async def _copy_step(
    connection: Connection, batch: StoredBatch, source: Source, other: StoredBatch, *, now: datetime
) -> StoredBatch:
    """Copy the next items of `other`; return the batch with them, sealed after the last."""
    if source.status == "cancelled" and other.status == "cancelled" and not other.chunk_count:
        # It was cancelled before it began: all of its items, and none has a result.
        found = await repository.list_positions(connection, other.id, after=batch.source_after, most=STEP + 1)
    else:
        found = await repository.list_ended_positions(
            connection, source, after=batch.source_after, most=STEP + 1
        )
    positions = found[:STEP]
    copied = await repository.copy_items(
        connection, batch.id, other.id, positions, offset=batch.received, most_bytes=STEP_BYTES
    )
    last = max(positions, default=batch.source_after) if copied.cut_at is None else copied.cut_at
    after = life_cycle.receive(replace(batch, source_after=last), copied.items, now=now)
    is_last = len(found) == len(positions) and copied.cut_at is None
    return life_cycle.seal(after, after.received, now=now) if is_last else after

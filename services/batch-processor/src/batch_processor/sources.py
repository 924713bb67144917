"""Batches whose items are those of another batch: taken from it some thousand at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from batch_processor import batches, repository
from batch_processor.execution import rounds
from batch_processor.intake import Intake
from chassis import queries
from chassis.postgres import Postgres
from contracts.batches import Source

_SQL = queries.load("batch_processor")
_STEP = 5_000
# For what another process has left: this one is woken by its own.
_IDLE_S = 3.0


class Sources:
    """Fills and seals batches that have a source; several may run side by side.

    `begun` is called when a batch has left `open`.
    """

    def __init__(self, postgres: Postgres, intake: Intake, *, begun: Callable[[], None]) -> None:
        self._postgres = postgres
        self._intake = intake
        self._begun = begun
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look soon for batches to fill."""
        self._wake.set()

    async def copy_forever(self) -> None:
        """Fill batches, for ever."""

        async def copy_all() -> None:
            while await self.copy():
                self._begun()

        while True:
            await rounds.attempt("copy", copy_all)
            await rounds.wait(self._wake, most_s=_IDLE_S)

    async def copy(self) -> bool:
        """Take the next items of the first batch that waits for some; return whether there was one."""
        async with self._postgres.transaction() as connection:
            batch_id: UUID | None = await connection.fetchval(_SQL["next_copying"])
            if batch_id is None:
                return False
            batch = (await repository.lock_batches(connection, [batch_id]))[batch_id]
            now, source = datetime.now(UTC), Source.model_validate_json(batch.source or "")
            other = await repository.get_batch(connection, source.batch_id)
            if other is None or other.owner_id != batch.owner_id or not other.is_finished:
                detail = (
                    f"The batch {source.batch_id} does not exist, or has not ended: "
                    "its items cannot be taken."
                )
                after = batches.fail(batch, code="source-not-usable", detail=detail, now=now)
            else:
                row = await connection.fetchrow(
                    _SQL["copy_items"],
                    batch.id,
                    source.batch_id,
                    source.status,
                    batch.source_after,
                    _STEP,
                    batch.received,
                )
                assert row is not None
                after = batches.receive(replace(batch, source_after=row["last"]), row["items"], now=now)
                if row["items"] < _STEP:
                    after = batches.seal(after, after.received, now=now)
            await self._intake.advance(connection, batch, after)
        return True

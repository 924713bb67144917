"""Results of items, stored once, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from batch_processor.batches.life_cycle import Tally
from batch_processor.execution.running_chunk import Outcomes
from batch_processor.items import binary_copy, copy_repository
from batch_processor.items.binary_copy import Successes
from chassis import queries
from chassis.postgres import Connection, affected_rows

_SQL = queries.of("batch_processor")
_SUCCESS_COLUMNS = ("batch_id", "position", "status", "attempts", "result")


@dataclass(frozen=True, slots=True)
class Entry:
    """The items that a chunk ended in its `attempt`: outcomes, and positions that were cancelled.

    The cancelled ones come with the attempts that had begun.
    """

    batch_id: UUID
    attempt: int
    outcomes: Outcomes
    cancelled: Mapping[int, int] = field(default_factory=dict)


async def add_successes(connection: Connection, runs: Sequence[Successes]) -> Counter[UUID]:
    """Store results of items; return how many of each batch were new."""
    added: Counter[UUID] = Counter()
    try:
        # Nearly always all are new, and looking for each before it is stored would double the cost.
        async with connection.transaction():
            await copy_repository.copy(connection, "results", _SUCCESS_COLUMNS, runs)
        for run in runs:
            added[run.batch_id] += len(run.positions)
    except asyncpg.UniqueViolationError:
        for run in runs:
            added[run.batch_id] += affected_rows(await connection.execute(_SQL["store_successes"], *run))
    return added


async def store(connection: Connection, entries: Sequence[Entry]) -> dict[UUID, Tally]:
    """Store results of chunks; return the number of new ones of each batch.

    Chunks with many results are copied together, those with few share a statement.
    """
    tallies: dict[UUID, Tally] = {entry.batch_id: Tally() for entry in entries}
    many = [
        Successes(entry.batch_id, entry.attempt, entry.outcomes.positions, entry.outcomes.results)
        for entry in entries
        if len(entry.outcomes.positions) >= binary_copy.MANY
    ]
    if many:
        for batch_id, succeeded in (await add_successes(connection, many)).items():
            tallies[batch_id] += Tally(succeeded=succeeded)
    few = [entry for entry in entries if 0 < len(entry.outcomes.positions) < binary_copy.MANY]
    if few:
        columns = zip(
            *(
                (entry.batch_id, position, entry.attempt, result)
                for entry in few
                for position, result in zip(entry.outcomes.positions, entry.outcomes.results, strict=True)
            ),
            strict=True,
        )
        for row in await connection.fetch(_SQL["store_many_successes"], *map(list, columns)):
            tallies[row["batch_id"]] += Tally(succeeded=row["items"])
    failed = [
        (entry.batch_id, failure.position, entry.attempt, failure.code, failure.detail)
        for entry in entries
        for failure in entry.outcomes.failures
    ]
    if failed:
        rows = await connection.fetch(_SQL["store_failures"], *map(list, zip(*failed, strict=True)))
        for row in rows:
            tallies[row["batch_id"]] += Tally(failed=row["items"])
    setbacks = [
        (entry.batch_id, setback.position, setback.code, setback.detail)
        for entry in entries
        for setback in entry.outcomes.setbacks
    ]
    if setbacks:
        await connection.execute(_SQL["store_setbacks"], *map(list, zip(*setbacks, strict=True)))
    for entry in entries:
        if entry.cancelled:
            positions, attempts = list(entry.cancelled), list(entry.cancelled.values())
            tag = await connection.execute(_SQL["store_cancelled"], entry.batch_id, positions, attempts)
            tallies[entry.batch_id] += Tally(cancelled=affected_rows(tag))
    return tallies

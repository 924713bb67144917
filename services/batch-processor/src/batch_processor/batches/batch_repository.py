"""The rows of batches, and what is shown with them, by statement: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import TypeAlias
from uuid import UUID

import orjson

from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.batches.views import Surroundings
from chassis import queries
from chassis.postgres import Connection, Row
from contracts.batches import FailedAttempt, ItemError

_SQL = queries.of("batch_processor")
# The newest failed attempts at an item, and the most frequent error codes of a batch, that are shown.
MOST_ATTEMPTS = 100
MOST_CODES = 100
_PROGRESS_OF = attrgetter(
    "id",
    "status",
    "succeeded",
    "failed",
    "cancelled",
    "chunk_count",
    "revision",
    "started_at",
    "finished_at",
    "error_code",
    "error_detail",
    "cancelling_since",
)
_BATCH_FIELDS = tuple(field.name for field in fields(StoredBatch))

# The trace and the request that created a batch.
Trace: TypeAlias = tuple[str | None, str | None]


async def lock_batches(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, StoredBatch]:
    """Return the batches of `ids` that exist, locked in one order until the transaction ends."""
    return {row["id"]: batch_of(row) for row in await connection.fetch(_SQL["lock_batches"], ids)}


async def save_batches(connection: Connection, batches: Sequence[StoredBatch]) -> None:
    """Write all of these batches' rows back."""
    if batches:
        # `default`: the driver returns ids of a type of its own.
        await connection.execute(_SQL["save_batches"], orjson.dumps(batches, default=str).decode())


async def traces_of(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Trace]:
    """Return the trace and the request that created each of these batches."""
    rows = await connection.fetch(_SQL["traces_of"], ids)
    return {row["id"]: (row["traceparent"], row["request_id"]) for row in rows}


async def save_progress(connection: Connection, batches: Sequence[StoredBatch]) -> None:
    """Write back the columns that running changes: status, counters, times."""
    columns = zip(*map(_PROGRESS_OF, batches), strict=True)
    await connection.execute(_SQL["save_progress"], *map(list, columns))


async def get_batch(connection: Connection, batch_id: UUID) -> StoredBatch | None:
    """Return the batch of that id, whoever owns it."""
    row = await connection.fetchrow(_SQL["get_batch"], batch_id)
    return batch_of(row) if row is not None else None


async def surroundings(connection: Connection, batches: Sequence[StoredBatch]) -> dict[UUID, Surroundings]:
    """Return the data of these batches that is not in their rows; query only data that can exist."""
    # Of a paused batch, items at work finish.
    active = [b.id for b in batches if b.status in ("queued", "running", "paused", "cancelling")]
    failed = [b.id for b in batches if b.failed]
    tasks = [b.id for b in batches if b.kind == "task" and b.succeeded + b.failed]
    at_work = await _by_batch(connection, "work_of", active)
    failures = await _by_batch(connection, "failures_of", failed, MOST_CODES)
    results = await _by_batch(connection, "only_results", tasks)
    begun = [b.id for b in batches if b.kind == "task" and b.started_at is not None]
    attempts = await _by_batch(connection, "attempts_of", begun, MOST_ATTEMPTS)
    around = {}
    for batch in batches:
        only = results[batch.id][0] if batch.id in results else None
        error = None
        if only is not None and only["error_code"] is not None:
            error = ItemError(code=only["error_code"], detail=only["error_detail"] or "")
        around[batch.id] = Surroundings(
            running=at_work[batch.id][0]["running"] if batch.id in at_work else 0,
            is_limited=batch.id in at_work and at_work[batch.id][0]["is_limited"],
            paused=at_work[batch.id][0]["paused"] if batch.id in at_work else None,
            next_attempt=at_work[batch.id][0]["attempt"] if batch.id in at_work else None,
            next_attempt_at=at_work[batch.id][0]["due_at"] if batch.id in at_work else None,
            failed_attempts=[FailedAttempt.model_validate(dict(row)) for row in attempts.get(batch.id, ())],
            failures={row["code"]: row["items"] for row in failures.get(batch.id, ())},
            result_text=only["result"] if only else None,
            error=error,
        )
    return around


def batch_of(row: Row) -> StoredBatch:
    """Return a row of `batches` as a batch."""
    values = {name: row[name] for name in _BATCH_FIELDS}
    for name in ("scopes", "retry_codes"):
        values[name] = None if values[name] is None else tuple(values[name])
    return StoredBatch(**values)


async def _by_batch(
    connection: Connection, statement: str, ids: Sequence[UUID], *bounds: int
) -> dict[UUID, list[Row]]:
    found: dict[UUID, list[Row]] = {}
    for row in await connection.fetch(_SQL[statement], ids, *bounds) if ids else ():
        found.setdefault(row["batch_id"], []).append(row)
    return found

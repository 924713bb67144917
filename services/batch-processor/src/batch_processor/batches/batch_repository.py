"""The tables of batch-processor, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import TypeAlias
from uuid import UUID

import asyncpg
import orjson
from pydantic_core import from_json

from batch_processor.batches.life_cycle import Status, StoredBatch
from batch_processor.batches.views import Surroundings
from batch_processor.items import binary_copy
from batch_processor.items.binary_copy import ItemRun, Successes
from chassis import queries
from chassis.broker.envelope import Delivery, text
from chassis.postgres import Connection, Row, affected_rows
from contracts import headers
from contracts.batches import CreateBatch, FailedAttempt, ItemError, SealBatch

_SQL = queries.of("batch_processor")
_ITEM_COLUMNS = ("batch_id", "position", "custom_id", "payload", "line")
_SUCCESS_COLUMNS = ("batch_id", "position", "status", "attempts", "result")
# So many rows are copied, which takes more statements and less time for each row.
MANY = 20
# The newest failed attempts at an item, and the most frequent error codes of a batch, that are shown.
MOST_ATTEMPTS = 100
MOST_CODES = 100
# Five million custom ids take some ten seconds on two cores.
COMPARED_WITHIN_S = 240
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
# The columns, beside `scopes`, in which a queued task may differ from a new row.
_TASK_VALUES = attrgetter(
    "id",
    "owner_id",
    "kind",
    "operation",
    "status",
    "priority",
    "options",
    "accepted_at",
    "not_before",
    "total",
    "received",
    "chunk_count",
    "revision",
    "appended_at",
    "metadata",
    "expires_at",
    "on_finished",
)
_BATCH_FIELDS = tuple(field.name for field in fields(StoredBatch))

# The trace and the request that created a batch.
Trace: TypeAlias = tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class KnownBatch:
    """A batch as it is known before its row is locked."""

    owner_id: str
    status: Status
    chunk_count: int


@dataclass(frozen=True, slots=True)
class Start:
    """A batch to cut into chunks, which wait until `due_at` if set, and at `gate`, if set, for its limits."""

    batch_id: UUID
    total: int
    chunk_size: int
    due_at: datetime | None
    gate: str | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A custom id of several items, and the lines of the first and the last of them."""

    custom_id: str
    first_line: int
    last_line: int
    items: int

    def __str__(self) -> str:
        """Return the custom id with its lines."""
        if self.items == 2:
            return f"{self.custom_id!r} on lines {self.first_line} and {self.last_line}"
        return f"{self.custom_id!r} on {self.items} lines from {self.first_line} to {self.last_line}"


async def ensure_rows(connection: Connection, owners: Mapping[UUID, str]) -> dict[UUID, KnownBatch]:
    """Insert a row for each batch that has none; return the state of all, without locking them."""
    ids = sorted(owners)
    await connection.execute(_SQL["ensure_rows"], ids, [owners[id_] for id_ in ids])
    rows = await connection.fetch(_SQL["peek_batches"], ids)
    return {row["id"]: KnownBatch(row["owner_id"], row["status"], row["chunk_count"]) for row in rows}


async def add_items(connection: Connection, runs: Sequence[ItemRun]) -> Counter[UUID]:
    """Store items; return how many of each batch were new."""
    added: Counter[UUID] = Counter()
    for run in runs:
        added[run.batch_id] += len(run.payloads)
    if added.total() >= MANY:
        try:
            async with connection.transaction():
                await binary_copy.copy(connection, "items", _ITEM_COLUMNS, runs)
            return added
        except asyncpg.UniqueViolationError:
            # Some rows exist already: insert only the new ones, which is slower.
            pass
    columns = map(list, zip(*(row for run in runs for row in run.rows()), strict=True))
    found = await connection.fetch(_SQL["add_items"], *columns) if added else []
    return Counter({row["batch_id"]: row["items"] for row in found})


async def add_successes(connection: Connection, runs: Sequence[Successes]) -> Counter[UUID]:
    """Store results of items; return how many of each batch were new."""
    added: Counter[UUID] = Counter()
    try:
        # Nearly always all are new, and looking for each before it is stored would double the cost.
        async with connection.transaction():
            await binary_copy.copy(connection, "results", _SUCCESS_COLUMNS, runs)
        for run in runs:
            added[run.batch_id] += len(run.positions)
    except asyncpg.UniqueViolationError:
        for run in runs:
            added[run.batch_id] += affected_rows(await connection.execute(_SQL["store_successes"], *run))
    return added


async def list_beyond(
    connection: Connection, owner_id: str, scopes: Sequence[str], *, most: int
) -> list[UUID]:
    """Return batches of the owner that have not ended and have rights beyond `scopes`."""
    rows = await connection.fetch(_SQL["list_beyond"], owner_id, list(scopes), most)
    return [row["id"] for row in rows]


async def last_position(connection: Connection, batch_id: UUID) -> int:
    """Return the greatest position of a batch's items, -1 without items."""
    found: int | None = await connection.fetchval(_SQL["last_position"], batch_id)
    return -1 if found is None else found


async def find_duplicates(connection: Connection, batch_id: UUID) -> list[Duplicate] | None:
    """Return the first ten custom ids that several items of the batch share; None if it took too long."""
    try:
        async with connection.transaction():
            await connection.execute(_SQL["allow_time"], str(COMPARED_WITHIN_S * 1000))
            # The server gives up first, which leaves the connection usable.
            rows = await connection.fetch(_SQL["find_duplicates"], batch_id, timeout=COMPARED_WITHIN_S + 5)
    except asyncpg.QueryCanceledError:
        return None
    return [Duplicate(**row) for row in rows]


async def lock_batches(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, StoredBatch]:
    """Return the batches of `ids` that exist, locked in one order until the transaction ends."""
    return {row["id"]: batch_of(row) for row in await connection.fetch(_SQL["lock_batches"], ids)}


async def save_batches(connection: Connection, batches: Sequence[StoredBatch]) -> None:
    """Write all of these batches' rows back."""
    if batches:
        # `default`: the driver returns ids of a type of its own.
        await connection.execute(_SQL["save_batches"], orjson.dumps(batches, default=str).decode())


async def add_tasks(
    connection: Connection, tasks: Sequence[tuple[Delivery[CreateBatch], StoredBatch]]
) -> list[UUID]:
    """Store tasks that are not stored yet, with the traces that created them; return their ids."""
    if not tasks:
        return []
    columns = map(list, zip(*(_TASK_VALUES(task) for _, task in tasks), strict=True))
    scopes = [None if task.scopes is None else " ".join(task.scopes) for _, task in tasks]
    _, *traces = _traces([delivery for delivery, _ in tasks])
    rows = await connection.fetch(_SQL["add_tasks"], *columns, scopes, *traces)
    return [row["id"] for row in rows]


async def remove_forgotten(connection: Connection, deliveries: Sequence[Delivery[CreateBatch]]) -> bool:
    """Remove tasks that ended long ago under the ids of these, which the gateway has accepted again since.

    Return whether there were any.
    """
    tasks = [delivery.message for delivery in deliveries if delivery.message.kind == "task"]
    again = [(task.batch_id, task.owner_id, task.accepted_at) for task in tasks]
    if not again:
        return False
    rows = await connection.fetch(_SQL["find_forgotten"], *map(list, zip(*again, strict=True)))
    if rows:
        await connection.execute(_SQL["wait_for_removal"])
        await connection.execute(_SQL["remove_forgotten"], [row["id"] for row in rows])
    return bool(rows)


async def note_traces(
    connection: Connection, deliveries: Sequence[Delivery[CreateBatch] | Delivery[SealBatch]]
) -> None:
    """Store the traces and requests that created these batches."""
    await connection.execute(_SQL["note_traces"], *_traces(deliveries))


def _traces(
    deliveries: Sequence[Delivery[CreateBatch] | Delivery[SealBatch]],
) -> tuple[list[UUID], list[str | None], list[str | None]]:
    """Return the ids of batches, and the traces and the requests that created them."""
    return (
        [delivery.message.batch_id for delivery in deliveries],
        [text(delivery.headers, headers.TRACEPARENT) for delivery in deliveries],
        [text(delivery.headers, headers.REQUEST_ID) for delivery in deliveries],
    )


async def traces_of(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Trace]:
    """Return the trace and the request that created each of these batches."""
    rows = await connection.fetch(_SQL["traces_of"], ids)
    return {row["id"]: (row["traceparent"], row["request_id"]) for row in rows}


async def save_progress(connection: Connection, batches: Sequence[StoredBatch]) -> None:
    """Write back the columns that running changes: status, counters, times."""
    columns = zip(*map(_PROGRESS_OF, batches), strict=True)
    await connection.execute(_SQL["save_progress"], *map(list, columns))


async def create_chunks(connection: Connection, starts: Sequence[Start]) -> None:
    """Cut batches into chunks, ready or waiting for their time."""
    await connection.execute(
        _SQL["create_chunks"],
        [start.batch_id for start in starts],
        [start.total for start in starts],
        [start.chunk_size for start in starts],
        [start.due_at for start in starts],
        [start.gate for start in starts],
    )


async def lock_movable(connection: Connection, ids: Sequence[UUID]) -> None:
    """Lock the chunks of these batches that wait; call this before the batches are locked."""
    await connection.execute(_SQL["lock_movable"], ids)


async def move_chunks(connection: Connection, batches: Sequence[StoredBatch]) -> None:
    """Make the chunks of batches that have not begun wait until their new time."""
    await connection.execute(
        _SQL["move_chunks"], [batch.id for batch in batches], [batch.not_before for batch in batches]
    )


async def get_batch(connection: Connection, batch_id: UUID) -> StoredBatch | None:
    """Return the batch of that id, whoever owns it."""
    row = await connection.fetchrow(_SQL["get_batch"], batch_id)
    return batch_of(row) if row is not None else None


async def count_fitting(connection: Connection, batches: Sequence[StoredBatch], *, most_bytes: int) -> int:
    """Return how many of `batches` have results and attempts of `most_bytes`, and one more that exceeds."""
    tasks = [batch.id for batch in batches if batch.kind == "task" and batch.started_at is not None]
    sizes = await _by_batch(connection, "task_sizes", tasks, MOST_ATTEMPTS)
    total = 0
    for number, batch in enumerate(batches):
        if total >= most_bytes:
            return number
        total += sizes[batch.id][0]["size"] if batch.id in sizes else 0
    return len(batches)


async def surroundings(connection: Connection, batches: Sequence[StoredBatch]) -> dict[UUID, Surroundings]:
    """Return the data of these batches that is not in their rows; query only data that can exist."""
    active = [b.id for b in batches if b.status in ("queued", "running", "cancelling")]
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
            result=from_json(only["result"]) if only and only["result"] is not None else None,
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

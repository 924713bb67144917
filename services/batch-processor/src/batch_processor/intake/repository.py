"""The statements of the intake. Every function works on the caller's connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Literal, TypeAlias
from uuid import UUID

import asyncpg

from batch_processor.batches.life_cycle import Status, StoredBatch
from batch_processor.items import binary_copy, copy_repository
from batch_processor.items.binary_copy import ItemRun
from chassis import queries
from chassis.broker.envelope import Delivery, text
from chassis.postgres import Connection
from contracts import headers
from contracts.batches import CreateBatch, SealBatch

_SQL = queries.of("batch_processor")
_ITEM_COLUMNS = ("batch_id", "position", "custom_id", "payload", "line")
# Five million custom ids take some ten seconds on two cores.
COMPARED_WITHIN_S = 240
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

# With `smallest`, a short upload overtakes long ones; with `oldest`, no upload waits for ever.
Order: TypeAlias = Literal["oldest", "smallest"]


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
    if added.total() >= binary_copy.MANY:
        try:
            async with connection.transaction():
                await copy_repository.copy(connection, "items", _ITEM_COLUMNS, runs)
            return added
        except asyncpg.UniqueViolationError:
            # Some rows exist already: insert only the new ones, which is slower.
            pass
    columns = map(list, zip(*(row for run in runs for row in run.rows()), strict=True))
    found = await connection.fetch(_SQL["add_items"], *columns) if added else []
    return Counter({row["batch_id"]: row["items"] for row in found})


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
        gone = await connection.fetch(_SQL["remove_forgotten"], [row["id"] for row in rows])
        await connection.execute(_SQL["remove_rows_of_tasks"], [row["id"] for row in gone])
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


async def list_beyond(
    connection: Connection, owner_id: str, scopes: Sequence[str], *, until: datetime, most: int
) -> list[UUID]:
    """Return batches of the owner that have not ended and have had rights beyond `scopes` since `until`."""
    rows = await connection.fetch(_SQL["list_beyond"], owner_id, list(scopes), most, until)
    return [row["id"] for row in rows]


async def find_failing(connection: Connection, codes: Iterable[tuple[UUID, str]]) -> set[UUID]:
    """Return those of the batches that have failed items with a code that `codes` has for them."""
    columns = [list(column) for column in zip(*codes, strict=True)]
    rows = await connection.fetch(_SQL["find_failing"], *columns) if columns else []
    return {row["batch_id"] for row in rows}


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


async def lock_next_upload(
    connection: Connection,
    order: Order,
    *,
    after_owner: str,
    but: Collection[UUID],
    operations: Collection[str],
    left_to_others_s: float,
) -> tuple[UUID, str] | None:
    """Return a sealed upload to check, with its owner, that no other transaction checks; lock its check.

    `oldest` begins with the next owner behind `after_owner`. None is of `but`, and none of an operation that
    is not in `operations` is younger than `left_to_others_s`.
    """
    statement = _SQL[f"next_validating_{order}"]
    for row in await connection.fetch(statement, but, operations, left_to_others_s, after_owner):
        if await connection.fetchval(_SQL["lock_validation"], row["id"]):
            return row["id"], row["owner_id"]
    return None

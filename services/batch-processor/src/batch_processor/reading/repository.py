"""Pages of items, results and errors, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias
from uuid import UUID

from batch_processor.batches.batch_repository import MOST_ATTEMPTS, MOST_CODES
from batch_processor.batches.life_cycle import StoredBatch
from chassis import queries
from chassis.postgres import Connection, Row
from contracts.batch_items import ErrorSample, ErrorSummary

_SQL = queries.of("batch_processor")
UnfinishedStatus: TypeAlias = Literal["pending", "running"]
# A reply is one message, and no message is larger than 1 MiB.
PAGE_BYTES = 700_000


async def count_fitting(connection: Connection, batches: Sequence[StoredBatch]) -> int:
    """Return how many of `batches` have results and attempts of a page, and one more that exceeds it."""
    tasks = [batch.id for batch in batches if batch.kind == "task" and batch.started_at is not None]
    rows = await connection.fetch(_SQL["task_sizes"], tasks, MOST_ATTEMPTS) if tasks else []
    sizes = {row["batch_id"]: row["size"] for row in rows}
    total = 0
    for number, batch in enumerate(batches):
        if total >= PAGE_BYTES:
            return number
        total += sizes.get(batch.id, 0)
    return len(batches)


async def last_gapless(connection: Connection, batch_id: UUID, *, after: int, until: int) -> int:
    """Return the last position behind `after`, up to `until`, up to which every item has a result."""
    return int(await connection.fetchval(_SQL["last_gapless"], batch_id, after, until))


async def list_results(
    connection: Connection,
    batch_id: UUID,
    *,
    after: int,
    until: int,
    status: str | None,
    limit: int,
    lines: bool,
) -> Row:
    """Return up to `limit` results behind the position `after`, with the `status` if it is given."""
    arguments = batch_id, after, until, status, limit, PAGE_BYTES, lines
    return await _page(connection, "list_results", *arguments)


async def list_unfinished(
    connection: Connection,
    batch_id: UUID,
    *,
    status: UnfinishedStatus,
    after: int,
    limit: int,
    lines: bool,
    span: int,
) -> Row:
    """Return up to `limit` items behind the position `after` that wait or are at work.

    Those that wait are of the next `span` positions; `more` of the row is the last of these if others may
    follow.
    """
    arguments = batch_id, after, limit, PAGE_BYTES, lines, span, status
    return await _page(connection, "list_unfinished", *arguments)


async def _page(connection: Connection, statement: str, *arguments: object) -> Row:
    """Return rows as JSON (`data`), the last one's position, and whether others did not fit (`is_cut`)."""
    row = await connection.fetchrow(_SQL[statement], *arguments)
    assert row is not None, "an aggregate always has a row"
    return row


async def list_items(connection: Connection, batch_id: UUID, *, after: int, limit: int) -> list[Row]:
    """Return up to `limit` items after the position `after`, fewer when they are large."""
    arguments = batch_id, after, after + limit, PAGE_BYTES, MOST_ATTEMPTS
    return await connection.fetch(_SQL["list_items"], *arguments)


async def sum_up_errors(
    connection: Connection, batch_id: UUID, *, codes: Sequence[str], samples: int
) -> list[ErrorSummary]:
    """Return the error codes of a batch, or those in `codes`, the most frequent first.

    Each comes with its first items, up to `samples` of them.
    """
    rows = await connection.fetch(_SQL["sum_up_errors"], batch_id, MOST_CODES, codes, samples)
    found: dict[str, ErrorSummary] = {}
    for code, count, position, custom_id, detail in rows:
        summary = found.setdefault(code, ErrorSummary(code=code, items=count, samples=[]))
        if position is not None:
            summary.samples.append(ErrorSample(position=position, custom_id=custom_id, detail=detail or ""))
    return list(found.values())

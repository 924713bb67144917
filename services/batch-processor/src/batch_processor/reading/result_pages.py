"""Results of items: stored once, and listed in input order in pages that all cost the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from batch_processor.batches import batch_repository
from batch_processor.batches.life_cycle import StoredBatch, Tally
from batch_processor.execution.running_chunk import Outcomes
from batch_processor.items.binary_copy import Successes
from chassis import queries
from chassis.postgres import Connection, Row, affected_rows

_SQL = queries.of("batch_processor")
# A reply is one message, and no message is larger than 1 MiB.
PAGE_BYTES = 700_000
# Positions that one statement searches for results of one status, and such statements for one page.
_SPAN = 50_000
_MOST_SPANS = 20
# The same for pending items, which cost more: each may have a result, or be at work.
_PENDING_SPAN = 5_000

EndStatus = Literal["succeeded", "failed", "cancelled", "skipped"]
UnfinishedStatus = Literal["pending", "running"]


@dataclass(frozen=True, slots=True)
class Page:
    """Some results as JSON. The next page begins after `last_position`; None when there is no more now.

    `complete` is false while the batch runs: the results of items after one that has not ended are not
    listed yet, so that no page skips them.
    """

    rows: str | None
    last_position: int | None
    complete: bool

    def to_json(self, *, lines: bool) -> bytes:
        """Return the page as a `contracts.batches.Results`; with `lines`, each row on its own line."""
        cursor = "null" if self.last_position is None else f'"{self.last_position}"'
        rows = self.rows or ""
        data = f"\n{rows}\n" if lines and rows else rows
        complete = "true" if self.complete else "false"
        return f'{{"data":[{data}],"next_cursor":{cursor},"complete":{complete}}}'.encode()


@dataclass(frozen=True, slots=True)
class Entry:
    """The items that a chunk ended in its `attempt`: outcomes, and positions that were cancelled.

    The cancelled ones come with the attempts that had begun.
    """

    batch_id: UUID
    attempt: int
    outcomes: Outcomes
    cancelled: Mapping[int, int] = field(default_factory=dict)


async def list_ended(
    connection: Connection,
    batch: StoredBatch,
    *,
    status: EndStatus | None,
    after: int,
    limit: int,
    lines: bool,
) -> Page:
    """Return up to `limit` results after the position `after`, fewer when they are large.

    Each statement reads a bounded range of positions, whatever the planner assumes about the tables.
    """
    # Without chunks nothing was run: the items of a refused batch have no results.
    last = (batch.total or 0) - 1 if batch.chunk_count else -1
    span = limit if status is None else _SPAN
    found: Row | None = None
    for _ in range(_MOST_SPANS):
        wanted = end = min(after + span, last)
        if not batch.is_finished:
            end = await connection.fetchval(_SQL["last_gapless"], batch.id, after, wanted)
        arguments = (batch.id, after, end, status, limit, PAGE_BYTES, lines)
        found = await connection.fetchrow(_SQL["list_results"], *arguments)
        if (found and found["data"]) or end < wanted or end >= last:
            break
        after = end
    more = end if end == wanted and end < last else None
    return _page(found, more=more, complete=batch.is_finished)


async def list_unfinished(
    connection: Connection,
    batch: StoredBatch,
    *,
    status: UnfinishedStatus,
    after: int,
    limit: int,
    lines: bool,
) -> Page:
    """Return the items after the position `after` that wait or run; they have no result yet."""
    if batch.is_finished:
        return Page(None, None, complete=True)
    if status == "running":
        arguments = (batch.id, after, limit, PAGE_BYTES, lines)
        return _page(await connection.fetchrow(_SQL["list_running"], *arguments), more=None, complete=False)
    found: Row | None = None
    more: int | None = after
    span = max(limit + 1, _PENDING_SPAN)
    for _ in range(_MOST_SPANS):
        found = await connection.fetchrow(
            _SQL["list_pending"], batch.id, more, limit, PAGE_BYTES, lines, span
        )
        more = found["more"] if found else None
        if more is None or (found and found["data"]):
            break
    return _page(found, more=more, complete=False)


async def store(connection: Connection, entries: Sequence[Entry]) -> dict[UUID, Tally]:
    """Store results of chunks; return the number of new ones of each batch.

    Chunks with many results are copied together, those with few share a statement.
    """
    tallies: dict[UUID, Tally] = {entry.batch_id: Tally() for entry in entries}
    many = [
        Successes(entry.batch_id, entry.attempt, entry.outcomes.positions, entry.outcomes.results)
        for entry in entries
        if len(entry.outcomes.positions) >= batch_repository.MANY
    ]
    if many:
        for batch_id, succeeded in (await batch_repository.add_successes(connection, many)).items():
            tallies[batch_id] += Tally(succeeded=succeeded)
    few = [entry for entry in entries if 0 < len(entry.outcomes.positions) < batch_repository.MANY]
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


def _page(found: Row | None, *, more: int | None, complete: bool) -> Page:
    assert found is not None, "an aggregate always has a row"
    return Page(found["data"], found["last_position"] if found["is_cut"] else more, complete)

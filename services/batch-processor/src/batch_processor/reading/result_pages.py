"""Results of items, listed in input order in pages that all cost the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.reading import repository
from batch_processor.reading.repository import UnfinishedStatus
from chassis.postgres import Connection, Row

# Positions that one statement searches for results of one status, and such statements for one page.
_SPAN = 50_000
_MOST_SPANS = 20
# The same for pending items, which cost more: each may have a result, or be at work.
_PENDING_SPAN = 5_000

EndStatus = Literal["succeeded", "failed", "cancelled", "skipped"]


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
    for _ in range(_MOST_SPANS):
        wanted = end = min(after + span, last)
        if not batch.is_finished:
            end = await repository.last_gapless(connection, batch.id, after=after, until=wanted)
        found = await repository.list_results(
            connection, batch.id, after=after, until=end, status=status, limit=limit, lines=lines
        )
        if found["data"] or end < wanted or end >= last:
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
    place, span = after, max(limit + 1, _PENDING_SPAN)
    for _ in range(_MOST_SPANS):
        found = await repository.list_unfinished(
            connection, batch.id, status=status, after=place, limit=limit, lines=lines, span=span
        )
        if found["more"] is None or found["data"]:
            break
        place = found["more"]
    return _page(found, more=found["more"], complete=False)


def _page(found: Row, *, more: int | None, complete: bool) -> Page:
    return Page(found["data"], found["last_position"] if found["is_cut"] else more, complete)

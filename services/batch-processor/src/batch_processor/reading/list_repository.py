"""Lists and counts of the batches and tasks of an owner, by a filter."""

from __future__ import annotations

from collections import Counter
from typing import get_args
from uuid import UUID

from batch_processor.batches.batch_repository import batch_of
from batch_processor.batches.life_cycle import StoredBatch
from chassis import queries
from chassis.paging import page_of
from chassis.postgres import Connection
from contracts.batches import BatchCounts, BatchFilter, BatchStatus, Kind

_SQL = queries.of("batch_processor")
# Batches that one page compares with its filter, and that are counted of each status: a filter may match none
# of very many.
MOST_EXAMINED = 5000

_LAST = UUID(int=2**128 - 1)


async def list_batches(
    connection: Connection,
    owner_id: str,
    *,
    kind: Kind,
    wanted: BatchFilter = BatchFilter(),  # noqa: B008 - frozen
    before: UUID | None,
    limit: int,
) -> tuple[list[StoredBatch], UUID | None]:
    """Return an owner's batches that fit `wanted`, newest first, and the id behind which others follow.

    With a filter other than by status it examines `MOST_EXAMINED` at most: there may be fewer than `limit`,
    or none, and yet others follow.
    """
    statuses, *choice = _choice(wanted)
    before, end = before or _LAST, None
    # A batch that is stored after the first statement would push the last one out of the second.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        parts = [(status, limit + 1) for status in statuses]
        if any(choice):
            rows = await connection.fetch(
                _SQL["find_examined_batches"], owner_id, kind, statuses, before, MOST_EXAMINED
            )
            parts = [(row["status"], row["most"]) for row in rows]
            if sum(most for _, most in parts) == MOST_EXAMINED:
                end = min(row["last"] for row in rows)
        found = await connection.fetch(
            _SQL["list_batches"],
            *(owner_id, kind, [status for status, _ in parts], *choice),
            *(before, [most for _, most in parts], limit + 1),
        )
    rows, following = page_of(found, limit, lambda row: row["id"])
    return [batch_of(row) for row in rows], following or end


async def count_batches(
    connection: Connection,
    owner_id: str,
    *,
    kind: Kind | None = None,
    wanted: BatchFilter = BatchFilter(),  # noqa: B008 - frozen
    before: UUID | None = None,
    until: UUID | None = None,
) -> BatchCounts:
    """Return how many batches and tasks of the owner that fit `wanted` are in each status.

    Those before the id `before` and from `until` on; among the `MOST_EXAMINED` newest of each status.
    """
    kinds = [kind] if kind else list(get_args(Kind))
    rows = await connection.fetch(
        _SQL["count_batches"],
        *(owner_id, kinds, *_choice(wanted), before or _LAST, until, MOST_EXAMINED),
    )
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["status"]] += row["batches"]
    return BatchCounts(counts=+counts, exact=not any(row["is_cut"] for row in rows))


def _choice(
    wanted: BatchFilter,
) -> tuple[list[str], list[str] | None, object, object, bool, list[str] | None]:
    return (
        list(set(wanted.statuses or get_args(BatchStatus))),
        wanted.operations or None,
        wanted.created_after,
        wanted.created_before,
        wanted.with_failures,
        wanted.failure_codes or None,
    )

"""The coordinator's SQL statements: promote, sweep, cancel, expire and remove."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from batch_processor.batches.batch_repository import MOST_ATTEMPTS
from chassis import queries
from chassis.postgres import Connection, affected_rows

_SQL = queries.of("batch_processor")

# Chunks that were due longer ago than this are searched for only now and then: most such rows are dead ones
# that an old snapshot keeps. A chunk appears so late only if its transaction took that long.
DUE_MARGIN = timedelta(seconds=60)
# Batches that one look finds for each step of the coordinator.
MOST_FOUND = 100
# Counting more each second would cost more than it tells.
_MOST_COUNTED = 10_000

# The first and last position of items, and the attempts at them that have ended.
Range: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ChunkBacklog:
    """Chunks that are ready, up to 10,000, the age of the oldest in seconds, and chunks in flight.

    No ready chunk has a stamp before `ready_from`, and no chunk in flight one before `in_flight_from`.
    `is_leased` says whether any chunk is in flight, including those of the previous release.
    """

    ready: int = 0
    oldest_ready_s: float = 0
    in_flight: int = 0
    is_leased: bool = False
    ready_from: int = 0
    in_flight_from: int = 0

    @property
    def is_unknown(self) -> bool:
        """Return whether nothing was measured yet on the present database server."""
        return not self.ready_from


@dataclass(frozen=True, slots=True)
class BegunRemovals:
    """The number of removed batches and tasks, and for how many seconds the first was past its retention."""

    batches: int = 0
    tasks: int = 0
    late_s: float = 0


async def promote(connection: Connection, *, due_from: datetime) -> int:
    """Make chunks ready whose time came between `due_from` and now; return how many."""
    return affected_rows(await connection.execute(_SQL["promote_chunks"], due_from))


async def next_due_in_s(connection: Connection, *, due_from: datetime) -> float:
    """Return the seconds until the next delayed chunk after `due_from` is due; infinity without one."""
    due_in_s = await connection.fetchval(_SQL["next_due_in_s"], due_from)
    return math.inf if due_in_s is None else float(due_in_s)


async def look_for_work(
    connection: Connection, *, upload_expires_s: float, ready_from: int, due_within_s: float
) -> Mapping[str, bool]:
    """Return by kind whether there is work: `orders`, `expired`, `ready`, `due` …

    An upload is `expired` when it was open for `upload_expires_s` seconds. No chunk with a stamp before
    `ready_from` is ready. A chunk is `due` within `due_within_s` seconds.
    """
    due_from = datetime.now(UTC) - DUE_MARGIN
    arguments = upload_expires_s, ready_from, due_from, due_within_s
    row = await connection.fetchrow(_SQL["look_for_work"], *arguments)
    assert row is not None
    return dict(row)


async def adopt(connection: Connection) -> None:
    """Set the owner of chunks that the previous release has created."""
    await connection.execute(_SQL["adopt_chunks"])


async def restamp(connection: Connection) -> None:
    """Set the current stamp on ready chunks whose stamp this server has not issued yet."""
    await connection.execute(_SQL["restamp_chunks"])


async def sweep(connection: Connection, *, in_flight_from: int) -> int:
    """Make chunks ready again whose leases have expired; return how many."""
    return affected_rows(await connection.execute(_SQL["sweep_chunks"], in_flight_from))


async def measure(connection: Connection, before: ChunkBacklog) -> ChunkBacklog:
    """Return the present backlog; `before` is the last one, which says where to begin."""
    arguments = before.ready_from, before.in_flight_from, _MOST_COUNTED
    row = await connection.fetchrow(_SQL["measure_chunks"], *arguments)
    assert row is not None
    return ChunkBacklog(**row)


async def measure_validation(connection: Connection) -> tuple[int, float]:
    """Return how many uploads wait for the check of their custom ids, and the age of the oldest (seconds)."""
    row = await connection.fetchrow(_SQL["measure_validation"])
    assert row is not None
    return row["uploads"], row["oldest_s"]


async def count_overdue(
    connection: Connection,
    *,
    begun_within_s: float,
    validated_within_s: float,
    upload_expires_s: float,
    cancelled_within_s: float,
) -> int:
    """Return how many batches are past a promised time, or still running with nothing left to do."""
    promises = begun_within_s, validated_within_s, upload_expires_s, cancelled_within_s
    return int(await connection.fetchval(_SQL["count_overdue"], *promises))


async def cancelling(connection: Connection, *, but: Collection[UUID], after: str) -> Mapping[UUID, str]:
    """Return batches with items to cancel, with their owners, except those in `but`.

    They belong to the next owners after `after`, in a circle.
    """
    rows = await connection.fetch(_SQL["next_cancelling"], but, MOST_FOUND, after)
    return {row["id"]: row["owner_id"] for row in rows}


async def take_cancelled(
    connection: Connection, batch_id: UUID, *, most: int, ends_within_s: float | None
) -> list[Range]:
    """Remove chunks of about `most` items that no worker has; return their ranges.

    A worker whose lease ends within `ends_within_s` seconds counts as dead; without that time none does.
    """
    rows = await connection.fetch(_SQL["take_cancelled_chunks"], batch_id, most, ends_within_s)
    found: list[Range] = []
    for first, last, positions, attempts in rows:
        spans = [(first, last)] if positions is None else [(p, p) for p in positions]
        found += [(*span, attempts) for span in spans]
    return found


async def cancel_ranges(connection: Connection, batch_id: UUID, ranges: Sequence[Range]) -> int:
    """Mark the items of `ranges` that have no result as cancelled; return how many."""
    columns = zip(*ranges, strict=True)
    return affected_rows(await connection.execute(_SQL["cancel_ranges"], batch_id, *columns))


async def expired_uploads(
    connection: Connection, *, expires_s: float, but: Collection[UUID], after: str
) -> Mapping[UUID, str]:
    """Return the batches open for over `expires_s` seconds, with their owners, except those in `but`.

    They belong to the next owners after `after`, in a circle.
    """
    rows = await connection.fetch(_SQL["find_expired_uploads"], expires_s, but, MOST_FOUND, after)
    return {row["id"]: row["owner_id"] for row in rows}


async def hold(connection: Connection, *, most: int, with_pauses: bool) -> int:
    """Take about `most` chunks of paused batches out of the queue; return how many.

    Each owner has the same share. With `with_pauses`, also those of paused operations and owners.
    """
    return affected_rows(await connection.execute(_SQL["hold_chunks"], most, with_pauses))


async def release(connection: Connection, *, most: int) -> int:
    """Put about `most` chunks of resumed batches back into the queue; return how many.

    Each owner has the same share.
    """
    return affected_rows(await connection.execute(_SQL["release_chunks"], most))


async def retrying(connection: Connection, *, but: Collection[UUID], after: str) -> Mapping[UUID, str]:
    """Return batches with failed items to queue for a retry, with their owners, except those in `but`.

    They belong to the next owners after `after`, in a circle.
    """
    rows = await connection.fetch(_SQL["next_retrying"], but, MOST_FOUND, after)
    return {row["id"]: row["owner_id"] for row in rows}


async def lock_failures(connection: Connection, batch_id: UUID) -> None:
    """Lock the counts of a batch's errors; call this before the batch is locked."""
    await connection.execute(_SQL["lock_failures"], batch_id)


async def take_failed(
    connection: Connection, batch_id: UUID, *, after: int, codes: Sequence[str], most: int
) -> list[int]:
    """Remove the results of up to `most` failed items after `after`; return their positions.

    Of the failed attempts of each item, the newest `MOST_ATTEMPTS` are kept.
    """
    rows = await connection.fetch(_SQL["take_failed"], batch_id, after, codes, most, MOST_ATTEMPTS)
    return [row["position"] for row in rows]


async def lapsed(connection: Connection, *, but: Collection[UUID], after: str) -> Mapping[UUID, str]:
    """Return batches that have not ended by their deadline, with their owners, except those in `but`.

    They belong to the next owners after `after`, in a circle.
    """
    rows = await connection.fetch(_SQL["find_lapsed"], but, MOST_FOUND, after)
    return {row["id"]: row["owner_id"] for row in rows}


async def lock_removal(connection: Connection) -> bool:
    """Return whether this transaction is the only one that removes now."""
    return bool(await connection.fetchval(_SQL["lock_removal"]))


async def unused(connection: Connection, *, most: int) -> list[UUID]:
    """Return batches that never ran and whose items are still stored."""
    return [row["id"] for row in await connection.fetch(_SQL["find_unused"], most)]


async def removals(connection: Connection, *, most: int) -> Mapping[UUID, float]:
    """Return up to `most` removed batches with rows left, and how many seconds ago the first was removed."""
    rows = await connection.fetch(_SQL["list_removals"], most)
    return {row["batch_id"]: row["since_s"] for row in rows}


async def begin_removals(connection: Connection, *, days: int, most: int) -> BegunRemovals:
    """Remove up to `most` batches and tasks that finished more than `days` days ago, the oldest first.

    A task goes with all of its rows. A batch goes alone, so that nobody finds or retries one of which a part
    has been removed; its rows follow.
    """
    row = await connection.fetchrow(_SQL["begin_removals"], most, days)
    assert row is not None
    tasks = row["tasks"]
    if tasks:
        await connection.execute(_SQL["remove_rows_of_tasks"], tasks)
    return BegunRemovals(row["batches"], len(tasks), row["late_s"])


async def remove_rows(connection: Connection, ids: Sequence[UUID], *, most: int) -> bool:
    """Remove up to `most` rows of batches from each table of their items; return whether that was all."""
    removed = [
        affected_rows(await connection.execute(_SQL[statement], ids, most))
        for statement in ("remove_items", "remove_results", "remove_attempts", "remove_failures")
    ]
    return max(removed) < most


async def mark_purged(connection: Connection, ids: Sequence[UUID]) -> None:
    """Record that the batches' items were removed."""
    await connection.execute(_SQL["mark_purged"], ids)


async def end_removals(connection: Connection, ids: Sequence[UUID]) -> None:
    """Record that nothing of these batches is left."""
    await connection.execute(_SQL["end_removals"], ids)

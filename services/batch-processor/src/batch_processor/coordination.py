"""The coordinator's statements: promoting, sweeping, cancelling, expiring, removing."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, affected_rows

_SQL = queries.load("batch_processor")

# Counting more each second would cost more than it tells.
_MOST_COUNTED = 10_000

Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Backlog:
    """Chunks that wait, up to 10,000 (and for how many seconds the first of them), and chunks at the workers.

    No chunk that waits has a stamp before `ready_from`, and none at the workers one before `in_flight_from`.
    `is_leased` says whether there is any at the workers, also at those of the release before.
    """

    ready: int = 0
    oldest_ready_s: float = 0
    in_flight: int = 0
    is_leased: bool = False
    ready_from: int = 0
    in_flight_from: int = 0

    @property
    def is_unknown(self) -> bool:
        """Return whether nothing was measured yet on the server that is asked now."""
        return not self.ready_from


async def promote(connection: Connection, *, due_from: datetime) -> int:
    """Make chunks ready whose time came between `due_from` and now; return how many."""
    return affected_rows(await connection.execute(_SQL["promote_chunks"], due_from))


async def next_due_in_s(connection: Connection, *, due_from: datetime) -> float:
    """Return in how many seconds the next delayed chunk behind `due_from` is due; infinity without any."""
    due_in_s = await connection.fetchval(_SQL["next_due_in_s"], due_from)
    return math.inf if due_in_s is None else float(due_in_s)


async def has_orders(connection: Connection) -> bool:
    """Return whether a batch is to be paused, resumed, retried or cancelled."""
    return bool(await connection.fetchval(_SQL["has_orders"]))


async def has_expired(connection: Connection, *, after_s: float) -> bool:
    """Return whether an upload is open for longer than `after_s` seconds, or a batch past its deadline."""
    return bool(await connection.fetchval(_SQL["has_expired"], after_s))


async def adopt(connection: Connection) -> None:
    """Give chunks that the release before this one has made their owner."""
    await connection.execute(_SQL["adopt_chunks"])


async def restamp(connection: Connection) -> None:
    """Give the stamp of now to chunks that are ready and have one which this server has not given yet."""
    await connection.execute(_SQL["restamp_chunks"])


async def sweep(connection: Connection, *, in_flight_from: int) -> int:
    """Make chunks ready again whose worker gave no sign of life; return how many."""
    return affected_rows(await connection.execute(_SQL["sweep_chunks"], in_flight_from))


async def measure(connection: Connection, before: Backlog) -> Backlog:
    """Return what waits and what is at the workers now; `before` says where to begin."""
    arguments = before.ready_from, before.in_flight_from, _MOST_COUNTED
    row = await connection.fetchrow(_SQL["measure_chunks"], *arguments)
    assert row is not None
    return Backlog(**row)


async def measure_validation(connection: Connection) -> tuple[int, float]:
    """Return how many uploads wait for the check of their custom ids, and for how many seconds the first."""
    row = await connection.fetchrow(_SQL["measure_validation"])
    assert row is not None
    return row["uploads"], row["oldest_s"]


async def count_overdue(connection: Connection, *, begun_within_s: float, validated_within_s: float) -> int:
    """Return how many batches are past what was promised, or at work with nothing left to do for them."""
    return int(await connection.fetchval(_SQL["count_overdue"], begun_within_s, validated_within_s))


async def cancelling(connection: Connection, *, but: Collection[UUID]) -> list[UUID]:
    """Return the batches with items to cancel, without those in `but`."""
    return [row["id"] for row in await connection.fetch(_SQL["next_cancelling"], but)]


async def take_cancelled(
    connection: Connection, batch_id: UUID, *, most: int, ends_within_s: float | None
) -> list[Range]:
    """Remove chunks that no worker has; return the runs of positions they held, ends included.

    A worker whose lease ends within `ends_within_s` seconds counts as dead; without that time none does.
    """
    rows = await connection.fetch(_SQL["take_cancelled_chunks"], batch_id, most, ends_within_s)
    found: list[Range] = []
    for first, last, positions in rows:
        found += [(first, last)] if positions is None else [(p, p) for p in positions]
    return found


async def cancel_ranges(connection: Connection, batch_id: UUID, ranges: Sequence[Range]) -> int:
    """Mark the items of `ranges` that have no result as cancelled; return how many."""
    low, high = zip(*ranges, strict=True)
    return affected_rows(await connection.execute(_SQL["cancel_ranges"], batch_id, low, high))


async def expired_uploads(
    connection: Connection, *, after_s: float, but: Collection[UUID]
) -> Mapping[UUID, str]:
    """Return the batches that are open for more than `after_s` seconds, with their owners, but not `but`."""
    rows = await connection.fetch(_SQL["find_expired_uploads"], after_s, but)
    return {row["id"]: row["owner_id"] for row in rows}


async def hold(connection: Connection, *, most: int) -> int:
    """Take up to `most` chunks of paused batches out of the queue; return how many."""
    return affected_rows(await connection.execute(_SQL["hold_chunks"], most))


async def release(connection: Connection, *, most: int) -> int:
    """Put up to `most` chunks of resumed batches back into the queue; return how many."""
    return affected_rows(await connection.execute(_SQL["release_chunks"], most))


async def retrying(connection: Connection, *, but: Collection[UUID]) -> list[UUID]:
    """Return the batches with failed items to be taken for a retry, without those in `but`."""
    return [row["id"] for row in await connection.fetch(_SQL["next_retrying"], but)]


async def lock_failures(connection: Connection, batch_id: UUID) -> None:
    """Lock the counts of a batch's errors; to be called before the batch is locked."""
    await connection.execute(_SQL["lock_failures"], batch_id)


async def take_failed(
    connection: Connection, batch_id: UUID, *, after: int, codes: Sequence[str], most: int
) -> list[int]:
    """Take back the results of up to `most` failed items behind `after`; return their positions."""
    rows = await connection.fetch(_SQL["take_failed"], batch_id, after, codes, most)
    return [row["position"] for row in rows]


async def lapsed(connection: Connection, *, but: Collection[UUID]) -> Mapping[UUID, str]:
    """Return batches that have not ended by their deadline, with their owners, but not those in `but`."""
    return {row["id"]: row["owner_id"] for row in await connection.fetch(_SQL["find_lapsed"], but)}


async def lock_removal(connection: Connection) -> bool:
    """Return whether this transaction is the only one that removes now."""
    return bool(await connection.fetchval(_SQL["lock_removal"]))


async def unused(connection: Connection, *, most: int) -> list[UUID]:
    """Return batches that never ran and whose items are still there."""
    return [row["id"] for row in await connection.fetch(_SQL["find_unused"], most)]


async def outdated(connection: Connection, *, days: int, most: int) -> list[UUID]:
    """Return batches that finished more than `days` days ago, the oldest first."""
    return [row["id"] for row in await connection.fetch(_SQL["find_outdated"], most, days)]


async def remove_rows(connection: Connection, ids: Sequence[UUID], *, most: int) -> bool:
    """Remove up to `most` items and `most` results of batches; return whether that was all of them."""
    removed = [
        affected_rows(await connection.execute(_SQL[statement], ids, most))
        for statement in ("remove_items", "remove_results")
    ]
    return max(removed) < most


async def mark_purged(connection: Connection, ids: Sequence[UUID]) -> None:
    """Remember that the batches' items are gone."""
    await connection.execute(_SQL["mark_purged"], ids)


async def remove_batches(connection: Connection, ids: Sequence[UUID]) -> None:
    """Remove the batches themselves."""
    await connection.execute(_SQL["remove_batches"], ids)

"""Suppressions and failures of addresses in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from chassis import queries
from chassis.broker.envelope import new_id
from chassis.postgres import Connection
from contracts.suppressions import AddedOrigin, Suppression, SuppressionEntry, SuppressionFilter
from emailer.suppression.rules import (
    Failure,
    FailureCounts,
    FailureOrigin,
    SuppressionTerms,
    Target,
    reason_of,
)

SQL = queries.load("emailer")


async def reasons(connection: Connection, targets: Collection[Target]) -> dict[Target, str]:
    """Return for each of `targets` that is suppressed now the reason, as the attempt records it."""
    if not targets:
        return {}
    rows = await connection.fetch(SQL["find_suppressed"], *_columns([t.columns for t in targets], 3))
    return {
        Target(row["owner_id"], row["stream"], row["address"]): (
            f"not sent: suppressed since {row['created_at']:%Y-%m-%d} ({row['origin']})"
            + (f": {row['reason']}" if row["reason"] else "")
        )
        for row in rows
    }


async def lock(connection: Connection, owner_ids: Iterable[str]) -> None:
    """Keep others from changing suppressions and failures of these owners until the transaction ends.

    Whatever changes them does this once, before anything else of theirs is locked: so nobody has a row that
    another one waits for, in whichever order they come to them.
    """
    for owner_id in sorted(set(owner_ids)):
        await connection.execute(SQL["lock_suppressions"], owner_id)


async def add(
    connection: Connection,
    owner_id: str,
    entries: Sequence[SuppressionEntry],
    *,
    origin: AddedOrigin,
    most: int,
) -> tuple[list[Suppression], int] | None:
    """Suppress addresses, given as they are compared; return them, and how many are new.

    Return None when the owner would have more than `most`; then nothing is added.
    """
    await lock(connection, [owner_id])
    # The same address twice: the last one counts, in its place.
    wanted = {(entry.address, entry.stream): entry for entry in entries}
    keys = _columns(list(wanted), 2)
    known = await connection.fetchval(SQL["count_known"], owner_id, *keys)
    held = await connection.fetchval(SQL["count_suppressions"], owner_id, most)
    if held + len(wanted) - known > most:
        return None
    rows = [
        (new_id(), owner_id, entry.address, entry.stream, origin, entry.reason, entry.expires_at)
        for entry in wanted.values()
    ]
    written = await connection.fetch(SQL["add_suppressions"], *_columns(rows, 7))
    found = {(row["address"], row["stream"]): Suppression(**dict(row)) for row in written}
    return [found[entry.address, entry.stream] for entry in entries], len(wanted) - known


async def page(
    connection: Connection, owner_id: str, wanted: SuppressionFilter, *, before: UUID | None, limit: int
) -> list[Suppression]:
    """Return suppressions of an owner that hold now, newest first."""
    rows = await connection.fetch(SQL["list_suppressions"], *_chosen(owner_id, wanted), before, limit)
    return [Suppression(**dict(row)) for row in rows]


async def count_matching(connection: Connection, owner_id: str, wanted: SuppressionFilter) -> int:
    """Return how many suppressions of an owner fit."""
    count: int = await connection.fetchval(SQL["count_matching_suppressions"], *_chosen(owner_id, wanted))
    return count


async def get(connection: Connection, owner_id: str, suppression_id: UUID) -> Suppression | None:
    """Return a suppression of an owner that holds now."""
    row = await connection.fetchrow(SQL["get_suppression"], suppression_id, owner_id)
    return None if row is None else Suppression(**dict(row))


async def lift(connection: Connection, owner_id: str, ids: Sequence[UUID]) -> int:
    """End suppressions of an owner, and forget the failures of their addresses; return how many ended."""
    await lock(connection, [owner_id])
    count: int = await connection.fetchval(SQL["lift_suppressions"], ids, owner_id)
    return count


async def note_failures(
    connection: Connection, failures: Sequence[Failure], *, terms: SuppressionTerms
) -> dict[Target, FailureCounts]:
    """Write failures down that count; return how many each of their addresses has."""
    # In one order, so that two processes cannot deadlock.
    rows = sorted(
        {
            (failure.target, failure.email_id): (
                failure.target.owner_id,
                failure.target.address,
                failure.target.stream,
                failure.email_id,
                "soft" if failure.fault == "soft" else "hard",
                failure.origin,
            )
            for failure in failures
        }.values()
    )
    await connection.execute(SQL["note_failures"], *_columns(rows, 6))
    asked = {failure.target.columns for failure in failures}
    counted = await connection.fetch(
        SQL["count_failures"], *_columns(sorted(asked), 3), terms.days, terms.soft_days
    )
    return {
        Target(row["owner_id"], row["stream"], row["address"]): FailureCounts(row["hard"], row["soft"])
        for row in counted
    }


async def has_room(connection: Connection, owner_id: str, *, most: int) -> bool:
    """Return whether an owner has fewer than `most` suppressions."""
    count: int = await connection.fetchval(SQL["count_suppressions"], owner_id, most)
    return count < most


async def suppress(
    connection: Connection, failures: Iterable[Failure], *, terms: SuppressionTerms
) -> list[FailureOrigin]:
    """Suppress those addresses of `failures` that are not yet; return the origins of the new ones."""
    now = datetime.now(UTC)
    # Of several failures of an address the first is the reason; sorted as above.
    first = {failure.target: failure for failure in reversed(list(failures))}
    rows = [
        (
            new_id(),
            target.owner_id,
            target.address,
            target.stream,
            failure.origin,
            reason_of(failure),
            failure.email_id,
            terms.ends_at(now),
        )
        for target, failure in sorted(first.items(), key=lambda pair: pair[0].columns)
    ]
    return [row["origin"] for row in await connection.fetch(SQL["suppress"], *_columns(rows, 8))]


async def forgivable(
    connection: Connection, targets: Collection[Target], *, origins: Sequence[FailureOrigin]
) -> set[Target]:
    """Return those of `targets` of which something rests on failures of these origins."""
    if not targets:
        return set()
    asked = sorted({target.columns for target in targets})
    found = await connection.fetch(SQL["find_forgivable"], *_columns(asked, 3), origins)
    return {Target(row["owner_id"], row["stream"], row["address"]) for row in found}


async def forgive(
    connection: Connection, targets: Collection[Target], *, origins: Sequence[FailureOrigin]
) -> int:
    """Lift suppressions by failures of these origins, and forget these; return how many were lifted."""
    keys = sorted({target.columns for target in targets})
    count: int = await connection.fetchval(SQL["forgive"], *_columns(keys, 3), origins)
    return count


def _chosen(owner_id: str, wanted: SuppressionFilter) -> list[Any]:
    return [
        owner_id,
        wanted.address,
        wanted.stream,
        wanted.origin,
        wanted.created_after,
        wanted.created_before,
    ]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]

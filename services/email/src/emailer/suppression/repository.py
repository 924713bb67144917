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
    AddressFailure,
    FailureCounts,
    FailureOrigin,
    SuppressionTerms,
    Target,
    reason_of,
)

_SQL = queries.of("emailer")


async def reasons(connection: Connection, targets: Collection[Target]) -> dict[Target, str]:
    """Return, for each of `targets` that is suppressed now, the reason to record in the attempt."""
    if not targets:
        return {}
    rows = await connection.fetch(_SQL["find_suppressed"], *_columns([t.columns for t in targets], 3))
    return {
        Target(row["owner_id"], row["stream"], row["address"]): (
            f"not sent: suppressed since {row['created_at']:%Y-%m-%d} ({row['origin']})"
            + (f": {row['reason']}" if row["reason"] else "")
        )
        for row in rows
    }


async def lock(connection: Connection, owner_ids: Iterable[str]) -> None:
    """Lock the suppressions and failures of these owners until the transaction ends.

    Every transaction that changes them calls this once, before it locks anything else of these owners, so the
    order in which it comes to the rows cannot cause a deadlock.
    """
    for owner_id in sorted(set(owner_ids)):
        await connection.execute(_SQL["lock_suppressions"], owner_id)


async def add(
    connection: Connection,
    owner_id: str,
    entries: Sequence[SuppressionEntry],
    *,
    origin: AddedOrigin,
    most: int,
) -> tuple[list[Suppression], int] | None:
    """Suppress addresses, given in their normalized form; return them, and the number of new ones.

    Return None, and add nothing, when the owner would have more than `most`.
    """
    await lock(connection, [owner_id])
    # If an address is given twice, the last entry counts, at the place of the first.
    wanted = {(entry.address, entry.stream): entry for entry in entries}
    keys = _columns(list(wanted), 2)
    known = await connection.fetchval(_SQL["count_known"], owner_id, *keys)
    held = await connection.fetchval(_SQL["count_suppressions"], owner_id, most)
    if held + len(wanted) - known > most:
        return None
    rows = [
        (new_id(), owner_id, entry.address, entry.stream, origin, entry.reason, entry.expires_at)
        for entry in wanted.values()
    ]
    written = await connection.fetch(_SQL["add_suppressions"], *_columns(rows, 7))
    found = {(row["address"], row["stream"]): Suppression(**dict(row)) for row in written}
    return [found[entry.address, entry.stream] for entry in entries], len(wanted) - known


async def page(
    connection: Connection, owner_id: str, wanted: SuppressionFilter, *, before: UUID | None, limit: int
) -> list[Suppression]:
    """Return a page of an owner's current suppressions, newest first."""
    rows = await connection.fetch(_SQL["list_suppressions"], *_chosen(owner_id, wanted), before, limit)
    return [Suppression(**dict(row)) for row in rows]


async def count_matching(connection: Connection, owner_id: str, wanted: SuppressionFilter) -> int:
    """Return the number of an owner's suppressions that match."""
    count: int = await connection.fetchval(_SQL["count_matching_suppressions"], *_chosen(owner_id, wanted))
    return count


async def get(connection: Connection, owner_id: str, suppression_id: UUID) -> Suppression | None:
    """Return a current suppression of an owner, or None."""
    row = await connection.fetchrow(_SQL["get_suppression"], suppression_id, owner_id)
    return None if row is None else Suppression(**dict(row))


async def lift(connection: Connection, owner_id: str, ids: Sequence[UUID]) -> int:
    """Lift suppressions of an owner, and delete the failures of their addresses; return how many."""
    await lock(connection, [owner_id])
    count: int = await connection.fetchval(_SQL["lift_suppressions"], ids, owner_id)
    return count


async def note_failures(
    connection: Connection, failures: Sequence[AddressFailure], *, terms: SuppressionTerms
) -> dict[Target, FailureCounts]:
    """Store failures that count; return the number that each of their addresses has."""
    # In a fixed order, so that two processes cannot deadlock.
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
    await connection.execute(_SQL["note_failures"], *_columns(rows, 6))
    asked = {failure.target.columns for failure in failures}
    counted = await connection.fetch(
        _SQL["count_failures"], *_columns(sorted(asked), 3), terms.days, terms.soft_days
    )
    return {
        Target(row["owner_id"], row["stream"], row["address"]): FailureCounts(row["hard"], row["soft"])
        for row in counted
    }


async def has_room(connection: Connection, owner_id: str, *, most: int) -> bool:
    """Return whether an owner has fewer than `most` suppressions."""
    count: int = await connection.fetchval(_SQL["count_suppressions"], owner_id, most)
    return count < most


async def suppress(
    connection: Connection, failures: Iterable[AddressFailure], *, terms: SuppressionTerms
) -> list[FailureOrigin]:
    """Suppress the addresses of `failures` that are not yet suppressed; return the new ones' origins."""
    now = datetime.now(UTC)
    # The first of several failures of an address is the reason; sorted as above.
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
    return [row["origin"] for row in await connection.fetch(_SQL["suppress"], *_columns(rows, 8))]


async def forgivable(
    connection: Connection, targets: Collection[Target], *, origins: Sequence[FailureOrigin]
) -> set[Target]:
    """Return those of `targets` that have failures, or a suppression, of these origins."""
    if not targets:
        return set()
    asked = sorted({target.columns for target in targets})
    found = await connection.fetch(_SQL["find_forgivable"], *_columns(asked, 3), origins)
    return {Target(row["owner_id"], row["stream"], row["address"]) for row in found}


async def forgive(
    connection: Connection, targets: Collection[Target], *, origins: Sequence[FailureOrigin]
) -> int:
    """Lift suppressions caused by failures of these origins, and delete the failures; return how many."""
    keys = sorted({target.columns for target in targets})
    count: int = await connection.fetchval(_SQL["forgive"], *_columns(keys, 3), origins)
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

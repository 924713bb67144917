"""Items that are copied from other batches, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection
from contracts.batches import Source

_SQL = queries.of("batch_processor")


@dataclass(frozen=True, slots=True)
class Copied:
    """The number of items that were copied, and the position of the last one if others did not fit."""

    items: int
    cut_at: int | None


async def find_next(
    connection: Connection,
    after_owner: str,
    *,
    but: Collection[UUID],
    operations: Collection[str],
    left_to_others_s: float,
) -> tuple[UUID, str] | None:
    """Return a batch that waits for items, with its owner, of the next owner behind `after_owner`; lock it.

    None is of `but`, and none of an operation that is not in `operations` is younger than `left_to_others_s`.
    """
    row = await connection.fetchrow(_SQL["next_copying"], after_owner, but, operations, left_to_others_s)
    return None if row is None else (row[0], row[1])


async def list_positions(connection: Connection, batch_id: UUID, *, after: int, most: int) -> list[int]:
    """Return up to `most` positions of items of a batch, those after `after`."""
    rows = await connection.fetch(_SQL["list_positions"], batch_id, after, most)
    return [row["position"] for row in rows]


async def list_ended_positions(connection: Connection, source: Source, *, after: int, most: int) -> list[int]:
    """Return up to `most` positions of items that have ended as the source says, those after `after`."""
    ended = source.batch_id, source.status, after, most
    return [row["position"] for row in await connection.fetch(_SQL["list_ended_positions"], *ended)]


async def copy_items(
    connection: Connection,
    batch_id: UUID,
    source_id: UUID,
    positions: Sequence[int],
    *,
    offset: int,
    most_bytes: int,
) -> Copied:
    """Copy the items at `positions` of the batch `source_id` to `batch_id`, where they begin at `offset`.

    Beside the first item, no more are copied than have `most_bytes` in total.
    """
    arguments = batch_id, source_id, positions, offset, most_bytes
    row = await connection.fetchrow(_SQL["copy_items"], *arguments)
    assert row is not None
    return Copied(row["items"], row["last"] if row["is_cut"] else None)

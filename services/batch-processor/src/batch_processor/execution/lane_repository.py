"""The lanes of ready chunks, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row

_SQL = queries.of("batch_processor")

# Where a lane begins: the stamp, batch and number of a chunk.
Place: TypeAlias = tuple[int, UUID, int]
# The end of a snapshot, and the transactions that were active then.
Snapshot: TypeAlias = tuple[int, Sequence[int]]
# Where lanes begin, by the owner and the number of the lane.
Places: TypeAlias = dict[str, dict[int, Place]]


class Lane(NamedTuple):
    """Ready chunks of an owner; none comes before this `stamp`, `batch_id` and `number`."""

    # A tuple: a look makes one for each of many owners, and a claim takes their columns.
    owner_id: str
    lane: int
    stamp: int
    batch_id: UUID
    number: int


async def find(connection: Connection) -> tuple[Places, Snapshot]:
    """Return where each lane with a ready chunk begins, and the snapshot that shows it."""
    return await _read(connection, "find_lanes")


async def follow(
    connection: Connection, known: Sequence[tuple[str, int, int, UUID, int]], seen: Snapshot
) -> tuple[Places, Snapshot]:
    """Return where the `known` lanes begin, and those with chunks that became ready since `seen`.

    A known lane is the owner, its number and the place before which nothing is ready. Return also the
    snapshot that shows it.
    """
    columns = [list(column) for column in zip(*known, strict=True)] or [[]] * 5
    ends_at, at_work = seen
    found, now = await _read(connection, "follow_lanes", *columns, ends_at)
    if at_work:
        # After it: what ends in between is found now, and belongs to those at work then, too.
        _add(found, await connection.fetch(_SQL["lanes_of_stamps"], at_work))
    return found, now


async def first_in_flight(connection: Connection, stamp: int) -> int:
    """Return the stamp, from `stamp` on, before which no chunk is running, now or later."""
    return int(await connection.fetchval(_SQL["first_in_flight"], stamp))


async def _read(connection: Connection, statement: str, *arguments: object) -> tuple[Places, Snapshot]:
    rows = await connection.fetch(_SQL[statement], *arguments)
    found: Places = {}
    _add(found, (row for row in rows if row["owner_id"] is not None))
    return found, (rows[0]["ends_at"], rows[0]["at_work"])


def _add(found: Places, rows: Iterable[Row]) -> None:
    for owner, lane, *place in (row[:5] for row in rows):
        lanes, first = found.setdefault(owner, {}), tuple(place)
        lanes[lane] = min(first, lanes.get(lane, first))

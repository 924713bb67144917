"""The lanes of ready chunks, and where each begins, so that no search passes the dead rows before.

A lane holds the chunks of an owner that have one priority and have, or have not, run before.
A transaction that a snapshot did not see was active when it was taken, or began later, so that the stamps of
its chunks are known. A worker that remembers its last snapshot finds every chunk that became ready since,
wherever its lane begins.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection

_SQL = queries.of("batch_processor")

# A server that took over from a lost one may repeat a stamp: now and then everything is searched.
_FIND_EVERY_S = 60
_ADVANCE_EVERY_S = 1

# Where a lane begins: the stamp, batch and number of a chunk.
Place: TypeAlias = tuple[int, UUID, int]


@dataclass(frozen=True, slots=True)
class Lane:
    """Ready chunks of an owner; none comes before this `stamp`, `batch_id` and `number`."""

    owner_id: str
    lane: int
    stamp: int
    batch_id: UUID
    number: int


class Lanes:
    """The lanes that one worker knows, by owner; owners take turns."""

    def __init__(self) -> None:
        # An owner that had its turn moves to the end.
        self._owners: dict[str, dict[int, Place]] = {}
        # The end of the last snapshot, and the transactions that were active then.
        self.seen: tuple[int, Sequence[int]] = (0, ())
        self._find_at = 0.0
        self._advance_at = 0.0
        # No running chunk has an earlier stamp.
        self.in_flight_from = 0

    def __len__(self) -> int:
        """Return the number of owners with a chunk that is ready."""
        return len(self._owners)

    def forget(self) -> None:
        """Search everything the next time: the last answer may not be what is stored."""
        self._find_at = 0.0

    async def look(self, connection: Connection, *, most: int) -> list[Lane]:
        """Return the lanes with a ready chunk, of the about `most` owners whose turn it is."""
        now = time.monotonic()
        if now >= self._find_at:
            self._owners.clear()
            self.in_flight_from = 0
            fresh = await self._read(connection, "find_lanes")
            self._find_at, self._advance_at = now + _FIND_EVERY_S, 0.0
            turn = list(islice(fresh, most))
        else:
            turn = list(islice(self._owners, most))
            known = [(o, lane, *place) for o in turn for lane, place in self._owners.pop(o).items()]
            columns = [list(column) for column in zip(*known, strict=True)] or [[]] * 5
            fresh = await self._read(connection, "follow_lanes", *columns, *self.seen)
            turn += [owner for owner in fresh if owner not in self._owners and owner not in turn]
        for owner, lanes in fresh.items():
            before = self._owners.setdefault(owner, {})
            before |= {lane: min(place, before.get(lane, place)) for lane, place in lanes.items()}
        found = []
        for owner in turn:
            if owner in fresh:
                # Moved behind the owners that have not had their turn.
                lanes = self._owners[owner] = self._owners.pop(owner)
                found += [Lane(owner, lane, *place) for lane, place in lanes.items()]
        if found and now >= self._advance_at:
            self._advance_at = now + _ADVANCE_EVERY_S
            self.in_flight_from = await connection.fetchval(_SQL["first_in_flight"], self.in_flight_from)
        return found

    async def _read(
        self, connection: Connection, statement: str, *arguments: object
    ) -> dict[str, dict[int, Place]]:
        rows = await connection.fetch(_SQL[statement], *arguments)
        self.seen = rows[0]["ends_at"], rows[0]["at_work"]
        found: dict[str, dict[int, Place]] = {}
        for owner, lane, *place in (row[:5] for row in rows if row["owner_id"] is not None):
            lanes, first = found.setdefault(owner, {}), tuple(place)
            lanes[lane] = min(first, lanes.get(lane, first))
        return found

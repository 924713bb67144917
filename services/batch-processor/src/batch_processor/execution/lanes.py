"""The lanes of ready chunks, and where each begins, so that no search passes the dead rows before.

A lane holds the chunks of an owner that have one priority and have, or have not, run before.
A transaction that a snapshot did not see was active when it was taken, or began later, so that the stamps of
its chunks are known. A worker that remembers its last snapshot finds every chunk that became ready since,
wherever its lane begins.
"""

from __future__ import annotations

import time
from itertools import islice

from batch_processor.execution import lane_repository
from batch_processor.execution.lane_repository import Lane, Place, Snapshot
from chassis.postgres import Connection

# A server that took over from a lost one may repeat a stamp: now and then everything is searched.
_FIND_EVERY_S = 60
_ADVANCE_EVERY_S = 1


class Lanes:
    """The lanes that one worker knows, by owner; owners take turns."""

    def __init__(self) -> None:
        # An owner that had its turn moves to the end.
        self._owners: dict[str, dict[int, Place]] = {}
        self.seen: Snapshot = (0, ())
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
            fresh, self.seen = await lane_repository.find(connection)
            self._find_at, self._advance_at = now + _FIND_EVERY_S, 0.0
            turn = list(islice(fresh, most))
        else:
            turn = list(islice(self._owners, most))
            known = [(o, lane, *place) for o in turn for lane, place in self._owners.pop(o).items()]
            fresh, self.seen = await lane_repository.follow(connection, known, self.seen)
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
            self.in_flight_from = await lane_repository.first_in_flight(connection, self.in_flight_from)
        return found

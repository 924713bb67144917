"""Claims in turn: what is ready stands in lanes by stream, owner and domain, and each gets its share.

A claim costs as many probes of the index as it takes lanes, however many mails stand in them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row, affected_rows
from contracts.mail import Stream

SQL = queries.load("emailer")
STREAMS: tuple[Stream, ...] = get_args(Stream)

# While an old snapshot is held the rows of all that was claimed stay, with the ends of their leases: no look
# passes them that begins where the one before has ended. What takes longer to be committed than this is found
# by the whole look.
_COMMITTED_WITHIN = timedelta(seconds=10)
_WHOLE_LOOK_EVERY_S = 30.0
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Lane:
    """What one owner sends to one domain in one stream."""

    stream: Stream
    owner_id: str
    domain: str


@dataclass(frozen=True, slots=True)
class Terms:
    """Who claims, for how long, and how many bytes of mails at most: in all, and of owners with a share."""

    holder: UUID
    lease_s: float
    most_bytes: int
    bytes_of: Mapping[str, int] = field(default_factory=dict)


def shares(lanes: Iterable[Lane], *, most: int, allowed: Callable[[Lane], int]) -> dict[Lane, int]:
    """Divide `most` among the owners of `lanes`, and what an owner gets among their lanes, as `allowed`."""
    by_owner: dict[str, list[tuple[Lane, int]]] = {}
    for lane in lanes:
        if (limit := allowed(lane)) > 0:
            by_owner.setdefault(lane.owner_id, []).append((lane, limit))
    divided: dict[Lane, int] = {}
    for own in by_owner.values():
        part = -(-most // (len(by_owner) * len(own)))
        divided |= {lane: min(part, limit) for lane, limit in own}
    return divided


async def claim(
    connection: Connection,
    divided: Mapping[Lane, int],
    *,
    due_from: Mapping[Lane, datetime],
    most: int,
    terms: Terms,
) -> list[Row]:
    """Take what has been ready longest in each lane, as many as its share; `was` is the status a row had.

    What was due first comes first. Nothing in a lane is due before its `due_from`.
    """
    rows = await connection.fetch(
        SQL["claim_lanes"],
        [lane.stream for lane in divided],
        [lane.owner_id for lane in divided],
        [lane.domain for lane in divided],
        list(divided.values()),
        most,
        terms.holder,
        terms.lease_s,
        terms.most_bytes,
        [due_from[lane] for lane in divided],
        [terms.bytes_of.get(lane.owner_id, terms.most_bytes) for lane in divided],
    )
    # An UPDATE returns its rows in the order of its plan, which the statistics of the day decide.
    return sorted(rows, key=lambda row: (row["was_due_at"], row["email_id"], row["position"]))


class Waiting:
    """What is in no lane yet: its time has not come, or the process that had it may be lost."""

    def __init__(self) -> None:
        # Nothing that waits is due before, unless it was committed late.
        self.due_from = _EPOCH
        self._look_whole_at = 0.0

    async def line_up(self, connection: Connection, *, most: int) -> tuple[float, int]:
        """Put into their lanes what is due, up to `most`.

        Return in how many seconds another is due (infinity for more than a few), and how many were.
        """
        if (now := time.monotonic()) >= self._look_whole_at:
            self._look_whole_at, self.due_from = now + _WHOLE_LOOK_EVERY_S, _EPOCH
        row = await connection.fetchrow(SQL["next_due"], self.due_from)
        assert row is not None
        due_in_s, count = math.inf if row["due_in_s"] is None else row["due_in_s"], 0
        if due_in_s <= 0:
            count = affected_rows(await connection.execute(SQL["make_ready"], most, self.due_from))
        if count < most:
            self.due_from = row["at"] - _COMMITTED_WITHIN
        return due_in_s, count

"""Fair claims: recipients that are ready wait in lanes by stream, owner and domain, and each gets its share.

A claim costs one index probe for each lane that it takes from, however many mails wait in them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, get_args
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row, affected_rows
from contracts.mail import Stream

_SQL = queries.of("emailer")
STREAMS: tuple[Stream, ...] = get_args(Stream)

# While an old snapshot is held, dead rows of claimed recipients stay in the index, at the ends of their
# leases. A look begins where the previous one ended, so it skips them. Rows that take longer than this to be
# committed are found by the next full look.
_COMMITTED_WITHIN = timedelta(seconds=10)
_WHOLE_LOOK_EVERY_S = 30.0
_EPOCH = datetime.fromtimestamp(0, UTC)


class MailLane(NamedTuple):
    """What one owner sends to one domain in one stream. A tuple, because it is hashed often."""

    stream: Stream
    owner_id: str
    domain: str


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a claim: its holder, its lease, and the most bytes of mails, in all and by owner."""

    holder: UUID
    lease_s: float
    most_bytes: int
    bytes_of: Mapping[str, int] = field(default_factory=dict)


async def claim(
    connection: Connection,
    divided: Mapping[MailLane, int],
    *,
    due_from: Mapping[MailLane, datetime],
    most: int,
    terms: Terms,
) -> list[Row]:
    """Claim the recipients ready longest in each lane, up to its share; `was` is a row's status before.

    They are returned by due time. Nothing in a lane is due before its `due_from`.
    """
    rows = await connection.fetch(
        _SQL["claim_lanes"],
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
    # The order in which an UPDATE returns rows depends on its plan.
    return sorted(rows, key=lambda row: (row["was_due_at"], row["email_id"], row["position"]))


@dataclass(frozen=True, slots=True)
class Look:
    """The seconds until a recipient is due, and until one expires; infinity for more than a few.

    `lined_up` were put into their lanes. `has_arrivals` says whether lanes have got recipients.
    """

    due_in_s: float
    expires_in_s: float
    lined_up: int
    has_arrivals: bool


class WaitingRecipients:
    """The recipients that are in no lane yet: not due, or held by a process that may have died."""

    def __init__(self) -> None:
        # No waiting recipient is due before this, unless it was committed late.
        self.due_from = _EPOCH
        self._look_whole_at = 0.0

    async def line_up(
        self, connection: Connection, *, most: int, seen: tuple[int, Sequence[int]] | None = None
    ) -> Look:
        """Put due recipients into their lanes, up to `most`; `seen` is the last snapshot of the lanes."""
        if (now := time.monotonic()) >= self._look_whole_at:
            self._look_whole_at, self.due_from = now + _WHOLE_LOOK_EVERY_S, _EPOCH
        row = await connection.fetchrow(_SQL["look_for_recipients"], self.due_from, *(seen or (None, [])))
        assert row is not None
        due_in_s, expires_in_s = (
            math.inf if row[name] is None else row[name] for name in ("due_in_s", "expires_in_s")
        )
        count = 0
        if due_in_s <= 0:
            count = affected_rows(await connection.execute(_SQL["make_ready"], most, self.due_from))
        if count < most:
            self.due_from = row["at"] - _COMMITTED_WITHIN
        return Look(due_in_s, expires_in_s, lined_up=count, has_arrivals=row["has_arrivals"] or count > 0)

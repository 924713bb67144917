"""Recipients that are in no lane yet, and how they get into theirs when they are due."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from chassis.postgres import Connection
from emailer.sending import lane_repository
from emailer.sending.lane_repository import Snapshot

# While an old snapshot is held, dead rows of claimed recipients stay in the index, at the ends of their
# leases. A look begins where the previous one ended, so it skips them. Rows that take longer than this to be
# committed are found by the next full look.
_COMMITTED_WITHIN = timedelta(seconds=10)
_WHOLE_LOOK_EVERY_S = 30.0
_EPOCH = datetime.fromtimestamp(0, UTC)


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

    async def line_up(self, connection: Connection, *, most: int, seen: Snapshot | None = None) -> Look:
        """Put due recipients into their lanes, up to `most`; `seen` is the last snapshot of the lanes."""
        if (now := time.monotonic()) >= self._look_whole_at:
            self._look_whole_at, self.due_from = now + _WHOLE_LOOK_EVERY_S, _EPOCH
        row = await lane_repository.look_for_recipients(connection, self.due_from, seen)
        due_in_s, expires_in_s = (
            math.inf if row[name] is None else row[name] for name in ("due_in_s", "expires_in_s")
        )
        count = 0
        if due_in_s <= 0:
            count = await lane_repository.make_ready(connection, most=most, due_from=self.due_from)
        if count < most:
            self.due_from = row["at"] - _COMMITTED_WITHIN
        return Look(due_in_s, expires_in_s, lined_up=count, has_arrivals=row["has_arrivals"] or count > 0)

"""Steps on batches, by owner in turn: nobody waits for all that another one cancels or retries."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from uuid import UUID

from batch_processor.background.backoff import Backoff
from batch_processor.coordination import repository
from chassis.postgres import Postgres

# How long the other work of the coordinator waits for the steps of one pass.
TURN_S = 0.5
# The first and the longest pause after an unexpected failure; it doubles each time.
_PAUSE_S = (1.0, 60.0)


class OwnerCircle:
    """The steps of one pass, named `what` in the log; each pass begins with the owner after the last one."""

    def __init__(self, postgres: Postgres, what: str) -> None:
        self._backoff = Backoff(postgres, what, first_s=_PAUSE_S[0], most_s=_PAUSE_S[1])
        self.last_owner = ""

    @property
    def set_aside(self) -> Collection[UUID]:
        """The batches on which a step has failed and whose pause has not ended."""
        return self._backoff.ids()

    async def take(self, left: Mapping[UUID, str], step: Callable[[UUID], Awaitable[bool]]) -> bool:
        """Call `step` for each batch in `left` as long as it returns True, by owner in turn, within `TURN_S`.

        There is one step at least, so that all owners have one in as many passes. Batches that fail are set
        aside. Return whether there may be more to do.
        """
        lines: dict[str, deque[UUID]] = {}
        for batch_id, owner_id in left.items():
            lines.setdefault(owner_id, deque()).append(batch_id)
        turns, ends_at = deque(lines.items()), time.monotonic() + TURN_S
        while turns:
            self.last_owner, line = turns.popleft()
            batch_id = line.popleft()
            try:
                if await step(batch_id):
                    line.append(batch_id)
            except Exception as error:
                await self._backoff.failed(batch_id, error)
            else:
                self._backoff.succeeded(batch_id)
            turns += [(self.last_owner, line)] if line else []
            if time.monotonic() >= ends_at:
                break
        return bool(turns) or len(left) == repository.MOST_FOUND

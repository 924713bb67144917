"""Reading of bounces in a process: anybody who got a mail can write to its return path."""

from __future__ import annotations

import json

from chassis import logging
from chassis.errors import Overloaded
from chassis.turns import OwnerTurns
from emailer.bounces.reading import OTHER, Bounce
from emailer.workers.processes import ProcessEnded, WorkerProcesses

log = logging.get(__name__)

# The process ends itself once its CPU time is used up; if there is no answer by now, it was starved.
ANSWER_WITHIN_S = 10.0
_MOST_FRAME = 64 * 1024
# Bounces of one owner's mails that are read or wait, of all that may be under way.
MOST_OF_OWNER = 4


class BounceReader:
    """Reads messages one at a time: a flood of them takes one process, and owners of mails take turns at it.

    The patterns for the many old formats take cubic time for some lines, and hold the GIL meanwhile.
    """

    def __init__(self) -> None:
        self.turns = OwnerTurns(most=1, of_owner=1, most_waiting=MOST_OF_OWNER)
        self._processes = WorkerProcesses("emailer.bounces.worker")

    async def read(self, content: bytes, *, owner_id: str) -> Bounce:
        """Return the bounce that a message reports; one that takes too long to read reports none.

        `owner_id` is the owner of the mail that it is about. Raise `Overloaded` when it cannot be read now.
        """
        if self.turns.held_by(owner_id) >= MOST_OF_OWNER:
            raise Overloaded(
                "Too many bounces of one owner's mails are being read; submit this one again later.",
                retry_after_s=5,
            )
        reason = "its process did not answer in time"
        async with self.turns.turn(owner_id):
            try:
                answer = await self._processes.ask(content, within_s=ANSWER_WITHIN_S, most_bytes=_MOST_FRAME)
                return Bounce(**json.loads(answer))
            except ProcessEnded as error:
                if error.used_its_time_up or error.crashed:
                    log.warning("message to a return path takes too long to read", size_bytes=len(content))
                    return OTHER
                reason = str(error)
            except OSError as error:
                reason = str(error) or reason
        raise Overloaded(f"The bounce was not read, because {reason}; submit it again.", retry_after_s=5)

    async def close(self) -> None:
        """End the process."""
        await self._processes.close()

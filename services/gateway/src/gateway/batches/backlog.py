"""Back-pressure from batch-processor: uploads wait while its queue of commands is long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chassis.broker.messaging import Depth
from chassis.turns import OwnerTurns
from gateway.batches.upload_turns import MOST_OF_AN_OWNER

# Messages in the queue, each with up to 500 items: half a second of work, for which the commands of other
# owners wait.
MOST_QUEUED = 32
LOOK_EVERY_S = 0.05


class Backlog:
    """The commands that batch-processor has not taken yet; `look` returns the depth of their queue.

    The gateway reads uploads faster than batch-processor stores their items. Without a bound, a large upload
    would fill the queue, and the commands of all others would wait behind it.

    Nobody waits while batch-processor is down, because the queue keeps what is accepted. When the queue stays
    long for `patience_s` seconds, uploads go on slowly: batch-processor may be without its database, or
    others may keep the queue long.
    """

    def __init__(self, look: Callable[[], Awaitable[Depth | None]], *, patience_s: float = 2) -> None:
        self._look = look
        self._patience_s = patience_s
        self._turns = OwnerTurns(most=1, of_owner=1, most_waiting=MOST_OF_AN_OWNER)
        # The first message shows that the queue exists; to look at one that does not would break the link.
        self._room = 1

    async def wait_for_room(self, owner_id: str) -> None:
        """Wait until the queue has room for a message of items of the owner; owners take turns."""
        loop = asyncio.get_running_loop()
        async with self._turns.turn(owner_id):
            waits_until = loop.time() + self._patience_s
            while not self._room:
                depth = await self._look()
                if depth is None or not depth.consumers or loop.time() >= waits_until:
                    self._room = MOST_QUEUED
                elif depth.messages < MOST_QUEUED:
                    self._room = MOST_QUEUED - depth.messages
                else:
                    await asyncio.sleep(LOOK_EVERY_S)
            self._room -= 1

"""One query once or twice a second finds out, for all background loops, which of them have work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from batch_processor.background import rounds
from batch_processor.coordination import repository
from chassis import beats
from chassis.postgres import Postgres

_EVERY_S = 0.5
# While there is no work of any kind. Each look costs the process and the database a wake.
_IDLE_EVERY_S = 1.0


class Lookout:
    """Calls `found[kind]` whenever there is work of that kind: `orders`, `expired`, `ready`, `due` …

    An upload is `expired` when it was open for `upload_expires_s` seconds. `ready_from` returns a stamp
    before which no chunk is ready. Work that this process has stored is found soon after `wake`; work that
    another process has left is found within half a second, the first one after a pause within a second.
    """

    def __init__(
        self,
        postgres: Postgres,
        *,
        upload_expires_s: float,
        ready_from: Callable[[], int],
        found: Mapping[str, Callable[[], None]],
    ) -> None:
        self._postgres = postgres
        self._upload_expires_s = upload_expires_s
        self._ready_from = ready_from
        self._found = found
        self._wake = asyncio.Event()
        self._is_idle = False

    def wake(self) -> None:
        """Look for work without waiting for the rest of the interval."""
        self._wake.set()

    async def look_forever(self) -> None:
        """Look every half second, or every second while there is no work, and soon after each wake."""
        while True:
            await rounds.attempt("look for work", self.look)
            await rounds.wait(self._wake, most_s=self.next_look_in_s())

    def next_look_in_s(self) -> float:
        """Return the seconds until the next look, unless something wakes it."""
        return beats.due_in_s(_IDLE_EVERY_S if self._is_idle else _EVERY_S)

    async def look(self) -> None:
        """Find out which kinds of work there are, and tell those who do it."""
        async with self._postgres.connection() as connection:
            work = await repository.look_for_work(
                connection,
                upload_expires_s=self._upload_expires_s,
                ready_from=self._ready_from(),
                due_within_s=_IDLE_EVERY_S,
            )
        self._is_idle = not any(work.values())
        for kind, is_there in work.items():
            if is_there:
                self._found[kind]()

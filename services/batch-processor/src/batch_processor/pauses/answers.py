"""Answers to the requests of administrators: pauses of operations and owners, and their ends."""

from __future__ import annotations

from collections.abc import Callable

from batch_processor.pauses import pause_repository
from chassis import logging
from chassis.deadlines import Deadline
from chassis.postgres import Postgres
from contracts.pauses import ListPauses, Pauses, PauseWork, ResumeWork

log = logging.get(__name__)


class PauseAnswers:
    """Stores, lists and ends pauses. `changed` is called after each change."""

    def __init__(self, postgres: Postgres, *, changed: Callable[[], None]) -> None:
        self._postgres = postgres
        self._changed = changed

    async def list(self, _: ListPauses, __: Deadline) -> Pauses:
        """Return all pauses."""
        async with self._postgres.connection() as connection:
            return Pauses(data=await pause_repository.list_all(connection))

    async def pause(self, request: PauseWork, _: Deadline) -> Pauses:
        """Pause an operation or an owner; return all pauses. An existing pause stays as it is."""
        async with self._postgres.transaction() as connection:
            await pause_repository.add(connection, request)
            found = await pause_repository.list_all(connection)
        log.info("work paused", kind=request.kind, name=request.name)
        self._changed()
        return Pauses(data=found)

    async def resume(self, request: ResumeWork, _: Deadline) -> Pauses:
        """Resume an operation or an owner; return the pauses that are left."""
        async with self._postgres.transaction() as connection:
            was_paused = await pause_repository.remove(connection, request)
            found = await pause_repository.list_all(connection)
        log.info("work resumed", kind=request.kind, name=request.name, was_paused=was_paused)
        self._changed()
        return Pauses(data=found)

"""Pauses of operations and owners: an administrator stops new items from beginning, and resumes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from chassis import logging, queries
from chassis.deadlines import Deadline
from chassis.postgres import Connection, Postgres, affected_rows
from contracts.pauses import ListPauses, Pause, Pauses, PauseWork, ResumeWork

log = logging.get(__name__)

_SQL = queries.of("batch_processor")
# A worker follows a pause within this time.
_KNOWN_FOR_S = 0.5


@dataclass(frozen=True, slots=True)
class Paused:
    """The operations and the owners that are paused."""

    operations: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()

    def holds(self, *, owner_id: str, operation: str) -> bool:
        """Return whether the owner's work on the operation is paused."""
        return owner_id in self.owners or operation in self.operations


class PausedWork:
    """The pauses as a worker knows them, read again twice a second."""

    def __init__(self) -> None:
        self.now = Paused()
        self._read_at = 0.0

    async def refresh(self, connection: Connection) -> Paused:
        """Return the pauses, at most half a second old."""
        if time.monotonic() >= self._read_at:
            rows = await connection.fetch(_SQL["list_pauses"])
            names: dict[str, set[str]] = {"operation": set(), "owner": set()}
            for row in rows:
                names[row["kind"]].add(row["name"])
            self.now = Paused(frozenset(names["operation"]), frozenset(names["owner"]))
            self._read_at = time.monotonic() + _KNOWN_FOR_S
        return self.now


class PauseAnswers:
    """Stores, lists and ends pauses. `changed` is called after each change."""

    def __init__(self, postgres: Postgres, *, changed: Callable[[], None]) -> None:
        self._postgres = postgres
        self._changed = changed

    async def list(self, _: ListPauses, __: Deadline) -> Pauses:
        """Return all pauses."""
        async with self._postgres.connection() as connection:
            return await _all(connection)

    async def pause(self, request: PauseWork, _: Deadline) -> Pauses:
        """Pause an operation or an owner; return all pauses. An existing pause stays as it is."""
        async with self._postgres.transaction() as connection:
            await connection.execute(
                _SQL["add_pause"], request.kind, request.name, request.reason, request.paused_by
            )
            found = await _all(connection)
        log.info("work paused", kind=request.kind, name=request.name)
        self._changed()
        return found

    async def resume(self, request: ResumeWork, _: Deadline) -> Pauses:
        """Resume an operation or an owner; return the pauses that are left."""
        async with self._postgres.transaction() as connection:
            gone = await connection.fetchval(_SQL["remove_pause"], request.kind, request.name)
            found = await _all(connection)
        log.info("work resumed", kind=request.kind, name=request.name, was_paused=gone is not None)
        self._changed()
        return found


async def _all(connection: Connection) -> Pauses:
    rows = await connection.fetch(_SQL["list_pauses"])
    return Pauses(data=[Pause(**row) for row in rows])


async def measure(connection: Connection) -> tuple[int, int, float]:
    """Return how many operations and owners are paused, and the age of the oldest pause in seconds."""
    row = await connection.fetchrow(_SQL["measure_pauses"])
    assert row is not None
    return row["operations"], row["owners"], row["longest_s"]


async def hold(connection: Connection, *, most: int) -> int:
    """Take up to `most` chunks whose operation or owner is paused out of the queue; return how many."""
    return affected_rows(await connection.execute(_SQL["hold_paused"], most))

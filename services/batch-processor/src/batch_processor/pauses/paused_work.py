"""The operations and owners that are paused, as a worker knows them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from batch_processor.pauses import pause_repository
from chassis.postgres import Connection

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
            names: dict[str, set[str]] = {"operation": set(), "owner": set()}
            for pause in await pause_repository.list_all(connection):
                names[pause.kind].add(pause.name)
            self.now = Paused(frozenset(names["operation"]), frozenset(names["owner"]))
            self._read_at = time.monotonic() + _KNOWN_FOR_S
        return self.now

"""A claimed chunk that runs: its items, those that have ended, and those to retry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from batch_processor.operation import Operation
from chassis.broker.envelope import Outgoing


@dataclass(frozen=True, slots=True)
class Origin:
    """The batch that a chunk belongs to, and the chunk's attempt, as its items see them."""

    batch_id: UUID
    owner_id: str
    accepted_at: datetime
    attempt: int


class StoredItem(NamedTuple):
    """An item as it is stored; `payload` is JSON text."""

    # A tuple: a frozen dataclass takes twice as long to make, and an upload has a million.
    position: int
    payload: str


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An item that failed, and the reason."""

    position: int
    code: str
    detail: str


@dataclass(slots=True)
class Outcomes:
    """Items that have ended, and the commands to send with them. Results are JSON texts.

    `setbacks` are failed attempts at items that will be retried.
    """

    positions: list[int] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    failures: list[ItemFailure] = field(default_factory=list)
    commands: list[Outgoing] = field(default_factory=list)
    setbacks: list[ItemFailure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.positions) + len(self.failures)

    def extend(self, others: Outcomes) -> None:
        """Add the later outcomes."""
        self.positions += others.positions
        self.results += others.results
        self.failures += others.failures
        self.commands += others.commands
        self.setbacks += others.setbacks


@dataclass(frozen=True, slots=True)
class Death:
    """The end of the process in which a chunk was running; one of the items at `suspects` caused it.

    `is_late` is true when the process was killed because it did not end an item at its deadline, `is_shared`
    when items of other chunks were running beside these.
    """

    detail: str
    suspects: Sequence[int]
    is_late: bool = False
    is_shared: bool = False


class RunningChunk(ABC):
    """A claimed chunk that runs. `take` returns the outcomes since the last call.

    `retries` are the positions to retry after `retry_delay_s`; `death` is set when the chunk ended with its
    process. `not_begun` is set once `stop_beginning`, or a cancel, has taken effect; these items no longer
    begin here.
    """

    def __init__(self, operation: Operation, items: Sequence[StoredItem], *, attempt: int) -> None:
        self.retry_delay_s = operation.retry.delay_s(attempt)
        self.retries: list[int] = []
        self.death: Death | None = None
        self.not_begun: list[int] = []
        self._operation = operation
        self._items = items
        self._ended: set[int] = set()
        self._let_go: set[int] = set()
        self._outcomes = Outcomes()

    @property
    def size(self) -> int:
        """Return the number of items of the claim."""
        return len(self._items)

    @property
    def unfinished(self) -> list[int]:
        """Return the positions of the items that have not ended, including those to retry."""
        gone = self._ended | self._let_go
        return [item.position for item in self._items if item.position not in gone]

    def take(self) -> Outcomes:
        """Return the outcomes since the last call."""
        taken, self._outcomes = self._outcomes, Outcomes()
        return taken

    def put_back(self, taken: Outcomes) -> None:
        """Take back outcomes that could not be stored, for the next `take`."""
        taken.extend(self._outcomes)
        self._outcomes = taken

    def let_go(self, positions: Iterable[int]) -> None:
        """Forget items that have not begun: they continue in other chunks."""
        self._let_go.update(positions)
        self.not_begun = []

    @abstractmethod
    def stop_beginning(self) -> None:
        """Begin no more items; `execute` returns once the running ones have ended."""

    @abstractmethod
    async def execute(self) -> None:
        """Run all items; cancelling this stops them, but keeps the outcomes of those that have ended."""

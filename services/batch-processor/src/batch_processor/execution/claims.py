"""Chunks that a worker has claimed, and their items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self, TypeAlias
from uuid import UUID

from batch_processor.execution.running_chunk import Origin, StoredItem

ChunkKey: TypeAlias = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """A chunk that this worker may run; only the claim with the latest `run` may store results.

    `lost` counts earlier claims whose worker was lost or whose process died; the items of a `suspect` chunk
    were running in such a process. `is_first` is true when its owner had no other running chunk, `rides` when
    it shares the slot of another one. `gate` names the limits that let it through; None when it has none.
    """

    batch_id: UUID
    number: int
    run: int
    lost: int
    suspect: bool
    attempt: int
    first_position: int
    last_position: int
    positions: list[int] | None
    due_at: datetime
    owner_id: str
    operation: str
    status: str
    accepted_at: datetime
    traceparent: str | None
    request_id: str | None
    is_first: bool
    claimed_at: datetime
    gate: str | None = None
    rides: bool = False

    @property
    def key(self) -> ChunkKey:
        """Return the key of the chunk."""
        return self.batch_id, self.number

    @property
    def is_new(self) -> bool:
        """Return whether no item of the chunk has run before."""
        return self.run == 1 and self.lost == 0 and self.gate is None

    @property
    def origin(self) -> Origin:
        """Return the batch and attempt as the chunk's items see them."""
        return Origin(self.batch_id, self.owner_id, self.accepted_at, self.attempt)


@dataclass(frozen=True, slots=True)
class RemainingItems:
    """Items of a claimed chunk that continue in a new chunk; without `positions`, a whole range.

    `lost` and `suspect` are those of the new chunk's claims. With a `run` it is claimed before chunks that
    have never run, because the claimed one has.
    """

    first_position: int
    last_position: int
    positions: Sequence[int] | None
    items: int
    attempt: int
    delay_s: float = 0
    lost: int = 0
    suspect: bool = False
    run: int = 0

    @classmethod
    def of(
        cls,
        positions: Sequence[int],
        attempt: int,
        *,
        delay_s: float = 0,
        lost: int = 0,
        suspect: bool = False,
        run: int = 0,
    ) -> Self:
        """Return a rest of the items at `positions`."""
        first, last, items = min(positions), max(positions), len(positions)
        return cls(first, last, positions, items, attempt, delay_s, lost, suspect, run)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The items of a claimed chunk that have no result; those `beyond` did not fit into memory."""

    claim: Claim
    items: Sequence[StoredItem]
    beyond: RemainingItems | None = None

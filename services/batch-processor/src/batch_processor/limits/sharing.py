"""The order in which items pass where limits leave little room: by owner in turn, priority, and age."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from batch_processor.limits.rules import LimitRule


@dataclass(frozen=True, slots=True)
class WaitingChunk:
    """A chunk that waits for its limits; without `positions` it has all from the first to the last."""

    batch_id: UUID
    number: int
    first_position: int
    last_position: int
    positions: Sequence[int] | None
    items: int

    def part(self, start: int, items: int) -> dict[str, object]:
        """Return the columns of a chunk with `items` items of this one, from index `start` on."""
        listed = None if self.positions is None else list(self.positions[start : start + items])
        first = self.first_position + start if listed is None else listed[0]
        last = first + items - 1 if listed is None else listed[-1]
        return {"first_position": first, "last_position": last, "positions": listed, "items": items}


@dataclass(frozen=True, slots=True)
class OwnerQueue:
    """The chunks of an owner that wait at a gate, in their order; at most `piece` items pass together."""

    owner_id: str
    limits: tuple[LimitRule, ...]
    piece: int
    chunks: Sequence[WaitingChunk]


@dataclass(slots=True)
class Passage:
    """The pieces of a chunk that pass, by their numbers of items, from its beginning."""

    chunk: WaitingChunk
    limits: tuple[LimitRule, ...]
    pieces: list[int] = field(default_factory=list)

    @property
    def items(self) -> int:
        """Return how many items pass."""
        return sum(self.pieces)

    @property
    def is_whole(self) -> bool:
        """Return whether the chunk passes in one piece."""
        return len(self.pieces) == 1 and self.items == self.chunk.items


def share(
    queues: Sequence[OwnerQueue], rooms: Mapping[str, int], *, order: Iterable[str], most: int
) -> tuple[list[Passage], list[str]]:
    """Return the passages, in up to `most` pieces, and the owners in their order for the next call.

    Each owner in turn lets a piece pass, from the first of its queues that has room under all of its limits.
    `order` is that of the last call: owners that were served follow those that were not. Owners without a
    queue keep their place in it.
    """
    left = dict(rooms)
    lines: dict[str, list[_Line]] = {}
    for queue in queues:
        lines.setdefault(queue.owner_id, []).append(_Line(queue))
    served = dict.fromkeys([*order, *lines], -1)
    turns = deque(owner for owner in served if owner in lines)
    pieces = 0
    while turns and pieces < most:
        owner = turns.popleft()
        if any(line.let_pass(left) for line in lines[owner]):
            turns.append(owner)
            served[owner] = pieces
            pieces += 1
    passed = [passage for of_owner in lines.values() for line in of_owner for passage in line.passed]
    # The sort is stable, so that owners that were not served keep their order.
    return passed, sorted(served, key=served.__getitem__)


class _Line:
    """A queue from which pieces pass, one after the other."""

    def __init__(self, queue: OwnerQueue) -> None:
        self.passed: list[Passage] = []
        self._queue = queue
        self._behind = iter(queue.chunks)

    def let_pass(self, left: dict[str, int]) -> bool:
        """Let a piece pass and subtract it from what is `left` of its keys; return whether there was room."""
        # Without a limit, as after a change of the settings, there is room for all.
        room = min((left[limit.key] for limit in self._queue.limits), default=self._queue.piece)
        if room <= 0:
            return False
        if not self.passed or self.passed[-1].items == self.passed[-1].chunk.items:
            chunk = next(self._behind, None)
            if chunk is None:
                return False
            self.passed.append(Passage(chunk, self._queue.limits))
        passage = self.passed[-1]
        size = min(room, self._queue.piece, passage.chunk.items - passage.items)
        passage.pieces.append(size)
        for limit in self._queue.limits:
            left[limit.key] -= size
        return True

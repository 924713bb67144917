"""Chunks of one item each that run together in one process: tasks that an owner sends one by one.

A function that costs next to nothing (`Operation.run_texts`) is over before its process could be sent the
next chunk: most of the time would go into sending. Chunks of one owner and one operation that are claimed
together are sent together, and end together. Each keeps its own claim, outcome and report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from batch_processor.execution.claims import Claim
from batch_processor.execution.running_chunk import Death, ItemFailure, RunningChunk, StoredItem
from batch_processor.operation import Operation
from chassis import tracing

# The most bytes of one payload, because the process reads those of all parts at once.
_MOST_BYTES = 64 * 1024

# Makes the run of items as if they were the claimed chunk.
Start: TypeAlias = Callable[[Claim, Operation, Sequence[StoredItem]], RunningChunk]


class SharedRuns:
    """Combines chunks that begin in the same turn of the loop; `start` makes the run of all of them."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._open: dict[tuple[str, str, int], _Together] = {}

    def join(self, claim: Claim, operation: Operation, items: Sequence[StoredItem]) -> RunningChunk | None:
        """Return the chunk as a part of a run, or None for one that must run alone.

        A chunk with which a process has died runs alone, so that the next death shows who is to blame.
        """
        is_alone = operation.run_texts is None or len(items) != 1 or claim.lost or claim.suspect
        if is_alone or len(items[0].payload) > _MOST_BYTES:
            return None
        return _Part(self, claim, operation, items)

    async def execute(self, part: _Part) -> None:
        """Run `part` with the others that join before this turn of the loop has ended.

        Cancelling one does not affect the others; the run is cancelled with the last of them.
        """
        claim = part.claim
        key = (claim.owner_id, claim.operation, claim.attempt)
        together = self._open.get(key)
        if together is None:
            together = self._open[key] = _Together()
            together.running = asyncio.create_task(self._run(key, part.operation))
        together.parts.append(part)
        assert together.running is not None
        try:
            await asyncio.shield(together.running)
        except asyncio.CancelledError:
            part.has_left = True
            if all(other.has_left for other in together.parts):
                together.running.cancel()
            raise

    async def _run(self, key: tuple[str, str, int], operation: Operation) -> None:
        parts = [part for part in self._open.pop(key).parts if not part.has_left]
        if not parts:
            return
        first = next((part.claim for part in parts if part.claim.is_first), parts[0].claim)
        items = [StoredItem(index, part.item.payload) for index, part in enumerate(parts)]
        run = self._start(first, operation, items)
        try:
            # It runs for all of them, and so in the trace of none.
            with tracing.none():
                await run.execute()
        finally:
            _hand_out(run, parts)


@dataclass(slots=True)
class _Together:
    """Chunks that run together, and the task that runs them."""

    parts: list[_Part] = field(default_factory=list)
    running: asyncio.Task[None] | None = None


class _Part(RunningChunk):
    """A chunk of one item that runs with others."""

    def __init__(
        self, shared: SharedRuns, claim: Claim, operation: Operation, items: Sequence[StoredItem]
    ) -> None:
        super().__init__(operation, items, attempt=claim.attempt)
        self.claim = claim
        self.operation = operation
        self.item = items[0]
        self.has_left = False
        self._shared = shared

    def stop_beginning(self) -> None:
        """Do nothing: the item begins with the run."""

    async def execute(self) -> None:
        """Run the item with those of others; cancelling this gives up its outcome."""
        await self._shared.execute(self)

    def succeed(self, result: str) -> None:
        """Store the item's result."""
        self._ended.add(self.item.position)
        self._outcomes.positions.append(self.item.position)
        self._outcomes.results.append(result)

    def fail(self, failure: ItemFailure, *, is_last: bool) -> None:
        """Store a failed attempt at the item, which is the last or will be followed by another."""
        own = replace(failure, position=self.item.position)
        if is_last:
            self._ended.add(own.position)
            self._outcomes.failures.append(own)
        else:
            self.retries.append(own.position)
            self._outcomes.setbacks.append(own)

    def die(self, death: Death, *, is_to_blame: bool) -> None:
        """Note that the item was running when the process died, alone or beside others."""
        self.death = replace(death, suspects=[self.item.position], is_shared=not is_to_blame)


def _hand_out(run: RunningChunk, parts: Sequence[_Part]) -> None:
    """Pass each waiting part the outcome of its item, whose index is its position in `run`."""
    outcomes, death = run.take(), run.death
    waiting = {index: part for index, part in enumerate(parts) if not part.has_left}
    for index, result in zip(outcomes.positions, outcomes.results, strict=True):
        if index in waiting:
            waiting[index].succeed(result)
    for failures, is_last in ((outcomes.failures, True), (outcomes.setbacks, False)):
        for failure in failures:
            if failure.position in waiting:
                waiting[failure.position].fail(failure, is_last=is_last)
    if death is not None:
        for index in waiting.keys() & set(death.suspects):
            waiting[index].die(death, is_to_blame=len(death.suspects) == 1)

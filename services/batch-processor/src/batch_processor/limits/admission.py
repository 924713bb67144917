"""Admission: lets as many items through as their limits allow; they become ready like any other work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from batch_processor.background import rounds
from batch_processor.limits import repository, sharing
from batch_processor.limits.rules import LimitBook, LimitRule, rooms
from batch_processor.operation import Operation
from chassis import metrics
from chassis.postgres import Postgres

# Pauses between two passes, with and without waiting chunks. Another process ends items without notice. The
# lookout finds the first chunk that waits.
_EVERY_S = 0.1
_IDLE_S = 5.0
_LEAST_S = 0.01
# Queues that one pass considers, equally many of each owner, their first chunks in total, and the pieces that
# pass in one transaction. The turns of so many owners are remembered.
QUEUES = 100
_OWNERS = 10_000
_CHUNKS = 1600
_PIECES = 200
_GATED_STEP = 1000
_MEASURE_EVERY_S = 5.0
_CLEAN_EVERY_S = 600.0
# A server that took over from a lost one may repeat a stamp: now and then everything is measured.
_LOOK_WHOLE_EVERY_S = 60.0


class ChunkAdmission:
    """Lets chunks through, in one coordinator at a time. `ready` is called when chunks became ready.

    Waiting chunks are not in the lanes of the workers: an exhausted limit delays only what counts under it.
    """

    def __init__(
        self,
        postgres: Postgres,
        operations: Mapping[str, Operation],
        limits: LimitBook,
        *,
        ready: Callable[[], None],
    ) -> None:
        self._postgres = postgres
        self._operations = operations
        self._limits = limits
        self._ready = ready
        self._wake = asyncio.Event()
        self._has_waiting = True
        # Where the owners and the queues of each begin that the next pass considers.
        self._after_owner = ""
        self._after_gates: dict[str, str] = {}
        self._order: list[str] = []
        self._passed_from = 0
        self._look_whole_at = self._measure_at = self._clean_at = 0.0

    def wake(self) -> None:
        """Run a pass soon: more chunks wait, or there is more room."""
        self._wake.set()

    async def gate(self) -> None:
        """Make what was ready before its operation got a limit wait for it; call it before workers start."""
        names = self._limits.limited_operations
        if names:
            async with self._postgres.connection() as connection:
                while await repository.gate_chunks(connection, names, most=_GATED_STEP) == _GATED_STEP:
                    pass

    async def admit_forever(self) -> None:
        """Let through what the limits allow, until cancelled."""
        while True:
            await rounds.attempt("admit", self.admit)
            await rounds.wait(self._wake, most_s=_EVERY_S if self._has_waiting else _IDLE_S, least_s=_LEAST_S)

    async def admit(self) -> None:
        """Let through what the limits allow now, of the next queues."""
        await self._maintain()
        if not self._has_waiting:
            async with self._postgres.connection() as connection:
                if not await repository.has_waiting(connection):
                    return
        now, passed = time.monotonic(), 0
        async with self._postgres.transaction() as connection:
            if not await repository.lock(connection):
                return
            owners = await repository.find_waiting_owners(connection, self._after_owner, most=QUEUES)
            self._has_waiting = bool(owners) or bool(self._after_owner)
            queues, last = await repository.find_waiting(
                connection,
                {owner: self._after_gates.get(owner, "") for owner in owners},
                self._rules_of,
                most=QUEUES // max(1, len(owners)),
                chunks=_CHUNKS,
            )
            self._advance(owners, last)
            if not queues:
                return
            limits = {limit.key: limit for queue in queues for limit in queue.limits}.values()
            if now >= self._look_whole_at:
                self._look_whole_at, self._passed_from = now + _LOOK_WHOLE_EVERY_S, 0
            usage = await repository.measure(connection, limits, passed_from=self._passed_from)
            passages, order = sharing.share(
                queues, rooms(limits, usage.of_keys), order=self._order, most=_PIECES
            )
            self._order = order[-_OWNERS:]
            if passages:
                passed = await repository.let_through(connection, passages)
        self._passed_from = usage.passed_from
        if passed:
            self._ready()
        if sum(len(passage.pieces) for passage in passages) == _PIECES:
            self._wake.set()

    def _advance(self, owners: Sequence[str], last: Mapping[str, str]) -> None:
        """Begin the next pass behind these owners, and behind the `last` gates of theirs."""
        is_end = len(owners) < QUEUES
        others = {
            owner: gate
            for owner, gate in self._after_gates.items()
            if owner <= self._after_owner or not (is_end or owner <= owners[-1])
        }
        self._after_gates = {**others, **last}
        self._after_owner = "" if is_end else owners[-1]

    def _rules_of(self, batch_id: UUID, operation: str, options: str) -> tuple[tuple[LimitRule, ...], int]:
        known = self._operations.get(operation)
        return self._limits.of_batch(batch_id, operation, options), known.piece if known else 1

    async def _maintain(self) -> None:
        """Count waiting chunks, and remove old charges."""
        now = time.monotonic()
        if now < self._measure_at:
            return
        async with self._postgres.connection() as connection:
            metrics.BATCH_LIMITED_CHUNKS.set(await repository.count_waiting(connection))
            if now >= self._clean_at:
                await repository.remove_charges(connection)
                self._clean_at = now + _CLEAN_EVERY_S
        self._measure_at = now + _MEASURE_EVERY_S

"""The worker: pulls chunks into its free slots, owner by owner, runs their items and reports the results."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from batch_processor.background import rounds
from batch_processor.execution import claim_repository, reports
from batch_processor.execution.claims import ChunkKey, Claim, Loaded, RemainingItems
from batch_processor.execution.lanes import Lanes
from batch_processor.execution.running_chunk import RunningChunk, StoredItem
from batch_processor.execution.settlement import ChunkReport, Settlement
from batch_processor.operation import Operation
from batch_processor.pauses.paused_work import PausedWork
from chassis import beats, logging, metrics, redaction, spans, tracing
from chassis.errors import DatabaseUnavailable
from chassis.postgres import TRANSACTION_CONFLICTS, Postgres

log = logging.get(__name__)

# Owners that one search considers, at least and for each slot; the next one begins after them.
_OWNERS, _OWNERS_OF_A_SLOT = 32, 2
# The most chunks whose results share a transaction: those that ran together, and others that have ended.
_GROUP = 128
# Another process stores work without notice to this one. Where a lookout wakes the worker, it polls less.
POLL_S = 0.5
LOOKOUT_POLL_S = 5.0
_PAUSE_S = 1.0
# Slots that become free, and chunks that end, within this time share a statement.
_TOGETHER_S = 0.005
# Errors of storing reports for which none of their chunks is to blame.
_NOBODY_TO_BLAME = (DatabaseUnavailable, TimeoutError, *TRANSACTION_CONFLICTS)

# Makes the run of a chunk: of its items by the operation.
Runs: TypeAlias = Callable[[Claim, Operation, Sequence[StoredItem]], RunningChunk]
# `gone`: the chunk is no longer ours, and none of its outcomes may be stored.
Ending: TypeAlias = Literal["done", "cancelled", "interrupted", "gone"]


@dataclass(frozen=True, slots=True)
class ChunkTiming:
    """The lease of a chunk, the pause between its renewals, and the length of its turn (seconds)."""

    lease_s: float = 15
    checkpoint_s: float = 1
    turn_s: float = 1


@dataclass(eq=False, slots=True)
class _Work:
    """A running chunk. `beyond` are its items that did not fit into memory."""

    claim: Claim
    run: RunningChunk
    beyond: RemainingItems | None
    turn_ends_at: float
    # Whether the batch was started: by the first chunk's results, or when it takes longer than a checkpoint.
    has_begun: bool
    # Whether its turn has ended before all of its items had begun.
    has_had_turn: bool = False
    ending: Ending = "done"
    # Held while it reports, so that its last report comes after the one on its way.
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    # None once the run has ended and only its last report is left.
    task: asyncio.Task[None] | None = None

    def end(self, ending: Ending) -> None:
        """Stop the running items, unless they have ended: the last report must not be stopped with them."""
        self.ending = ending
        if self.task is not None:
            self.task.cancel()


class Worker:
    """Runs chunks in `slots`, a quarter of which are reserved for owners without running chunks."""

    def __init__(
        self,
        postgres: Postgres,
        settlement: Settlement,
        operations: Mapping[str, Operation],
        *,
        runs: Runs,
        slots: int,
        timing: ChunkTiming | None = None,
        poll_s: float = POLL_S,
        has_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a worker that calls `has_room` when items that count under a limit have ended."""
        self._postgres = postgres
        self._settlement = settlement
        self._operations = operations
        self._runs = runs
        self._slots = slots
        self._reserved = slots // 4
        self._owners = max(_OWNERS, _OWNERS_OF_A_SLOT * slots)
        self.timing = timing or ChunkTiming()
        self._poll_s = poll_s
        self._has_room = has_room
        self._lanes = Lanes()
        self._paused = PausedWork()
        # None for a chunk that is reported without being run.
        self._works: dict[ChunkKey, _Work | None] = {}
        # Those of `_works` that have no slot of their own.
        self._riding: set[ChunkKey] = set()
        self._light = [name for name, operation in operations.items() if operation.run_texts is not None]
        self._reports: asyncio.Queue[ChunkReport] = asyncio.Queue()
        self._not_run: list[Claim] = []
        # Owners that were looked at since the last claim, or the last time that all were.
        self._passed = 0
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._freed = asyncio.Event()
        self._is_stopping = False

    def wake(self) -> None:
        """Look soon for chunks to run."""
        self._wake.set()

    async def close(self, timeout_s: float) -> None:
        """Begin no more chunks, stop running ones and return unfinished ones, within `timeout_s` seconds."""
        self._is_stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._stop_all()

    async def _stop_all(self) -> None:
        # A claim in progress must be complete before its chunks can be stopped.
        async with self._claiming:
            for work in filter(None, list(self._works.values())):
                work.end("interrupted")
        while self._works:
            self._freed.clear()
            await self._freed.wait()

    async def pull_forever(self) -> None:
        """Claim chunks for free slots, until cancelled."""
        while True:
            await rounds.attempt("pull", self.pull)
            poll_s = beats.due_in_s(self._poll_s, behind_s=rounds.BEHIND_S)
            await rounds.wait(self._wake, most_s=poll_s, least_s=_TOGETHER_S)

    async def report_forever(self) -> None:
        """Store the reports of ended chunks, several at once, until cancelled."""
        while True:
            reports = [await self._reports.get()]
            if len(self._works) > 1:
                await asyncio.sleep(_TOGETHER_S)
            while len(reports) < _GROUP and not self._reports.empty():
                reports.append(self._reports.get_nowait())
            await self._store(reports)

    async def keep_forever(self) -> None:
        """Renew leases of running chunks, store their outcomes and notice cancellations, until cancelled."""
        while True:
            await beats.following(self.timing.checkpoint_s)
            await rounds.attempt("renew", self.checkpoint)

    async def pull(self) -> bool:
        """Claim chunks of the next owners for the free slots, and begin them.

        Return whether the owners behind them are to be looked at soon: not if none has anything to claim.
        """
        async with self._claiming:
            free = self._slots - (len(self._works) - len(self._riding))
            if self._is_stopping or not free:
                return False
            claimed: list[Claim] = []
            try:
                async with self._postgres.connection() as connection:
                    lanes = await self._lanes.look(connection, most=self._owners)
                    # Without work nobody needs to know what is paused.
                    paused = await self._paused.refresh(connection) if lanes else self._paused.now
                    claimed = await claim_repository.claim(
                        connection,
                        [lane for lane in lanes if lane.owner_id not in paused.owners],
                        most=free,
                        for_any=max(0, free - self._reserved),
                        lease_s=self.timing.lease_s,
                        in_flight_from=self._lanes.in_flight_from,
                        light=self._light,
                        paused=paused.operations,
                    )
                    loaded = await claim_repository.load(connection, claimed)
            except BaseException:
                self._lanes.forget()
                self._not_run += claimed
                raise
            for chunk in loaded:
                self._begin(chunk)
        # All may have paused chunks, or some at work elsewhere while these slots are kept for owners without.
        self._passed = self._owners + (0 if claimed else self._passed)
        if not lanes or len(self._lanes) <= self._passed:
            self._passed = 0
            return False
        self._wake.set()
        return True

    def _begin(self, chunk: Loaded) -> None:
        claim, operation = chunk.claim, self._operations.get(chunk.claim.operation)
        if claim.is_first:
            waited_s = (claim.claimed_at - claim.due_at).total_seconds()
            metrics.BATCH_OWNER_WAIT.observe(max(0.0, waited_s))
        self._works[claim.key] = None
        self._riding.update([claim.key] if claim.rides else [])
        if self._is_stopping:
            self._reports.put_nowait(ChunkReport(claim, "ready"))
        elif operation is None:
            log.warning("chunk postponed: this worker lacks the operation", operation=claim.operation)
            self._reports.put_nowait(ChunkReport(claim, "delayed"))
        elif (report := reports.of_lost(chunk)) is not None:
            self._reports.put_nowait(report)
        else:
            run = self._runs(claim, operation, chunk.items)
            turn_ends_at = time.monotonic() + self.timing.turn_s
            work = _Work(claim, run, chunk.beyond, turn_ends_at, has_begun=claim.status != "queued")
            self._works[claim.key] = work
            work.task = asyncio.create_task(self._run(work))

    async def _run(self, work: _Work) -> None:
        claim, started = work.claim, time.perf_counter()
        about = {"tickwire.batch_id": str(claim.batch_id)}
        try:
            with (
                tracing.during(claim.traceparent, claim.request_id),
                spans.span(f"run {claim.operation}", "internal", about),
            ):
                await work.run.execute()
        except asyncio.CancelledError:
            if work.ending == "done":
                work.ending = "interrupted"
        except Exception as error:
            work.ending = "gone"
            await self._give_up(claim, error)
        finally:
            work.task = None
            async with work.reporting:
                if work.ending == "gone":
                    self._forget(claim)
                else:
                    is_cancelled = work.ending == "cancelled"
                    report = reports.of_ended(
                        claim,
                        work.run,
                        work.beyond,
                        is_cancelled=is_cancelled,
                        has_had_turn=work.has_had_turn,
                    )
                    self._reports.put_nowait(report)
        metrics.BATCH_CHUNK_SECONDS.labels(claim.operation).observe(time.perf_counter() - started)

    async def checkpoint(self) -> None:
        """Report on running chunks; stop those that were cancelled, had their turn, or are no longer ours."""
        if self._not_run:
            async with self._postgres.connection() as connection:
                await claim_repository.give_back(connection, self._not_run)
            self._not_run.clear()
            self._wake.set()
        if self._works:
            async with self._postgres.connection() as connection:
                await self._paused.refresh(connection)
        async with AsyncExitStack() as held:
            works: list[_Work] = []
            for work in [work for work in self._works.values() if work is not None]:
                await held.enter_async_context(work.reporting)
                works += [work] if work.task is not None else []
            for work, report, status in await self._report_on(works):
                claim, work.has_begun = work.claim, True
                if report.keeps:
                    work.run.let_go(set(work.run.unfinished).difference(report.keeps))
                    work.beyond = None
                if status is None:
                    log.info("chunk was taken over", batch_id=str(claim.batch_id), chunk=claim.number)
                    work.end("gone")
                elif status == "cancelling":
                    work.run.stop_beginning()
                    work.end("cancelled")
                elif time.monotonic() > work.turn_ends_at:
                    work.has_had_turn = True
                    work.run.stop_beginning()
                elif status == "paused" or self._paused.now.holds(
                    owner_id=claim.owner_id, operation=claim.operation
                ):
                    work.run.stop_beginning()

    async def _report_on(self, works: Sequence[_Work]) -> list[tuple[_Work, ChunkReport, str | None]]:
        """Store reports on running chunks; return each with its batch's status, None if it is not ours.

        If that fails, store each alone, and give up those that cannot be stored. After an error that none of
        them has caused, the others are left to the next time.
        """
        found = [
            reports.of_running(
                work.claim,
                work.run,
                work.beyond,
                begins=work.claim.status == "queued" and not work.has_begun,
                has_had_turn=work.has_had_turn,
            )
            for work in works
        ]
        try:
            statuses = await self._settlement.store(found) if found else {}
        except BaseException as error:
            for work, report in zip(works, found, strict=True):
                work.run.put_back(report.outcomes)
            if not isinstance(error, Exception) or isinstance(error, _NOBODY_TO_BLAME):
                raise
            if len(works) == 1:
                await self._give_up(works[0].claim, error)
                return [(works[0], found[0], None)]
        else:
            return [
                (work, report, statuses.get(work.claim.key))
                for work, report in zip(works, found, strict=True)
            ]
        alone: list[tuple[_Work, ChunkReport, str | None]] = []
        for work in works:
            try:
                alone += await self._report_on([work])
            except _NOBODY_TO_BLAME as error:
                log.warning("results cannot be stored, retrying", reason=redaction.safe_message(error))
                break
        return alone

    async def _store(self, reports: Sequence[ChunkReport]) -> None:
        """Store reports; if that fails, store each alone, and give up those that cannot be stored."""
        while True:
            try:
                await self._settlement.store(reports)
                break
            except _NOBODY_TO_BLAME as error:
                log.warning("results cannot be stored, retrying", reason=redaction.safe_message(error))
                await asyncio.sleep(_PAUSE_S)
            except Exception as error:
                if len(reports) == 1:
                    await self._give_up(reports[0].claim, error)
                    break
                for report in reports:
                    await self._store([report])
                return
        for report in reports:
            self._forget(report.claim)
        if any(report.claim.gate for report in reports):
            self._has_room()
        self._wake.set()

    async def _give_up(self, claim: Claim, error: Exception) -> None:
        """Treat the chunk as that of a lost worker, so that it is split until the culprit is alone."""
        log.error("chunk given up", batch_id=str(claim.batch_id), chunk=claim.number, exc_info=error)

        async def give_back() -> None:
            async with self._postgres.connection() as connection:
                await claim_repository.give_back(connection, [claim], lost=1)

        await rounds.attempt("give up", give_back)

    def _forget(self, claim: Claim) -> None:
        work = self._works.get(claim.key)
        # A chunk that was given up may have been claimed again here.
        if work is None or work.claim is claim:
            self._works.pop(claim.key, None)
            self._riding.discard(claim.key)
        self._freed.set()

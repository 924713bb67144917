"""The coordinator: makes chunks ready on time, recovers lost ones, cancels, expires, removes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from batch_processor.background import rounds
from batch_processor.batches import batch_repository, life_cycle, steering
from batch_processor.batches.announcing import announce_finished
from batch_processor.batches.life_cycle import Tally
from batch_processor.batches.progress_publisher import ProgressPublisher
from batch_processor.coordination import repository
from batch_processor.coordination.owner_turns import TURN_S, OwnerCircle
from batch_processor.coordination.repository import DUE_MARGIN, BegunRemovals, ChunkBacklog
from batch_processor.execution import claim_repository
from batch_processor.execution.claims import RemainingItems
from batch_processor.intake.changes import Transition
from batch_processor.intake.handlers import Intake
from batch_processor.pauses import pause_repository
from chassis import beats, logging, metrics
from chassis.outbox import OutboxRelay
from chassis.postgres import Postgres
from contracts.batches import BEGUN_WITHIN_S, CANCELLED_WITHIN_S, VALIDATED_WITHIN_S

log = logging.get(__name__)

# The longest pause between two searches for due chunks. One that this process knows of is on time, and the
# lookout wakes the search for one that another process has delayed.
PROMOTE_EVERY_S = 5.0
# The shortest pause between two such searches, even if another coordinator has locked due chunks.
_LEAST_PAUSE_S = 0.05
_SWEEP_EVERY_S = 1.0
_SURVEY_EVERY_S = 5.0
_EPOCH = datetime.fromtimestamp(0, UTC)
# How often ready chunks of paused operations and owners, which workers skip, are taken out of the queue.
_HOLD_EVERY_S = 2.0
# Items that one transaction cancels.
CANCEL_STEP = 10_000
# A worker renews its leases each second. A batch to cancel does not wait for the lease of a silent worker.
_SILENT_S = 2.0
# Chunks and failed items that one transaction moves.
STEER_STEP = 1000
REDRIVE_STEP = 5_000
# What one transaction removes: little enough not to block others for long.
_REMOVE_BATCHES = 500
REMOVE_ROWS = 5_000
_REMOVE_EVERY_S = 60


@dataclass(frozen=True, slots=True)
class Windows:
    """The lease of a chunk, and how long uploads and finished batches are kept (seconds, days)."""

    lease_s: float = 15
    upload_expires_s: float = 86_400
    retention_days: int = 30


class Coordinator:
    """Moves batches and chunks on; several may run at once. `ready` is called when chunks became ready."""

    def __init__(
        self,
        postgres: Postgres,
        relay: OutboxRelay,
        intake: Intake,
        *,
        progress: ProgressPublisher,
        windows: Windows,
        ready: Callable[[], None],
    ) -> None:
        self._postgres = postgres
        self._relay = relay
        self._intake = intake
        self._progress = progress
        self._windows = windows
        self._ready = ready
        self._cancels = OwnerCircle(postgres, "cancel")
        self._uploads_to_end = OwnerCircle(postgres, "expire")
        self._batches_to_end = OwnerCircle(postgres, "expire")
        self._retries = OwnerCircle(postgres, "retry")
        self._wake = asyncio.Event()
        self._stored = asyncio.Event()
        self._next_due_in_s = 0.0
        self.sweep_from = 0.0
        self._look_whole_at = _EPOCH
        self._backlog = ChunkBacklog()
        self._hold_at = 0.0
        self._has_orders = self._has_expired = False

    def wake(self) -> None:
        """Look soon for the next delayed chunk."""
        self._stored.set()

    def wake_for_orders(self) -> None:
        """Pause, resume, retry and cancel batches soon: there are orders."""
        self._has_orders = True
        self._wake.set()

    def wake_for_expired(self) -> None:
        """End uploads and batches soon: one is past its time."""
        self._has_expired = True
        self._wake.set()

    def wake_for_pauses(self) -> None:
        """Look soon for chunks to hold or release, because the pauses have changed."""
        self._hold_at = 0.0
        self.wake_for_orders()

    @property
    def ready_from(self) -> int:
        """A stamp before which no chunk is ready."""
        return self._backlog.ready_from

    @property
    def _knows_the_dead(self) -> bool:
        # Not right after an outage of the database, in which no worker could say that it lives.
        return time.monotonic() >= self.sweep_from

    async def promote_forever(self) -> None:
        """Make due chunks ready, until cancelled."""
        while True:
            await rounds.attempt("promote", self.promote)
            poll_s = beats.due_in_s(PROMOTE_EVERY_S, behind_s=rounds.BEHIND_S)
            wait_s = min(poll_s, max(_LEAST_PAUSE_S, self._next_due_in_s))
            await rounds.wait(self._stored, most_s=wait_s, least_s=_LEAST_PAUSE_S)

    async def maintain_forever(self) -> None:
        """Sweep every second, and expire batches and carry out orders soon, until cancelled."""
        next_sweep_at = next_survey_at = 0.0
        while True:
            if time.monotonic() >= next_sweep_at:
                next_sweep_at = time.monotonic() + beats.due_in_s(_SWEEP_EVERY_S)
                if not await rounds.attempt("sweep", self.sweep):
                    # While the database was down, no worker could renew a lease.
                    self.sweep_from = time.monotonic() + self._windows.lease_s
                    # Another server may have taken over, with stamps that are not comparable.
                    self._backlog = ChunkBacklog()
            if time.monotonic() >= next_survey_at:
                next_survey_at = time.monotonic() + _SURVEY_EVERY_S
                await rounds.attempt("survey", self.survey)
            if self._has_expired:
                self._has_expired = False
                await rounds.attempt("expire", self.expire)
            if self._has_orders:
                self._has_orders = False
                await rounds.attempt("redrive", self.redrive)
                # After what is queued again, because some of it may be paused.
                await rounds.attempt("steer", self.steer)
                await rounds.attempt("cancel", self.cancel)
            await rounds.wait(self._wake, most_s=max(0.0, next_sweep_at - time.monotonic()))

    async def remove_forever(self) -> None:
        """Remove what is past its retention, until cancelled."""
        while True:
            await rounds.attempt("remove", self.remove)
            await asyncio.sleep(_REMOVE_EVERY_S)

    async def promote(self) -> None:
        """Make due chunks ready, and note when the next one is due."""
        now = datetime.now(UTC)
        is_whole = now >= self._look_whole_at
        due_from = _EPOCH if is_whole else now - DUE_MARGIN
        async with self._postgres.connection() as connection:
            due_in_s = await repository.next_due_in_s(connection, due_from=due_from)
            while due_in_s <= 0 and await repository.promote(connection, due_from=due_from):
                self._ready()
                due_in_s = await repository.next_due_in_s(connection, due_from=due_from)
        self._next_due_in_s = due_in_s
        if is_whole:
            self._look_whole_at = now + DUE_MARGIN / 2

    async def sweep(self) -> None:
        """Make chunks of lost workers ready again, and measure the backlog."""
        async with self._postgres.connection() as connection:
            if self._backlog.is_unknown:
                await repository.restamp(connection)
            backlog = await repository.measure(connection, self._backlog)
            lost = 0
            if backlog.is_leased and self._knows_the_dead:
                lost = await repository.sweep(connection, in_flight_from=backlog.in_flight_from)
        self._backlog = backlog
        metrics.BATCH_READY_CHUNKS.set(backlog.ready)
        metrics.BATCH_OLDEST_READY.set(backlog.oldest_ready_s)
        metrics.BATCH_IN_FLIGHT.set(backlog.in_flight)
        if lost:
            log.warning("chunks of lost workers are ready again", chunks=lost)
            self._ready()

    async def survey(self) -> None:
        """Measure what is late or paused, and set the owner of chunks of the previous release."""
        async with self._postgres.connection() as connection:
            await repository.adopt(connection)
            uploads, oldest_upload_s = await repository.measure_validation(connection)
            overdue = await repository.count_overdue(
                connection,
                begun_within_s=BEGUN_WITHIN_S,
                validated_within_s=VALIDATED_WITHIN_S,
                upload_expires_s=self._windows.upload_expires_s,
                cancelled_within_s=CANCELLED_WITHIN_S,
            )
            paused_operations, paused_owners, longest_pause_s = await pause_repository.measure(connection)
        metrics.BATCH_PAUSED.labels("operation").set(paused_operations)
        metrics.BATCH_PAUSED.labels("owner").set(paused_owners)
        metrics.BATCH_LONGEST_PAUSE.set(longest_pause_s)
        metrics.BATCHES_OVERDUE.set(overdue)
        metrics.BATCHES_VALIDATING.set(uploads)
        metrics.BATCH_OLDEST_VALIDATING.set(oldest_upload_s)

    async def cancel(self) -> None:
        """Cancel the items of cancelled batches that no worker has, some thousand per transaction."""
        async with self._postgres.connection() as connection:
            left = await repository.cancelling(
                connection, but=self._cancels.set_aside, after=self._cancels.last_owner
            )
        if await self._cancels.take(left, self._cancel_some):
            self.wake_for_orders()

    async def _cancel_some(self, batch_id: UUID) -> bool:
        """Cancel some chunks of a batch; return whether there may be more."""
        async with self._postgres.transaction() as connection:
            ranges = await repository.take_cancelled(
                connection,
                batch_id,
                most=CANCEL_STEP,
                ends_within_s=self._windows.lease_s - _SILENT_S if self._knows_the_dead else None,
            )
            if not ranges:
                return False
            cancelled = await repository.cancel_ranges(connection, batch_id, ranges)
            found = await batch_repository.lock_batches(connection, [batch_id])
            batch = life_cycle.record(found[batch_id], Tally(cancelled=cancelled), now=datetime.now(UTC))
            await batch_repository.save_progress(connection, [batch])
            views = await announce_finished(connection, [batch])
        metrics.BATCH_ITEMS.labels(batch.operation or "", "cancelled").inc(cancelled)
        self._progress.note(batch, views.get(batch.id))
        self._relay.wake()
        return not batch.is_finished

    async def expire(self) -> None:
        """End uploads that were open for too long, and batches that are past their deadline."""
        async with self._postgres.connection() as connection:
            open_ones = await repository.expired_uploads(
                connection,
                expires_s=self._windows.upload_expires_s,
                but=self._uploads_to_end.set_aside,
                after=self._uploads_to_end.last_owner,
            )
            late_ones = await repository.lapsed(
                connection, but=self._batches_to_end.set_aside, after=self._batches_to_end.last_owner
            )

        async def end(owners: Mapping[UUID, str], step: Transition, batch_id: UUID) -> bool:
            async with self._postgres.transaction() as connection:
                await self._intake.expire(connection, {batch_id: owners[batch_id]}, step)
            return False

        expire_upload = partial(life_cycle.expire, silent_s=self._windows.upload_expires_s)
        for circle, owners, step in (
            (self._uploads_to_end, open_ones, expire_upload),
            (self._batches_to_end, late_ones, steering.lapse),
        ):
            if await circle.take(owners, partial(end, owners, step)):
                self.wake_for_expired()
        for batch in self._intake.take_changed():
            self._progress.note(batch)
        if open_ones or late_ones:
            log.info("batches expired", uploads=len(open_ones), deadlines=len(late_ones))
            self._relay.wake()
            # Their running items must be stopped, and their waiting ones cancelled.
            self.wake_for_orders()

    async def steer(self) -> None:
        """Hold the chunks of paused work, and release those of resumed work, in steps that owners share."""
        with_pauses = time.monotonic() >= self._hold_at
        if with_pauses:
            self._hold_at = time.monotonic() + _HOLD_EVERY_S
        hold = partial(repository.hold, with_pauses=with_pauses)
        ends_at = time.monotonic() + TURN_S
        for action in (hold, repository.release):
            moved = STEER_STEP
            while moved:
                async with self._postgres.connection() as connection:
                    moved = await action(connection, most=STEER_STEP)
                if moved and action is not hold:
                    self._ready()
                if time.monotonic() >= ends_at:
                    break
            if moved:
                if with_pauses:
                    # The next round must not leave out what this one has cut.
                    self._hold_at = 0.0
                self.wake_for_orders()

    async def redrive(self) -> None:
        """Queue the failed items of retried batches, in steps."""
        async with self._postgres.connection() as connection:
            left = await repository.retrying(
                connection, but=self._retries.set_aside, after=self._retries.last_owner
            )
        if await self._retries.take(left, self._redrive_some):
            self.wake_for_orders()

    async def _redrive_some(self, batch_id: UUID) -> bool:
        """Queue some failed items of a batch; return whether there are more."""
        async with self._postgres.transaction() as connection:
            await repository.lock_failures(connection, batch_id)
            found = await batch_repository.lock_batches(connection, [batch_id])
            batch = found[batch_id]
            if batch.retry_codes is None:
                return False
            positions = await repository.take_failed(
                connection, batch_id, after=batch.retry_after, codes=batch.retry_codes, most=REDRIVE_STEP
            )
            size = self._intake.size_of_chunks(batch)
            rests = [RemainingItems.of(positions[n : n + size], 1) for n in range(0, len(positions), size)]
            gate = self._intake.limits.gate_of(batch)
            for number, rest in enumerate(rests, start=batch.chunk_count):
                await claim_repository.create_chunk(connection, batch_id, number, rest, gate=gate)
            redriven = steering.redrive(
                batch,
                positions,
                chunks=len(rests),
                is_last=len(positions) < REDRIVE_STEP,
                now=datetime.now(UTC),
            )
            await batch_repository.save_batches(connection, [redriven])
            views = await announce_finished(connection, [redriven])
        self._progress.note(redriven, views.get(batch_id))
        self._ready()
        return redriven.retry_codes is not None

    async def remove(self) -> None:
        """Remove everything that is due, in transactions of bounded size, unless another coordinator does."""
        is_more = True
        while is_more:
            is_more = await self._remove_some()
        metrics.BATCH_REMOVAL_LATE.set(0)

    async def _remove_some(self) -> bool:
        """Remove as much as fits into one transaction; return whether there may be more."""
        async with self._postgres.transaction() as connection:
            if not await repository.lock_removal(connection):
                return False
            unused = await repository.unused(connection, most=_REMOVE_BATCHES)
            gone = await repository.removals(connection, most=_REMOVE_BATCHES)
            if await repository.remove_rows(connection, [*unused, *gone], most=REMOVE_ROWS):
                await repository.mark_purged(connection, unused)
                await repository.end_removals(connection, list(gone))
            # Batches whose removal has begun come first, so that few of them are half removed.
            begun = BegunRemovals(late_s=max(gone.values(), default=0))
            if not gone:
                days = self._windows.retention_days
                begun = await repository.begin_removals(connection, days=days, most=_REMOVE_BATCHES)
        metrics.BATCH_REMOVAL_LATE.set(begun.late_s)
        metrics.BATCHES_REMOVED.labels("batch").inc(begun.batches)
        metrics.BATCHES_REMOVED.labels("task").inc(begun.tasks)
        return bool(unused or gone or begun.batches or begun.tasks)

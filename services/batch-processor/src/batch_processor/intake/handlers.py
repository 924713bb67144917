"""Intake: batches and their items arrive in any order, any number of times, and are stored once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, TypeAlias
from uuid import UUID

from batch_processor.batches import batch_repository, life_cycle, steering
from batch_processor.batches.announcing import announce_finished
from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.errors import BatchNotFound, OperationNotHere
from batch_processor.intake import repository, validation
from batch_processor.intake.changes import BatchChange, Transition, describing, opening, runs_of
from batch_processor.intake.repository import Start
from batch_processor.intake.validation import Problem
from batch_processor.items.binary_copy import ItemRun
from batch_processor.limits.rules import LimitBook
from batch_processor.operation import TRIES_LEFT_TO_OTHERS, Operation
from batch_processor.rights import lost_rights
from batch_processor.rights.lost_rights import Loss
from chassis import logging, outbox
from chassis.broker.envelope import Delivery, command
from chassis.postgres import Connection
from contracts.batches import (
    AbandonBatch,
    AppendItems,
    CancelBatch,
    CreateBatch,
    LimitOwner,
    MoveBatch,
    PauseBatch,
    ResumeBatch,
    RetryBatch,
    SealBatch,
)

log = logging.get(__name__)

# The custom ids of up to so many items are compared here, in some milliseconds; those of larger batches are
# compared elsewhere, because they would delay the batches of others.
_CHECKED_AT_ONCE = 2_000
_STORED_AT_ONCE = 100
# Batches of an owner that one message limits; a further message limits the next ones.
LIMITED_AT_ONCE = 500
# Whom stored messages concern: only the worker if they created tasks that can begin at once, and nobody
# if they brought items of batches that are still open.
Concern: TypeAlias = Literal["nobody", "worker", "all"]
# A property of the group that is handled: each group has a context of its own.
_CONCERN: ContextVar[Concern] = ContextVar("concern", default="all")


class Intake:
    """Handlers of the intake queue: each group of messages is one transaction."""

    def __init__(
        self, operations: Mapping[str, Operation], *, chunk_size: int, limits: LimitBook | None = None
    ) -> None:
        self._operations = operations
        self._chunk_size = chunk_size
        self.limits = limits or LimitBook(operations, {})
        self._changed: list[StoredBatch] = []

    def take_changed(self) -> list[StoredBatch]:
        """Return the batches that left `open` since the last call, for live progress; call after a commit."""
        taken, self._changed = self._changed, []
        return taken

    @property
    def concern(self) -> Concern:
        """The parts of the service that the messages just handled concern: none, the worker alone, or all."""
        return _CONCERN.get()

    async def create(self, connection: Connection, deliveries: Sequence[Delivery[CreateBatch]]) -> None:
        """Open batches; seal those that come with their items at once."""
        deliveries = await lost_rights.without_lost(connection, deliveries)
        others = await self._queue_tasks(connection, deliveries)
        if others and await repository.remove_forgotten(connection, others):
            others = await self._queue_tasks(connection, others)
        is_due = all(delivery.message.not_before is None for delivery in deliveries)
        _CONCERN.set("worker" if is_due and not others else "all")
        if others:
            attempt = _least_attempt(others)
            await self._apply(connection, [opening(d.message, d.body) for d in others], attempt=attempt)
            await repository.note_traces(connection, others)

    async def append(self, connection: Connection, deliveries: Sequence[Delivery[AppendItems]]) -> None:
        """Store runs of items."""
        changes = [
            BatchChange(
                m.batch_id,
                m.owner_id,
                items=m.items,
                body=body,
                offset=m.offset,
                lines=m.lines,
                payloads_at=m.payloads_at,
            )
            for m, body in ((d.message, d.body) for d in deliveries)
        ]
        after = await self._apply(connection, changes, attempt=_least_attempt(deliveries))
        _CONCERN.set("nobody" if all(batch.status == "open" for batch in after) else "all")

    async def seal(self, connection: Connection, deliveries: Sequence[Delivery[SealBatch]]) -> None:
        """Set the numbers of items of batches."""
        deliveries = await lost_rights.without_lost(connection, deliveries)
        changes = [opening(delivery.message) for delivery in deliveries]
        await self._apply(connection, changes, attempt=_least_attempt(deliveries))
        await repository.note_traces(connection, deliveries)

    async def abandon(self, connection: Connection, deliveries: Sequence[Delivery[AbandonBatch]]) -> None:
        """Forget uploads that failed."""
        changes = [
            BatchChange(m.batch_id, m.owner_id, life_cycle.abandon) for m in (d.message for d in deliveries)
        ]
        await self._apply(connection, changes)

    async def cancel(self, connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        """Cancel batches: items that have not begun end as cancelled."""
        changes = [
            BatchChange(m.batch_id, m.owner_id, life_cycle.cancel) for m in (d.message for d in deliveries)
        ]
        await self._apply(connection, changes)

    async def pause(self, connection: Connection, deliveries: Sequence[Delivery[PauseBatch]]) -> None:
        """Pause batches: no more of their items begin."""
        changes = [
            BatchChange(m.batch_id, m.owner_id, steering.pause) for m in (d.message for d in deliveries)
        ]
        await self._apply(connection, changes)

    async def resume(self, connection: Connection, deliveries: Sequence[Delivery[ResumeBatch]]) -> None:
        """Resume paused batches: their items begin again."""
        changes = [
            BatchChange(m.batch_id, m.owner_id, steering.resume) for m in (d.message for d in deliveries)
        ]
        await self._apply(connection, changes)

    async def retry(self, connection: Connection, deliveries: Sequence[Delivery[RetryBatch]]) -> None:
        """Queue the failed items of ended batches again, where there are any with the wanted codes."""
        messages = [d.message for d in await lost_rights.without_lost(connection, deliveries)]
        # Nothing fails in a batch that has ended, as long as it is locked.
        await batch_repository.lock_batches(connection, sorted({m.batch_id for m in messages}))
        wanted = [(m.batch_id, code) for m in messages for code in m.codes]
        failing = await repository.find_failing(connection, wanted)
        changes = [
            BatchChange(m.batch_id, m.owner_id, partial(self._retried, message=m))
            for m in messages
            if not m.codes or m.batch_id in failing
        ]
        await self._apply(connection, changes)

    async def move(self, connection: Connection, deliveries: Sequence[Delivery[MoveBatch]]) -> None:
        """Begin batches at another time."""
        await repository.lock_movable(connection, [delivery.message.batch_id for delivery in deliveries])
        changes = [
            BatchChange(m.batch_id, m.owner_id, partial(steering.move, not_before=m.not_before))
            for m in (d.message for d in deliveries)
        ]
        await self._apply(connection, changes)

    async def limit(self, connection: Connection, deliveries: Sequence[Delivery[LimitOwner]]) -> None:
        """Cancel batches that their owners may no longer run, and remove lost rights from the others.

        The loss is noted first, in a short transaction of its own: everything that arrives waits for it.
        """
        for message in (delivery.message for delivery in deliveries):
            lost_at = message.limited_at or datetime.now(UTC)
            if not message.is_noted:
                await lost_rights.note(connection, Loss(message.owner_id, lost_at, message.scopes))
                noted = message.model_copy(update={"limited_at": lost_at, "is_noted": True})
                await outbox.add(connection, [command(noted, tenant=message.owner_id)])
                continue
            beyond = await repository.list_beyond(
                connection,
                message.owner_id,
                message.scopes,
                # What was accepted after the owner got them back keeps them.
                until=lost_at + lost_rights.KNOWN_WITHIN,
                most=LIMITED_AT_ONCE,
            )
            step = partial(self._limited, scopes=message.scopes)
            await self._apply(connection, [BatchChange(id_, message.owner_id, step) for id_ in beyond])
            if len(beyond) == LIMITED_AT_ONCE:
                await outbox.add(connection, [command(message, tenant=message.owner_id)])

    async def expire(self, connection: Connection, owners: Mapping[UUID, str], step: Transition) -> None:
        """End batches that were not finished in time, by `step`."""
        await self._apply(connection, [BatchChange(id_, owner, step) for id_, owner in owners.items()])

    async def _apply(
        self, connection: Connection, changes: Sequence[BatchChange], *, attempt: int | None = None
    ) -> list[StoredBatch]:
        """Apply changes, and start batches that are complete; return the batches.

        Raise `OperationNotHere` while another replica may start one: at an early `attempt` of its messages.
        """
        known = await repository.ensure_rows(connection, {c.batch_id: c.owner_id for c in changes})
        for change in changes:
            if known[change.batch_id].owner_id != change.owner_id:
                raise BatchNotFound(f"Batch {change.batch_id} belongs to another owner.")
        runs: list[ItemRun] = []
        for change in (change for change in changes if change.size):
            at = known[change.batch_id]
            if life_cycle.takes_items(at.status, at.chunk_count):
                runs += runs_of(change)
                if change.size > _STORED_AT_ONCE:
                    # Let others use the loop in between: eight parts of an upload take some milliseconds.
                    await asyncio.sleep(0)
            else:
                dropped = {"items": change.size, "status": at.status}
                log.info("late items dropped", batch_id=str(change.batch_id), **dropped)
        # Before the lock, because several groups store a large batch at once.
        stored = await repository.add_items(connection, runs)
        found = await batch_repository.lock_batches(connection, sorted(known))
        now = datetime.now(UTC)
        after = {id_: life_cycle.receive(batch, stored[id_], now=now) for id_, batch in found.items()}
        for change in changes:
            if change.step is not None:
                after[change.batch_id] = change.step(after[change.batch_id], now=now)
        if attempt is not None and attempt <= TRIES_LEFT_TO_OTHERS:
            for batch in (b for b in after.values() if b.is_complete and not b.cancel_requested):
                if batch.operation not in self._operations:
                    raise OperationNotHere(f"This replica has no operation named {batch.operation!r}.")
        started = [await self._start(connection, batch, now) for batch in after.values()]
        await self._keep(connection, found, started)
        return started

    async def _queue_tasks(
        self, connection: Connection, deliveries: Sequence[Delivery[CreateBatch]]
    ) -> list[Delivery[CreateBatch]]:
        """Store tasks that were unknown before in their queued state.

        Each is a row in three tables, written once. Return the deliveries of everything else.
        """
        now = datetime.now(UTC)
        found: dict[UUID, tuple[Delivery[CreateBatch], StoredBatch]] = {}
        for delivery in deliveries:
            message = delivery.message
            if message.kind == "task" and message.size == 1:
                task = life_cycle.queue_task(message.batch_id, message.owner_id, describing(message), now=now)
                if self._find_refusal(task) is None and task.source is None:
                    found.setdefault(task.id, (delivery, task))
        added = await repository.add_tasks(connection, [found[id_] for id_ in sorted(found)])
        if added:
            runs = []
            for id_ in added:
                delivery, task = found[id_]
                runs += runs_of(opening(delivery.message, delivery.body))
            await repository.add_items(connection, runs)
            tasks = [found[id_][1] for id_ in added]
            starts = [Start(task.id, 1, 1, task.not_before, self.limits.gate_of(task)) for task in tasks]
            await repository.create_chunks(connection, starts)
            self._changed += tasks
        stored = {found[id_][0].message_id for id_ in added}
        return [delivery for delivery in deliveries if delivery.message_id not in stored]

    async def begin(self, connection: Connection, batch_id: UUID, problem: Problem | None) -> None:
        """Start a batch whose custom ids were compared, or fail it with `problem`."""
        found = await batch_repository.lock_batches(connection, [batch_id])
        now = datetime.now(UTC)
        begun = []
        for batch in (batch for batch in found.values() if batch.status == "validating"):
            # The operation may have been removed since the batch was sealed.
            if refusal := problem or self._find_refusal(batch):
                begun.append(life_cycle.fail(batch, code=refusal[0], detail=refusal[1], now=now))
            else:
                begun.append(life_cycle.start(batch, chunk_size=self.size_of_chunks(batch), now=now))
        await self._keep(connection, found, begun)

    async def advance(self, connection: Connection, before: StoredBatch, after: StoredBatch) -> None:
        """Store the new state of a locked batch, and start it if it is complete."""
        started = await self._start(connection, after, datetime.now(UTC))
        await self._keep(connection, {before.id: before}, [started])

    async def _keep(
        self, connection: Connection, found: Mapping[UUID, StoredBatch], after: Sequence[StoredBatch]
    ) -> None:
        """Store the new states of the batches `found`, create chunks for those that start, announce ends."""
        changed = [batch for batch in after if batch != found[batch.id]]
        await batch_repository.save_batches(connection, changed)
        starts = [
            Start(b.id, b.total or 0, self.size_of_chunks(b), b.not_before, self.limits.gate_of(b))
            for b in changed
            if b.status == "queued" and found[b.id].status in ("open", "validating")
        ]
        if starts:
            await repository.create_chunks(connection, starts)
        moved = [
            batch
            for batch in changed
            if found[batch.id].status == batch.status in ("queued", "paused")
            and found[batch.id].not_before != batch.not_before
        ]
        if moved:
            await repository.move_chunks(connection, moved)
        await announce_finished(connection, [b for b in changed if not found[b.id].is_finished])
        self._changed += [b for b in changed if b.status != "open"]

    async def _start(self, connection: Connection, batch: StoredBatch, now: datetime) -> StoredBatch:
        """Return `batch`, started if it is complete, or refused if it cannot run."""
        if not batch.is_complete or batch.cancel_requested:
            return life_cycle.start(batch, chunk_size=self._chunk_size, now=now)
        problem = await self._find_problem(connection, batch)
        if problem is not None:
            code, detail = problem
            return life_cycle.fail(batch, code=code, detail=detail, now=now)
        if batch.kind == "batch" and batch.received > _CHECKED_AT_ONCE:
            return life_cycle.validate(batch, now=now)
        return life_cycle.start(batch, chunk_size=self.size_of_chunks(batch), now=now)

    def _find_refusal(self, batch: StoredBatch) -> Problem | None:
        """Return the reason why no item of the batch may run, whatever its items; None if there is none."""
        operation = self._operations.get(batch.operation or "")
        if operation is None:
            return "unknown-operation", f"There is no operation named {batch.operation!r}."
        missing = life_cycle.missing_scopes(batch, operation.required_scopes)
        if missing:
            detail = f"The operation {batch.operation!r} needs {', '.join(missing)}, which the owner lacks."
            return "insufficient-scope", detail
        return None

    def _retried(self, batch: StoredBatch, *, now: datetime, message: RetryBatch) -> StoredBatch:
        """Return the batch retried, unchanged if its owner has lost the rights to run it meanwhile."""
        retried = steering.retry(
            batch, now=now, codes=message.codes, scopes=message.scopes, scoped_at=message.requested_at
        )
        operation = self._operations.get(batch.operation or "")
        if operation is not None and life_cycle.missing_scopes(retried, operation.required_scopes):
            log.info("retry dropped: its owner lacks the rights", batch_id=str(batch.id))
            return batch
        return retried

    def _limited(self, batch: StoredBatch, *, now: datetime, scopes: Sequence[str]) -> StoredBatch:
        """Return the batch limited to `scopes`, cancelled when its operation needs more."""
        left = scopes if batch.scopes is None else [scope for scope in batch.scopes if scope in scopes]
        limited = replace(batch, scopes=tuple(left))
        operation = self._operations.get(batch.operation or "")
        if operation is None or not (
            missing := life_cycle.missing_scopes(limited, operation.required_scopes)
        ):
            return limited
        detail = f"Its owner no longer has {', '.join(missing)}, which it needs: the role has changed."
        stopped = life_cycle.cancel(limited, now=now)
        return replace(stopped, error_code="insufficient-scope", error_detail=detail)

    async def _find_problem(self, connection: Connection, batch: StoredBatch) -> Problem | None:
        refusal = self._find_refusal(batch)
        if refusal is not None or batch.kind == "task":
            # The only item of a task came with it.
            return refusal
        last = await repository.last_position(connection, batch.id)
        if batch.received != batch.total or last + 1 != batch.total:
            detail = (
                f"{batch.received} items arrived, the last at position {last}, but {batch.total} were sealed."
            )
            return "inconsistent-upload", detail
        if not 2 <= batch.received <= _CHECKED_AT_ONCE:
            return None
        return validation.describe(await repository.find_duplicates(connection, batch.id))

    def size_of_chunks(self, batch: StoredBatch) -> int:
        """Return the most items of a chunk of the batch, even if this replica lacks its operation."""
        operation = self._operations.get(batch.operation or "")
        return min(self._chunk_size, operation.chunk_size) if operation is not None else self._chunk_size


def _least_attempt(deliveries: Sequence[Delivery[Any]]) -> int:
    return min(delivery.attempt for delivery in deliveries)

"""Actions on batches and tasks: cancel, pause, resume, retry, reschedule; on one or on many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from chassis.broker import envelope
from chassis.broker.rpc import RpcClient
from chassis.errors import Conflict, Forbidden
from contracts import batches as contract
from contracts.batch_items import ErrorSummaries, ListErrors
from contracts.batches import BatchStatus
from contracts.message import Command
from contracts.scopes import Scope
from gateway.acceptance.acceptor import Acceptor
from gateway.batches.inputs import CancelQuery, Moving, RetryAllQuery, RetryQuery
from gateway.batches.lookup import BatchLookup, revision_of, taken_over
from gateway.batches.operations import OperationCatalogue
from gateway.errors import UnknownOperation
from gateway.http.calls import Call
from gateway.http.filters import BulkResult, SteppedResult
from gateway.http.principal import Principal
from gateway.http.problems import invalid

# The most that one call changes; as many pages are read, which may be shorter.
_MOST_CHANGED = 1000
_PAGE = 200


@dataclass(frozen=True, slots=True)
class BatchAction:
    """An action on batches: its command, the states in which it applies, and the state that follows.

    In the states `done` the action has no effect. With `runs` it lets items run, so that the caller needs the
    scopes of their operation, even for a batch that another key has made.
    """

    name: str
    command: Callable[..., Command]
    possible: tuple[BatchStatus, ...]
    follows: BatchStatus
    done: tuple[BatchStatus, ...]
    runs: bool = False
    needs_failures: bool = False


CANCEL = BatchAction(
    "cancelled",
    contract.CancelBatch,
    ("open", "validating", "queued", "running", "paused"),
    "cancelling",
    ("cancelling", *sorted(contract.FINISHED)),
)
PAUSE = BatchAction("paused", contract.PauseBatch, ("queued", "running"), "paused", ("paused",))
RESUME = BatchAction("resumed", contract.ResumeBatch, ("paused",), "queued", ("queued", "running"), runs=True)
RETRY = BatchAction(
    "retried", contract.RetryBatch, contract.RETRYABLE, "queued", (), runs=True, needs_failures=True
)


class BatchActions:
    """Promises commands to batch-processor in the transaction of the answer."""

    def __init__(
        self, acceptor: Acceptor, catalogue: OperationCatalogue, lookup: BatchLookup, rpc: RpcClient
    ) -> None:
        self._acceptor = acceptor
        self._catalogue = catalogue
        self._lookup = lookup
        self._rpc = rpc

    async def cancel(self, call: Call, batch_id: UUID) -> dict[str, Any]:
        """Cancel a batch; items that have finished stay finished."""
        return await self._act(call, batch_id, "batch", CANCEL)

    async def cancel_task(self, call: Call, task_id: UUID) -> dict[str, Any]:
        """Cancel a task that has not finished, including one that is scheduled for later."""
        return await self._act(call, task_id, "task", CANCEL)

    async def pause(self, call: Call, batch_id: UUID) -> dict[str, Any]:
        """Pause a batch: no more of its items start; running ones finish."""
        return await self._act(call, batch_id, "batch", PAUSE)

    async def pause_task(self, call: Call, task_id: UUID) -> dict[str, Any]:
        """Pause a task: it does not start until it is resumed."""
        return await self._act(call, task_id, "task", PAUSE)

    async def resume(self, call: Call, batch_id: UUID) -> dict[str, Any]:
        """Resume a batch that is paused."""
        return await self._act(call, batch_id, "batch", RESUME)

    async def resume_task(self, call: Call, task_id: UUID) -> dict[str, Any]:
        """Resume a task that is paused."""
        return await self._act(call, task_id, "task", RESUME)

    async def retry(self, call: Call, batch_id: UUID, query: RetryQuery) -> BulkResult:
        """Retry the failed items of a batch."""
        return await self._retry(call, batch_id, "batch", query)

    async def retry_task(self, call: Call, task_id: UUID, query: RetryQuery) -> BulkResult:
        """Retry a failed task."""
        return await self._retry(call, task_id, "task", query)

    async def move_task(self, call: Call, task_id: UUID, body: Moving) -> dict[str, Any]:
        """Reschedule a task that has not started."""
        task = await self._lookup.find(call.principal, task_id, "task", call.deadline)
        if task["counts"] is None and task["status"] == "queued":
            raise _not_stored(task_id, "task")
        if task["status"] not in ("queued", "paused") or task.get("started_at"):
            raise Conflict(f"Task {task_id} is {task['status']}: only a task that has not started can move.")
        if (expires_at := task.get("expires_at")) and datetime.fromisoformat(expires_at) <= body.run_at:
            raise invalid("/run_at", f"run_at must be earlier than expires_at of the task, {expires_at}.")
        await self._catalogue.require(task["operation"], call.principal)
        call.require_revision(revision_of(task), etag=f'"{revision_of(task)}"')
        owner_id = call.principal.owner_id
        command = contract.MoveBatch(batch_id=task_id, owner_id=owner_id, not_before=body.run_at)
        self._promise(call, [command])
        return {**task, "run_at": body.run_at, "next": taken_over(since=datetime.now(UTC))}

    async def cancel_batches(self, call: Call, query: CancelQuery) -> SteppedResult:
        """Cancel all batches that match."""
        return await self._act_on_all(call, query, "batch", CANCEL)

    async def cancel_tasks(self, call: Call, query: CancelQuery) -> SteppedResult:
        """Cancel all tasks that match."""
        return await self._act_on_all(call, query, "task", CANCEL)

    async def pause_batches(self, call: Call, query: CancelQuery) -> SteppedResult:
        """Pause all batches that match."""
        return await self._act_on_all(call, query, "batch", PAUSE)

    async def pause_tasks(self, call: Call, query: CancelQuery) -> SteppedResult:
        """Pause all tasks that match."""
        return await self._act_on_all(call, query, "task", PAUSE)

    async def resume_batches(self, call: Call, query: CancelQuery) -> SteppedResult:
        """Resume all paused batches that match."""
        return await self._act_on_all(call, query, "batch", RESUME)

    async def resume_tasks(self, call: Call, query: CancelQuery) -> SteppedResult:
        """Resume all paused tasks that match."""
        return await self._act_on_all(call, query, "task", RESUME)

    async def retry_batches(self, call: Call, query: RetryAllQuery) -> SteppedResult:
        """Retry the failed items of all batches that match: all of them, or those with certain errors."""
        return await self._act_on_all(call, query, "batch", _retry_of(query.code, call))

    async def retry_tasks(self, call: Call, query: RetryAllQuery) -> SteppedResult:
        """Retry all failed tasks that match."""
        return await self._act_on_all(call, query, "task", _retry_of(query.code, call))

    async def _act(self, call: Call, id_: UUID, kind: contract.Kind, action: BatchAction) -> dict[str, Any]:
        call.principal.require(Scope.BATCHES_WRITE)
        batch = await self._lookup.find(call.principal, id_, kind, call.deadline)
        # A cancel may arrive before its batch: batch-processor remembers it.
        is_stored = batch["counts"] is not None or action is CANCEL
        if not is_stored or batch["status"] not in (*action.possible, *action.done):
            raise _refusal(id_, kind, batch, action)
        if action.runs:
            await self._catalogue.require(batch["operation"], call.principal)
        if batch["status"] not in contract.FINISHED:
            # Also when the state is reached already: an earlier action may still be on its way.
            self._promise(call, [action.command(batch_id=id_, owner_id=call.principal.owner_id)])
        if batch["status"] in action.possible:
            has_begun = action is RESUME and batch.get("started_at") is not None
            follows = "running" if has_begun else action.follows
            batch |= {"status": follows, "next": taken_over(since=datetime.now(UTC))}
        return batch

    async def _retry(self, call: Call, id_: UUID, kind: contract.Kind, query: RetryQuery) -> BulkResult:
        batch = await self._lookup.find(call.principal, id_, kind, call.deadline)
        if batch["counts"] is None or batch["status"] not in RETRY.possible:
            raise _refusal(id_, kind, batch, RETRY)
        late = batch.get("expires_at")
        if late is not None and datetime.fromisoformat(late) <= datetime.now(UTC):
            raise Conflict(f"The {kind} {id_} could run until {late}; send what failed as new work.")
        await self._catalogue.require(batch["operation"], call.principal)
        codes, matched = query.code or [], batch["counts"]["failed"]
        if codes:
            # The batch lists its most frequent errors only.
            question = ListErrors(batch_id=id_, owner_id=call.principal.owner_id, codes=codes, samples=0)
            found = await self._rpc.call(question, ErrorSummaries, call.deadline)
            # A batch-processor of the release before returns others, too.
            matched = sum(error.items for error in found.data if error.code in codes)
        if matched and not query.dry_run:
            command = _retry_of(codes, call).command(batch_id=id_, owner_id=call.principal.owner_id)
            self._promise(call, [command])
        return BulkResult(matched=matched, changed=matched, dry_run=query.dry_run, complete=True)

    async def _act_on_all(
        self, call: Call, query: CancelQuery | RetryAllQuery, kind: contract.Kind, action: BatchAction
    ) -> SteppedResult:
        owner_id, wanted = call.principal.owner_id, query.wanted()
        if action.runs and not call.principal.may(Scope.BATCHES_READ):
            # Before anything is looked for: a refusal because of what matches would tell what there is.
            if not wanted.operations:
                call.principal.require(Scope.BATCHES_READ)
            await self._require_each(wanted.operations, call.principal, action)
        statuses = [status for status in action.possible if status in (wanted.statuses or action.possible)]
        changes = {"statuses": statuses, "with_failures": wanted.with_failures or action.needs_failures}
        page = contract.ListBatches(
            owner_id=owner_id,
            kind=kind,
            wanted=wanted.model_copy(update=changes),
            limit=_PAGE,
            cursor=query.cursor if statuses else None,
        )
        # A dry run reads the same pages: it is refused or incomplete in the same cases.
        ids: list[UUID] = []
        for _ in range(_MOST_CHANGED // _PAGE if statuses else 0):
            found = await self._rpc.call(page, contract.Batches, call.deadline)
            if action.runs:
                operations = {batch.operation for batch in found.data if batch.operation}
                await self._require_each(operations, call.principal, action)
            now = datetime.now(UTC)
            # What is past its deadline would be stopped at once.
            late = {
                batch.id for batch in found.data if batch.expires_at is not None and batch.expires_at <= now
            }
            ids += [batch.id for batch in found.data if not action.needs_failures or batch.id not in late]
            page = page.model_copy(update={"cursor": found.next_cursor})
            if found.next_cursor is None:
                break
        question = contract.CountBatches(
            owner_id=owner_id, kind=kind, wanted=wanted, before=query.cursor, until=page.cursor
        )
        counted = await self._rpc.call(question, contract.BatchCounts, call.deadline)
        if not query.dry_run:
            self._promise(call, [action.command(batch_id=id_, owner_id=owner_id) for id_ in ids])
        return SteppedResult(
            # They were counted after they were listed, when some may not have matched any more.
            matched=max(sum(counted.counts.values()), len(ids)),
            changed=len(ids),
            dry_run=query.dry_run,
            complete=page.cursor is None,
            next_cursor=page.cursor,
            exact=counted.exact,
        )

    async def _require_each(
        self, operations: Iterable[str], principal: Principal, action: BatchAction
    ) -> None:
        """Raise the error of the first operation that is gone, or that the caller may not run."""
        for operation in operations:
            try:
                await self._catalogue.require(operation, principal)
            except (UnknownOperation, Forbidden) as error:
                detail = f"{error.detail} None was {action.name}: choose others with the parameter operation."
                raise type(error)(detail, errors=error.errors, headers=error.headers) from error

    def _promise(self, call: Call, commands: Sequence[Command]) -> None:
        owner_id = call.principal.owner_id
        messages = [envelope.command(command, tenant=owner_id) for command in commands]
        call.writes.append(lambda connection: self._acceptor.promise(connection, call, messages))


def _retry_of(codes: Sequence[str] | None, call: Call) -> BatchAction:
    """Return the retry of items that failed with one of `codes`, or of all failed items without `codes`."""
    scopes = sorted(map(str, call.principal.scopes))
    now = datetime.now(UTC)
    retry = partial(contract.RetryBatch, codes=list(codes or ()), scopes=scopes, requested_at=now)
    return replace(RETRY, command=retry)


def _refusal(id_: UUID, kind: contract.Kind, batch: dict[str, Any], action: BatchAction) -> Conflict:
    if batch["counts"] is None and batch["status"] != "parked":
        return _not_stored(id_, kind)
    states = ", ".join(action.possible)
    return Conflict(
        f"The {kind} {id_} is {batch['status']}; to be {action.name} it must be one of: {states}."
    )


def _not_stored(id_: UUID, kind: contract.Kind) -> Conflict:
    detail = f"The {kind} {id_} is not stored yet, or batch-processor cannot be reached; try again."
    return Conflict(detail, retry_after_s=2)

"""Actions on one batch or task, or on all that match a filter: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chassis.errors import Conflict, DatabaseUnavailable, NotFound, Overloaded, ServiceError, Unavailable
from contracts import problems
from contracts.scopes import Scope
from gateway.batches.actions import BatchActions
from gateway.batches.inputs import CHANGED_BATCH, CHANGED_BATCHES, RETRIED_ITEMS, BatchView
from gateway.errors import PreconditionFailed, UnknownOperation
from gateway.http.endpoints import Endpoint, Handler, Idempotency, Precondition, json, patch, post
from gateway.http.filters import BulkResult, SteppedResult

_NOT_FOUND = problems.of("batch-not-found")
_ONE = (NotFound, _NOT_FOUND, Overloaded, Unavailable, DatabaseUnavailable)
_ALL = (Unavailable, Overloaded, DatabaseUnavailable, problems.of("invalid-cursor"))
_BATCH, _TASK = "/v1/batches/<uuid:batch_id>", "/v1/tasks/<uuid:task_id>"


def endpoints(actions: BatchActions) -> Iterator[Endpoint]:
    """Yield the endpoints of actions on batches and tasks."""
    yield _one(f"{_BATCH}/cancel", actions.cancel, "cancelBatch", "Cancel a batch: no more items start")
    yield _one(f"{_BATCH}/pause", actions.pause, "pauseBatch", "Pause a batch: no more of its items start")
    yield _one(f"{_BATCH}/resume", actions.resume, "resumeBatch", "Resume a paused batch")
    yield _retry(f"{_BATCH}/retry", actions.retry, "retryBatch", "Retry the failed items of a batch")
    yield _one(f"{_TASK}/cancel", actions.cancel_task, "cancelTask", "Cancel a task that has not ended")
    yield _one(f"{_TASK}/pause", actions.pause_task, "pauseTask", "Pause a task until it is resumed")
    yield _one(f"{_TASK}/resume", actions.resume_task, "resumeTask", "Resume a paused task")
    yield _retry(f"{_TASK}/retry", actions.retry_task, "retryTask", "Retry a failed task")
    yield patch(
        _TASK,
        actions.move_task,
        name="moveTask",
        summary="Reschedule a task that has not started",
        answers={202: json(BatchView, excerpt=CHANGED_BATCH)},
        errors=(*_ONE, Conflict, PreconditionFailed, UnknownOperation),
        precondition=Precondition.OPTIONAL,
        idempotency=Idempotency.CLAIM,
        examples={"tomorrow": {"run_at": "2026-11-28T08:00:00Z"}},
        **_about(_TASK),
    )
    yield _all("/v1/batches/cancel", actions.cancel_batches, "cancelBatches", "Cancel all matching batches")
    yield _all("/v1/batches/pause", actions.pause_batches, "pauseBatches", "Pause all matching batches")
    yield _all("/v1/batches/resume", actions.resume_batches, "resumeBatches", "Resume all matching batches")
    yield _all(
        "/v1/batches/retry",
        actions.retry_batches,
        "retryBatches",
        "Retry the failed items of all matching batches",
    )
    yield _all("/v1/tasks/cancel", actions.cancel_tasks, "cancelTasks", "Cancel all matching tasks")
    yield _all("/v1/tasks/pause", actions.pause_tasks, "pauseTasks", "Pause all matching tasks")
    yield _all("/v1/tasks/resume", actions.resume_tasks, "resumeTasks", "Resume all matching tasks")
    yield _all("/v1/tasks/retry", actions.retry_tasks, "retryTasks", "Retry all matching tasks that failed")


def _one(path: str, handler: Handler, name: str, summary: str) -> Endpoint:
    return post(
        path,
        handler,
        name=name,
        summary=summary,
        answers={202: json(BatchView, excerpt=CHANGED_BATCH)},
        errors=(*_ONE, Conflict, *_runs(path)),
        **_about(path),
    )


def _retry(path: str, handler: Handler, name: str, summary: str) -> Endpoint:
    description = "The number of failed items and of retried ones."
    answers = {200: json(BulkResult, description=description, excerpt=RETRIED_ITEMS)}
    return post(
        path,
        handler,
        name=name,
        summary=summary,
        answers=answers,
        errors=(*_ONE, Conflict, *_runs(path)),
        **_about(path),
    )


def _all(path: str, handler: Handler, name: str, summary: str) -> Endpoint:
    return post(
        path,
        handler,
        name=name,
        summary=summary,
        answers={200: json(SteppedResult, excerpt=CHANGED_BATCHES)},
        errors=(*_ALL, *_runs(path)),
        **_about(path),
    )


def _runs(path: str) -> tuple[type[ServiceError], ...]:
    """Return the error of an action that lets items run, whose operation must be known."""
    return (UnknownOperation,) if path.endswith(("/retry", "/resume")) else ()


def _about(path: str) -> dict[str, Any]:
    return {"tag": "Tasks" if path.startswith("/v1/tasks") else "Batches", "scope": Scope.BATCHES_WRITE}

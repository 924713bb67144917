"""`/v1/batches`, `/v1/tasks` and `/v1/operations`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import DatabaseUnavailable, NotFound, Overloaded, PayloadTooLarge, Unavailable
from contracts import problems
from contracts.batches import Batches, Result, Results
from contracts.scopes import Scope
from gateway.acceptance.inputs import ACCEPTED
from gateway.batches.inputs import AcceptedTask, BatchView, OperationList
from gateway.batches.service import BatchService
from gateway.errors import (
    IdempotencyConflict,
    IdempotencyMismatch,
    UniqueKeyInUse,
    UnknownOperation,
    UploadStalled,
)
from gateway.http.endpoints import Endpoint, Idempotency, get, json, lines, post
from gateway.http.filters import BulkResult
from gateway.http.replies import NDJSON

_REFUSALS = (
    Overloaded, DatabaseUnavailable, IdempotencyConflict, IdempotencyMismatch, PayloadTooLarge,
    UnknownOperation,
)  # fmt: skip


_BATCH_NOT_FOUND = problems.of("batch-not-found")
_INVALID_CURSOR = problems.of("invalid-cursor")
_TASK_ACCEPTED = json(AcceptedTask, description=ACCEPTED.description, headers=ACCEPTED.headers)


def endpoints(service: BatchService) -> Iterator[Endpoint]:
    """Yield the endpoints of batches, tasks and operations."""
    yield from _creating(service)
    yield from _following(service)
    yield from _tasks(service)
    yield from _choosing(service)


def _creating(service: BatchService) -> Iterator[Endpoint]:
    yield post(
        "/v1/batches",
        service.create,
        name="createBatch",
        summary="Accept a batch of items, as one document or as a stream of lines",
        tag="Batches",
        scope=Scope.BATCHES_WRITE,
        answers={202: ACCEPTED},
        errors=(*_REFUSALS, UploadStalled),
        upload=NDJSON,
        idempotency=Idempotency.ACCEPTANCE,
        rate="batch",
        examples={"three items": {"operation": "echo", "items": [1, 2, {"custom_id": "c", "payload": 3}]}},
    )
    yield get(
        "/v1/operations",
        service.operations,
        name="listOperations",
        summary="List the operations that batches and tasks may name",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={200: json(OperationList)},
        errors=(DatabaseUnavailable,),
    )


def _following(service: BatchService) -> Iterator[Endpoint]:
    yield get(
        "/v1/batches",
        service.list,
        name="listBatches",
        summary="List your batches, newest first",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={200: json(Batches)},
        errors=(Unavailable, _INVALID_CURSOR),
    )
    yield get(
        "/v1/batches/<uuid:batch_id>",
        service.get,
        name="getBatch",
        summary="Report how far a batch is",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={200: json(BatchView)},
        errors=(NotFound, _BATCH_NOT_FOUND, DatabaseUnavailable),
    )
    yield get(
        "/v1/batches/<uuid:batch_id>/results",
        service.results,
        name="listResults",
        summary="Read the results of a batch in the order of its items",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={200: lines(Results, item=Result)},
        errors=(NotFound, _BATCH_NOT_FOUND, _INVALID_CURSOR, Unavailable, DatabaseUnavailable),
    )
    yield post(
        "/v1/batches/<uuid:batch_id>/cancel",
        service.cancel,
        name="cancelBatch",
        summary="Stop a batch before its next item",
        tag="Batches",
        scope=Scope.BATCHES_WRITE,
        answers={202: json(BatchView)},
        errors=(NotFound, _BATCH_NOT_FOUND, Overloaded, DatabaseUnavailable),
    )


def _tasks(service: BatchService) -> Iterator[Endpoint]:
    yield post(
        "/v1/tasks",
        service.create_task,
        name="createTask",
        summary="Accept a task: one item that is run by itself",
        tag="Tasks",
        scope=Scope.BATCHES_WRITE,
        answers={202: _TASK_ACCEPTED},
        errors=(*_REFUSALS, UniqueKeyInUse),
        idempotency=Idempotency.ACCEPTANCE,
        examples={"a task": {"operation": "echo", "payload": {"greeting": "hello"}}},
    )
    yield get(
        "/v1/tasks",
        service.list_tasks,
        name="listTasks",
        summary="List your tasks, newest first",
        tag="Tasks",
        scope=Scope.BATCHES_READ,
        answers={200: json(Batches)},
        errors=(Unavailable, _INVALID_CURSOR),
    )
    yield post(
        "/v1/tasks/<uuid:task_id>/cancel",
        service.cancel_task,
        name="cancelTask",
        summary="Stop a task, also one that waits for its time",
        tag="Tasks",
        scope=Scope.BATCHES_WRITE,
        answers={202: json(BatchView)},
        errors=(NotFound, _BATCH_NOT_FOUND, Overloaded, DatabaseUnavailable),
    )
    yield get(
        "/v1/tasks/<uuid:task_id>",
        service.get_task,
        name="getTask",
        summary="Report a task and its result",
        tag="Tasks",
        scope=Scope.BATCHES_READ,
        answers={200: json(BatchView)},
        errors=(NotFound, _BATCH_NOT_FOUND, DatabaseUnavailable),
    )


def _choosing(service: BatchService) -> Iterator[Endpoint]:
    yield post(
        "/v1/batches/cancel",
        service.cancel_batches,
        name="cancelBatches",
        summary="Stop all batches that fit a filter",
        tag="Batches",
        scope=Scope.BATCHES_WRITE,
        answers={200: json(BulkResult)},
        errors=(Unavailable, Overloaded, DatabaseUnavailable),
    )
    yield post(
        "/v1/tasks/cancel",
        service.cancel_tasks,
        name="cancelTasks",
        summary="Stop all tasks that fit a filter",
        tag="Tasks",
        scope=Scope.BATCHES_WRITE,
        answers={200: json(BulkResult)},
        errors=(Unavailable, Overloaded, DatabaseUnavailable),
    )

"""`/v1/batches`, `/v1/tasks` and `/v1/operations`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import Conflict, DatabaseUnavailable, NotFound, Overloaded, PayloadTooLarge, Unavailable
from contracts import problems
from contracts.batch_items import ErrorSummaries, Items
from contracts.batches import Batches, Result, Results
from contracts.scopes import Scope
from gateway.acceptance.inputs import ACCEPTED
from gateway.batches import action_routes
from gateway.batches.inputs import (
    CHANGED_BATCH,
    AcceptedBatch,
    AcceptedTask,
    BatchView,
    Checked,
    OperationList,
)
from gateway.batches.open_uploads import OpenUploads
from gateway.batches.results import ResultReader
from gateway.batches.service import BatchService
from gateway.batches.upload_inputs import UploadProgress
from gateway.errors import (
    IdempotencyConflict,
    IdempotencyMismatch,
    UniqueKeyInUse,
    UnknownOperation,
    UploadOffsetMismatch,
    UploadStalled,
)
from gateway.http.endpoints import CONTENT_TAG, Endpoint, Idempotency, get, json, post, put, rows
from gateway.http.rates import RateClass
from gateway.http.replies import NDJSON

_REFUSALS = (
    Overloaded, DatabaseUnavailable, IdempotencyConflict, IdempotencyMismatch, PayloadTooLarge,
    UnknownOperation,
)  # fmt: skip


_BATCH_NOT_FOUND = problems.of("batch-not-found")
_INVALID_CURSOR = problems.of("invalid-cursor")
_BATCH_ACCEPTED = json(AcceptedBatch, description=ACCEPTED.description, headers=ACCEPTED.headers)
_TASK_ACCEPTED = json(AcceptedTask, description=ACCEPTED.description, headers=ACCEPTED.headers)


def endpoints(service: BatchService) -> Iterator[Endpoint]:
    """Yield the endpoints of batches, tasks and operations."""
    yield post(
        "/v1/batches",
        service.create,
        name="createBatch",
        summary="Accept a batch of items, as one document or as a stream of lines",
        tag="Batches",
        scope=Scope.BATCHES_WRITE,
        answers={202: _BATCH_ACCEPTED, 200: json(Checked, description="Valid; nothing was accepted.")},
        errors=(*_REFUSALS, Conflict, Unavailable, UploadStalled),
        upload=NDJSON,
        codings=("gzip",),
        idempotency=Idempotency.ACCEPTANCE,
        rate=RateClass.BATCH,
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
    yield from _appending(service.open_uploads)
    yield from _following(service)
    yield from _reading(service.results)
    yield from _tasks(service)
    yield from action_routes.endpoints(service.actions)


def _appending(service: OpenUploads) -> Iterator[Endpoint]:
    yield get(
        "/v1/batches/<uuid:batch_id>/upload",
        service.get,
        name="getUpload",
        summary="Report the offset of an open upload",
        tag="Batches",
        scope=Scope.BATCHES_WRITE,
        answers={200: json(UploadProgress)},
        errors=(NotFound, Conflict, DatabaseUnavailable),
    )
    yield put(
        "/v1/batches/<uuid:batch_id>/items",
        service.append,
        name="appendItems",
        summary="Append lines to an open upload at its current offset",
        tag="Batches",
        scope=Scope.BATCHES_WRITE,
        answers={200: json(UploadProgress)},
        errors=(
            NotFound, Conflict, UploadOffsetMismatch, PayloadTooLarge, Overloaded, DatabaseUnavailable,
            UploadStalled, Unavailable, UnknownOperation,
        ),
        upload=NDJSON,
        codings=("gzip",),
        rate=RateClass.BATCH,
    )  # fmt: skip
    yield post(
        "/v1/batches/<uuid:batch_id>/seal",
        service.seal,
        name="sealBatch",
        summary="Complete an open upload, so that its batch runs",
        tag="Batches",
        scope=Scope.BATCHES_WRITE,
        answers={202: _BATCH_ACCEPTED},
        errors=(NotFound, Conflict, Overloaded, PayloadTooLarge, DatabaseUnavailable, UnknownOperation),
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
        summary="Report the progress of a batch",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={200: json(BatchView, headers=CONTENT_TAG)},
        errors=(NotFound, _BATCH_NOT_FOUND, Unavailable, DatabaseUnavailable),
    )


def _reading(reader: ResultReader) -> Iterator[Endpoint]:
    yield get(
        "/v1/batches/<uuid:batch_id>/results",
        reader.results,
        name="listResults",
        summary="Read the results of a batch in the order of its items, as pages, lines or a table",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={
            200: rows(
                Results,
                item=Result,
                headers={"X-Results-Complete": "`false` while the batch runs: results follow these later"},
                optional={"X-Next-Cursor": "of CSV and NDJSON with a `limit`: the cursor of the next page"},
            )
        },
        errors=(NotFound, _BATCH_NOT_FOUND, _INVALID_CURSOR, Unavailable, DatabaseUnavailable),
    )
    yield get(
        "/v1/batches/<uuid:batch_id>/items",
        reader.items,
        name="listItems",
        summary="Read the items of a batch with the errors of all attempts",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={200: json(Items)},
        errors=(NotFound, _BATCH_NOT_FOUND, _INVALID_CURSOR, Unavailable, DatabaseUnavailable),
    )
    yield get(
        "/v1/batches/<uuid:batch_id>/errors",
        reader.errors,
        name="listErrors",
        summary="Summarize the errors of a batch by code, with samples",
        tag="Batches",
        scope=Scope.BATCHES_READ,
        answers={200: json(ErrorSummaries)},
        errors=(NotFound, _BATCH_NOT_FOUND, Unavailable, DatabaseUnavailable),
    )


def _tasks(service: BatchService) -> Iterator[Endpoint]:
    yield post(
        "/v1/tasks",
        service.tasks.create,
        name="createTask",
        summary="Accept a task: a single item",
        tag="Tasks",
        scope=Scope.BATCHES_WRITE,
        answers={
            202: _TASK_ACCEPTED,
            200: json(
                BatchView,
                optional={"Preference-Applied": "`wait`: the task has ended in time"},
                excerpt=CHANGED_BATCH,
            ),
        },
        errors=(*_REFUSALS, Conflict, UniqueKeyInUse),
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
    yield get(
        "/v1/tasks/<uuid:task_id>",
        service.get_task,
        name="getTask",
        summary="Report a task and its result",
        tag="Tasks",
        scope=Scope.BATCHES_READ,
        answers={
            200: json(
                BatchView, optional={"ETag": "the version of the task, for If-Match, once it is stored"}
            )
        },
        errors=(NotFound, _BATCH_NOT_FOUND, Unavailable, DatabaseUnavailable),
    )

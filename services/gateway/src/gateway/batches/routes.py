"""`/v1/batches`, `/v1/tasks` and `/v1/operations`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid5

import orjson
from quart import Response, request

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotFound, ServiceError, Unavailable
from contracts import batches as contract
from gateway.acceptance import idempotency
from gateway.acceptance.acceptor import Accepted, Acceptor, batch_answer, new_acceptance
from gateway.acceptance.idempotency import IdempotencyKey
from gateway.acceptance.repository import Acceptance
from gateway.batches.inputs import BatchInput, PageQuery, ResultsQuery, TaskInput, UploadQuery
from gateway.batches.operations import Catalogue
from gateway.batches.upload_service import UploadService
from gateway.emails.routes import accepted_answer, why
from gateway.http.bodies import BODY, Body
from gateway.http.endpoint import (
    JSON,
    Api,
    answer,
    is_head,
    offload_if_large,
    parse,
    read_body,
    read_query,
    require_media_type,
    scope_of,
)
from gateway.http.principal import Principal

NDJSON = "application/x-ndjson"
_RUN_ITEMS = 1000
_UNIQUE = UUID("5f0c6a55-8f63-4f3b-9d0a-0d4a6f0a2b11")
_PAGE = 1000


class BatchService:
    """Takes batches and tasks in and answers for them."""

    def __init__(
        self, acceptor: Acceptor, catalogue: Catalogue, uploads: UploadService, rpc: RpcClient
    ) -> None:
        self._acceptor = acceptor
        self._catalogue = catalogue
        self._uploads = uploads
        self._rpc = rpc

    async def accept(self, principal: Principal, batch: BatchInput, key: IdempotencyKey | None) -> Accepted:
        """Promise to run a batch that came as one JSON body."""
        await self._catalogue.require(batch.operation)
        acceptance = new_acceptance(envelope.new_id(), principal, "batch", batch.operation)
        messages = _messages(acceptance, batch)
        return await self._acceptor.accept(acceptance, messages, key=key, answer=batch_answer(acceptance))

    async def accept_task(
        self, principal: Principal, task: TaskInput, key: IdempotencyKey | None
    ) -> Accepted:
        """Promise to run one item. The same `unique_key` of a caller is the same task."""
        await self._catalogue.require(task.operation)
        id_ = (
            uuid5(_UNIQUE, f"{principal.owner_id}:{task.unique_key}")
            if task.unique_key
            else envelope.new_id()
        )
        acceptance = new_acceptance(id_, principal, "task", task.operation)
        if task.unique_key and await self._acceptor.find_own(id_, principal, "task"):
            return batch_answer(acceptance, is_replay=True)
        create = contract.CreateBatch(
            batch_id=id_,
            owner_id=principal.owner_id,
            kind="task",
            operation=task.operation,
            accepted_at=acceptance.accepted_at,
            not_before=acceptance.accepted_at + timedelta(seconds=task.delay_s) if task.delay_s else None,
            priority=task.priority,
            items=[contract.Item(payload=task.payload)],
        )
        message = envelope.command(create, message_id=acceptance.id, tenant=acceptance.owner_id)
        return await self._acceptor.accept(acceptance, [message], key=key, answer=batch_answer(acceptance))

    async def upload(
        self, principal: Principal, operation: str, body: Body, parts: AsyncIterator[bytes], key: str | None
    ) -> Accepted:
        """Promise to run a batch that is streamed."""
        await self._catalogue.require(operation)
        return await self._uploads.accept(principal, operation, body, parts, key)

    async def cancel(self, principal: Principal, batch_id: UUID, deadline: Deadline) -> dict[str, Any]:
        """Ask for the end of a batch; what has finished stays finished."""
        batch = await self.get(principal, batch_id, "batch", deadline)
        message = contract.CancelBatch(batch_id=batch_id, owner_id=principal.owner_id)
        await self._acceptor.promise([envelope.command(message, tenant=principal.owner_id)])
        if batch["status"] in ("open", "queued", "running", "finalizing"):
            batch["status"] = "cancelling"
        return batch

    async def get(
        self, principal: Principal, batch_id: UUID, kind: contract.Kind, deadline: Deadline
    ) -> dict[str, Any]:
        """The caller's batch or task; `queued` until batch-processor has seen it, `parked` if it cannot."""
        accepted = await self._acceptor.find_own(batch_id, principal, kind)
        question = contract.GetBatch(batch_id=batch_id, owner_id=principal.owner_id, kind=kind)
        try:
            return _loads(await self._rpc.ask(question, deadline))
        except ServiceError as error:
            if accepted is None or not (isinstance(error, Unavailable) or error.status in (404, 504)):
                raise _not_found(kind, batch_id) if error.status == 404 else error from None
            return _summary(accepted)

    async def page(self, principal: Principal, query: PageQuery, deadline: Deadline) -> bytes:
        """A page of the caller's batches, newest first, as JSON."""
        return await self._rpc.ask(
            contract.ListBatches(owner_id=principal.owner_id, limit=query.limit, cursor=query.cursor),
            deadline,
        )

    async def results(
        self, principal: Principal, batch_id: UUID, query: ResultsQuery, deadline: Deadline
    ) -> bytes:
        """A page of results in input order, as JSON."""
        question = contract.ListResults(
            batch_id=batch_id,
            owner_id=principal.owner_id,
            status=query.status,
            limit=query.limit,
            cursor=query.cursor,
        )
        try:
            return await self._rpc.ask(question, deadline)
        except ServiceError as error:
            accepted = await self._acceptor.find_own(batch_id, principal, "batch")
            if error.status != 404 or accepted is None:
                raise
            return b'{"data":[],"next_cursor":null}'

    async def all_results(
        self, principal: Principal, batch_id: UUID, query: ResultsQuery
    ) -> AsyncIterator[bytes]:
        """All results from the query's cursor on, one JSON object a line."""
        cursor = query.cursor
        while True:
            page = query.model_copy(update={"cursor": cursor, "limit": _PAGE})
            found = _loads(await self.results(principal, batch_id, page, Deadline.after(15)))
            yield b"".join(orjson.dumps(row) + b"\n" for row in found["data"])
            cursor = found["next_cursor"]
            if cursor is None:
                return

    async def operations(self) -> list[dict[str, Any]]:
        """The operations that batches and tasks may name."""
        return await self._catalogue.all()


def _messages(acceptance: Acceptance, batch: BatchInput) -> list[Outgoing]:
    """A small batch as one message, a larger one in runs of a thousand items with a seal after them."""
    items, owner = batch.contract_items(), acceptance.owner_id
    if len(items) <= _RUN_ITEMS:
        create = contract.CreateBatch(
            batch_id=acceptance.id,
            owner_id=owner,
            operation=batch.operation,
            accepted_at=acceptance.accepted_at,
            options=batch.options,
            items=items,
        )
        return [envelope.command(create, message_id=acceptance.id, tenant=owner)]
    runs = [items[start : start + _RUN_ITEMS] for start in range(0, len(items), _RUN_ITEMS)]
    appended: list[contract.AppendItems | contract.SealBatch] = [
        contract.AppendItems(batch_id=acceptance.id, owner_id=owner, offset=index * _RUN_ITEMS, items=run)
        for index, run in enumerate(runs)
    ]
    seal = contract.SealBatch(
        batch_id=acceptance.id,
        owner_id=owner,
        operation=batch.operation,
        accepted_at=acceptance.accepted_at,
        options=batch.options,
        total=len(items),
    )
    return [envelope.command(message, tenant=owner) for message in (*appended, seal)]


def register(api: Api, service: BatchService, *, upload_limit: int) -> None:
    """Serve the routes."""
    _register_batches(api, service, upload_limit=upload_limit)
    _register_tasks(api, service)

    @api.route("/v1/operations", scope="batches:read")
    async def get_operations(_: Principal) -> Response:
        return answer({"data": await service.operations(), "next_cursor": None})


def _register_batches(api: Api, service: BatchService, *, upload_limit: int) -> None:
    @api.route("/v1/batches", methods=("POST",), scope="batches:write")
    async def post_batch(principal: Principal) -> Response:
        if require_media_type(JSON, NDJSON) == NDJSON:
            return accepted_answer(await _upload(service, principal, upload_limit))
        body = await read_body()
        key = idempotency.read(request.headers.get("idempotency-key"), "POST /v1/batches", body)
        batch = await offload_if_large(partial(parse, BatchInput), body)
        async with api.within_deadline():
            return accepted_answer(await service.accept(principal, batch, key))

    @api.route("/v1/batches", scope="batches:read")
    async def list_batches(principal: Principal) -> Response:
        return answer(await service.page(principal, read_query(PageQuery), api.deadline()))

    @api.route("/v1/batches/<uuid:batch_id>", scope="batches:read")
    async def get_batch(principal: Principal, batch_id: UUID) -> Response:
        return answer(await service.get(principal, batch_id, "batch", api.deadline()))

    @api.route("/v1/batches/<uuid:batch_id>/results", scope="batches:read")
    async def get_results(principal: Principal, batch_id: UUID) -> Response:
        query = read_query(ResultsQuery)
        if query.format == "ndjson" or request.accept_mimetypes.best_match([JSON, NDJSON]) == NDJSON:
            await service.get(principal, batch_id, "batch", api.deadline())
            rows = b"" if is_head() else service.all_results(principal, batch_id, query)
            return Response(rows, content_type=NDJSON)
        return answer(await service.results(principal, batch_id, query, api.deadline()))

    @api.route("/v1/batches/<uuid:batch_id>/cancel", methods=("POST",), scope="batches:write")
    async def cancel_batch(principal: Principal, batch_id: UUID) -> Response:
        return answer(await service.cancel(principal, batch_id, api.deadline()), 202)


def _register_tasks(api: Api, service: BatchService) -> None:
    @api.route("/v1/tasks", methods=("POST",), scope="batches:write")
    async def post_task(principal: Principal) -> Response:
        require_media_type(JSON)
        body = await read_body()
        key = idempotency.read(request.headers.get("idempotency-key"), "POST /v1/tasks", body)
        task = parse(TaskInput, body)
        async with api.within_deadline():
            return accepted_answer(await service.accept_task(principal, task, key))

    @api.route("/v1/tasks/<uuid:task_id>", scope="batches:read")
    async def get_task(principal: Principal, task_id: UUID) -> Response:
        return answer(await service.get(principal, task_id, "task", api.deadline()))


async def _upload(service: BatchService, principal: Principal, limit: int) -> Accepted:
    query = read_query(UploadQuery)
    body: Body = scope_of(request)[BODY]
    body.open_stream(limit)
    body.require_within(request.headers.get("content-length"))
    parts: AsyncIterator[bytes] = request.body.__aiter__()
    return await service.upload(
        principal, query.operation, body, parts, request.headers.get("idempotency-key")
    )


def _loads(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(data)
    return found


def _not_found(kind: str, batch_id: UUID) -> NotFound:
    return NotFound(f"There is no {kind} {batch_id}.")


def _summary(accepted: Acceptance) -> dict[str, Any]:
    return {
        "id": str(accepted.id),
        "kind": accepted.kind,
        "operation": accepted.operation,
        "status": accepted.status,
        "counts": None,
        "accepted_at": accepted.accepted_at,
        "detail_available": False,
        **why(accepted),
    }

"""Batches and tasks at the gateway: promised here, run and reported by batch-processor."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid5

import orjson

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotFound, ServiceError, Unavailable
from contracts import batches as contract
from contracts import json_texts
from contracts.json_texts import member
from contracts.scopes import Scope
from gateway.acceptance.acceptor import Acceptor, new_acceptance
from gateway.acceptance.repository import Acceptance
from gateway.batches import uploads
from gateway.batches.inputs import (
    BatchesQuery,
    BatchInput,
    CancelQuery,
    ResultsQuery,
    TaskInput,
    UploadQuery,
    payload_texts,
)
from gateway.batches.operations import OperationCatalogue
from gateway.batches.upload_service import UploadService
from gateway.http.calls import Call, Upload
from gateway.http.filters import BulkResult
from gateway.http.principal import Principal
from gateway.http.problems import invalid
from gateway.http.replies import JSON, NDJSON, Reply

_RUN_ITEMS = 1000
_UNIQUE = UUID("5f0c6a55-8f63-4f3b-9d0a-0d4a6f0a2b11")
_PAGE = 1000
_PAGE_S = 15
# The state of a task that is known is asked for so long; then the last one heard of is told.
_STATE_S = 1
# What is written out in a thread: the loop has other requests to serve.
_LARGE_BYTES = 64 * 1024
_CANCELLABLE: tuple[contract.BatchStatus, ...] = ("open", "validating", "queued", "running")
# One call cancels so many, a page of them at a time.
_MOST_CANCELLED = 1000
_BULK_PAGE = 200


class BatchService:
    """Accepts batches and tasks and reports on them, for every interface."""

    def __init__(
        self, acceptor: Acceptor, catalogue: OperationCatalogue, uploads: UploadService, rpc: RpcClient
    ) -> None:
        self._acceptor = acceptor
        self._catalogue = catalogue
        self._uploads = uploads
        self._rpc = rpc

    async def create(self, call: Call, query: UploadQuery, body: BatchInput | Upload) -> Reply:
        """Promise to run a batch, sent as one JSON document or streamed line by line."""
        if isinstance(body, Upload):
            if query.operation is None:
                raise invalid("/operation", "Name the operation of the upload: ?operation=…")
            await self._require(call.principal, query.operation)
            return await self._uploads.accept(call, query.operation, body)
        if query.operation is not None:
            raise invalid("/operation", "A JSON body names its operation itself: leave the parameter out.")
        return await self.accept(call, body)

    async def accept(self, call: Call, batch: BatchInput, *, name: str = "items") -> Reply:
        """Promise to run a batch that came as one document, whose items are its member `name`."""
        await self._require(call.principal, batch.operation)
        acceptance = new_acceptance(envelope.new_id(), call.principal, "batch", batch.operation)
        make = partial(
            _messages, acceptance, batch, _scopes(call.principal), document=call.document, name=name
        )
        messages = make() if len(call.document) < _LARGE_BYTES else await asyncio.to_thread(make)
        return await self._acceptor.accept(
            call, acceptance, messages, location=f"/v1/batches/{acceptance.id}"
        )

    async def create_task(self, call: Call, body: TaskInput) -> Reply:
        """Promise to run one item. The same `unique_key` of a caller is the same task."""
        return await self.accept_task(
            call, body, member(call.document, "payload", orjson.dumps(body.payload))
        )

    async def accept_task(self, call: Call, body: TaskInput, payload: bytes) -> Reply:
        """Promise to run one item, whose `payload` is written like this.

        Return the state of a task that has the `unique_key` already; raise `UniqueKeyInUse` if it differs.
        """
        await self._require(call.principal, body.operation)
        owner_id = call.principal.owner_id
        id_ = uuid5(_UNIQUE, f"{owner_id}:{body.unique_key}") if body.unique_key else envelope.new_id()
        acceptance = new_acceptance(id_, call.principal, "task", body.operation)
        if body.unique_key:
            content = orjson.dumps(body.payload, option=orjson.OPT_SORT_KEYS)
            acceptance = replace(acceptance, payload_hash=hashlib.sha256(content).digest())
            if await self._acceptor.find_earlier(call, acceptance):
                known = await self._find(call.principal, id_, "task", Deadline.after(_STATE_S))
                acceptance = replace(acceptance, status=known["status"])
        create = contract.CreateBatch(
            batch_id=id_,
            owner_id=owner_id,
            kind="task",
            operation=body.operation,
            accepted_at=acceptance.accepted_at,
            not_before=acceptance.accepted_at + timedelta(seconds=body.delay_s) if body.delay_s else None,
            priority=body.priority,
            scopes=_scopes(call.principal),
        )
        items = b'[{"payload":' + payload + b"}]"
        message = _with_items(envelope.command(create, message_id=id_, tenant=owner_id), items)
        reply = await self._acceptor.accept(call, acceptance, [message], location=f"/v1/tasks/{id_}")
        if body.unique_key and reply.is_replay:
            # Another request may have taken the key in the meantime.
            await self._acceptor.find_earlier(call, acceptance)
        return reply

    async def cancel(self, call: Call, batch_id: UUID) -> dict[str, Any]:
        """Ask for the end of a batch; items that have finished stay finished."""
        return await self._cancel(call, batch_id, "batch")

    async def cancel_task(self, call: Call, task_id: UUID) -> dict[str, Any]:
        """Ask for the end of a task that has not finished, also of one that waits for its time."""
        return await self._cancel(call, task_id, "task")

    async def _cancel(self, call: Call, id_: UUID, kind: contract.Kind) -> dict[str, Any]:
        call.principal.require(Scope.BATCHES_WRITE)
        batch = await self._find(call.principal, id_, kind, call.deadline)
        await self._promise_cancels(call, [id_])
        if batch["status"] in _CANCELLABLE:
            batch["status"] = "cancelling"
        return batch

    async def cancel_batches(self, call: Call, query: CancelQuery) -> BulkResult:
        """Ask for the end of all batches that fit."""
        return await self._cancel_all(call, query, "batch")

    async def cancel_tasks(self, call: Call, query: CancelQuery) -> BulkResult:
        """Ask for the end of all tasks that fit."""
        return await self._cancel_all(call, query, "task")

    async def _cancel_all(self, call: Call, query: CancelQuery, kind: contract.Kind) -> BulkResult:
        owner_id, wanted = call.principal.owner_id, query.wanted()
        question = contract.CountBatches(owner_id=owner_id, kind=kind, wanted=wanted)
        counts = (await self._rpc.call(question, contract.BatchCounts, call.deadline)).counts
        matched, possible = sum(counts.values()), sum(counts.get(status, 0) for status in _CANCELLABLE)
        if query.dry_run:
            return BulkResult(matched=matched, changed=possible, dry_run=True, complete=True)
        statuses = [status for status in _CANCELLABLE if counts.get(status)]
        ids: list[UUID] = []
        page = contract.ListBatches(
            owner_id=owner_id,
            kind=kind,
            wanted=wanted.model_copy(update={"statuses": statuses}),
            limit=_BULK_PAGE,
        )
        while statuses and len(ids) < _MOST_CANCELLED:
            found = await self._rpc.call(page, contract.Batches, call.deadline)
            ids += [batch.id for batch in found.data]
            page = page.model_copy(update={"cursor": found.next_cursor})
            if found.next_cursor is None:
                break
        await self._promise_cancels(call, ids)
        return BulkResult(matched=matched, changed=len(ids), dry_run=False, complete=page.cursor is None)

    async def _promise_cancels(self, call: Call, ids: Sequence[UUID]) -> None:
        owner_id = call.principal.owner_id
        commands = [
            envelope.command(contract.CancelBatch(batch_id=id_, owner_id=owner_id), tenant=owner_id)
            for id_ in ids
        ]
        await self._acceptor.promise(call.connection, call, commands)

    async def get(self, call: Call, batch_id: UUID) -> dict[str, Any]:
        """Return the caller's batch."""
        return await self.find(call.principal, batch_id, "batch", call.deadline)

    async def get_task(self, call: Call, task_id: UUID) -> dict[str, Any]:
        """Return the caller's task."""
        return await self.find(call.principal, task_id, "task", call.deadline)

    async def find(
        self, principal: Principal, id_: UUID, kind: contract.Kind, deadline: Deadline
    ) -> dict[str, Any]:
        """Return the caller's batch or task."""
        principal.require(Scope.BATCHES_READ)
        return await self._find(principal, id_, kind, deadline)

    async def _find(
        self, principal: Principal, id_: UUID, kind: contract.Kind, deadline: Deadline
    ) -> dict[str, Any]:
        # `queued` until batch-processor has seen it, `parked` if it cannot take it.
        accepted = await self._acceptor.find_own(id_, principal, kind)
        question = contract.GetBatch(batch_id=id_, owner_id=principal.owner_id, kind=kind)
        try:
            return _loads(await self._rpc.ask(question, deadline))
        except ServiceError as error:
            if accepted is None or not (isinstance(error, Unavailable) or error.status in (404, 504)):
                raise NotFound(f"There is no {kind} {id_}.") if error.status == 404 else error from None
            return _summary(accepted)

    async def list(self, call: Call, query: BatchesQuery) -> bytes:
        """Return a page of the caller's batches, newest first."""
        return await self._list(call, query, "batch")

    async def list_tasks(self, call: Call, query: BatchesQuery) -> bytes:
        """Return a page of the caller's tasks, newest first."""
        return await self._list(call, query, "task")

    async def _list(self, call: Call, query: BatchesQuery, kind: contract.Kind) -> bytes:
        question = contract.ListBatches(
            owner_id=call.principal.owner_id,
            kind=kind,
            wanted=query.wanted(),
            limit=query.limit,
            cursor=query.cursor,
        )
        return await self._rpc.ask(question, call.deadline)

    async def results(self, call: Call, batch_id: UUID, query: ResultsQuery) -> Reply:
        """Return results in input order: a page as JSON, or all of them one a line."""
        if call.media_type == JSON:
            return Reply(await self._page(call.principal, batch_id, query, call.deadline) + b"\n")
        await self.find(call.principal, batch_id, "batch", call.deadline)
        # The first page comes before the status: what is wrong with the cursor is still said as a problem.
        first = query.model_copy(update={"limit": _PAGE})
        page = await self._page(call.principal, batch_id, first, call.deadline)
        return Reply(self._all_results(call.principal, batch_id, query, page), media_type=NDJSON)

    async def operations(self, _: Call) -> dict[str, Any]:
        """Return the operations that batches and tasks may name."""
        return {"data": await self._catalogue.all(), "next_cursor": None}

    async def _require(self, principal: Principal, operation: str) -> None:
        principal.require(Scope.BATCHES_WRITE)
        await self._catalogue.require(operation, principal)

    async def _page(
        self, principal: Principal, batch_id: UUID, query: ResultsQuery, deadline: Deadline
    ) -> bytes:
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
            return b'{"data":[],"next_cursor":null,"complete":false}'

    async def _all_results(
        self, principal: Principal, batch_id: UUID, query: ResultsQuery, page: bytes
    ) -> AsyncIterator[bytes]:
        while True:
            found = _loads(page)
            rows = member(page, "data", orjson.dumps(found["data"]))
            yield b"".join(_lines(found["data"], rows))
            if found["next_cursor"] is None:
                return
            following = query.model_copy(update={"cursor": found["next_cursor"], "limit": _PAGE})
            page = await self._page(principal, batch_id, following, Deadline.after(_PAGE_S))


def _scopes(principal: Principal) -> list[str]:
    return sorted(principal.scopes)


def _messages(
    acceptance: Acceptance, batch: BatchInput, scopes: Sequence[str], *, document: bytes, name: str
) -> list[Outgoing]:
    """Return a small batch as one message, a larger one as runs of a thousand items with a seal behind."""
    written = member(document, name, orjson.dumps(batch.items))
    items = [
        b'{"payload":' + text + b"}"
        if item.custom_id is None
        else b'{"custom_id":' + orjson.dumps(item.custom_id) + b',"payload":' + text + b"}"
        for item, text in zip(batch.contract_items(), payload_texts(batch.items, written), strict=True)
    ]
    owner = acceptance.owner_id
    about: dict[str, Any] = {
        "batch_id": acceptance.id,
        "owner_id": owner,
        "operation": batch.operation,
        "accepted_at": acceptance.accepted_at,
        "options": batch.options,
        "scopes": list(scopes),
    }
    if len(items) <= _RUN_ITEMS:
        create = contract.CreateBatch(**about)
        whole = b"[" + b",".join(items) + b"]"
        return [_with_items(envelope.command(create, message_id=acceptance.id, tenant=owner), whole)]
    runs = [
        uploads.message(acceptance.id, owner, start, items[start : start + _RUN_ITEMS])
        for start in range(0, len(items), _RUN_ITEMS)
    ]
    return [*runs, envelope.command(contract.SealBatch(**about, total=len(items)), tenant=owner)]


def _with_items(command: Outgoing, items: bytes) -> Outgoing:
    """Return a command that had no items with these, written as the caller has written them."""
    return Outgoing(
        command.exchange,
        command.routing_key,
        command.body[:-1] + b',"items":' + items + b"}",
        command.message_type,
        command.message_id,
        command.headers,
    )


def _lines(rows: Sequence[Any], written: bytes) -> Iterator[bytes]:
    """Yield rows as lines, each value as it is written in the array `written`."""
    if written == orjson.dumps(rows):
        yield from (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        return
    for row in json_texts.elements(written.decode()):
        # A line break of JSON stands between values only, never within a text.
        yield row.replace("\r", " ").replace("\n", " ").encode() + b"\n"


def _loads(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(data)
    return found


def _summary(accepted: Acceptance) -> dict[str, Any]:
    return {
        "id": str(accepted.id),
        "kind": accepted.kind,
        "operation": accepted.operation,
        "status": accepted.status,
        "counts": None,
        "accepted_at": accepted.accepted_at,
        "next": _next(accepted),
        "detail_available": False,
        **({"reason": accepted.reason} if accepted.reason else {}),
    }


def _next(accepted: Acceptance) -> dict[str, Any] | None:
    if accepted.status == "queued":
        by = accepted.accepted_at + timedelta(seconds=contract.STORED_WITHIN_S)
        return {"what": "batch-processor takes it over", "by": by}
    return {"what": "an administrator decides", "by": None} if accepted.status == "parked" else None

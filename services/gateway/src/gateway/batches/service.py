"""Batches and tasks at the gateway: promised here, run and reported by batch-processor."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
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
from contracts import batches as contract
from contracts.json_texts import member
from contracts.scopes import Scope
from gateway.acceptance.acceptor import Acceptor, new_acceptance
from gateway.acceptance.repository import Acceptance
from gateway.batches import uploads
from gateway.batches.actions import BatchActions
from gateway.batches.inputs import (
    BatchesQuery,
    BatchInput,
    Checked,
    FollowUpInput,
    TaskInput,
    UploadQuery,
    payload_texts,
)
from gateway.batches.lookup import BatchLookup
from gateway.batches.open_uploads import OpenUploads
from gateway.batches.operations import OperationCatalogue
from gateway.batches.results import ResultReader
from gateway.batches.upload_service import UploadService
from gateway.http.calls import Call, Upload
from gateway.http.principal import Principal
from gateway.http.problems import invalid
from gateway.http.replies import Reply, document

_RUN_ITEMS = 1000
_UNIQUE = UUID("5f0c6a55-8f63-4f3b-9d0a-0d4a6f0a2b11")
# The state of a task that is known is asked for so long; then the last one heard of is told.
_STATE_S = 1
# What is written out in a thread: the loop has other requests to serve.
_LARGE_BYTES = 64 * 1024
# Between two looks at a task that its caller waits for.
_FIRST_LOOK_S = 0.02
_LONGEST_PAUSE_S = 0.25


class BatchService:
    """Accepts batches and tasks and reports on them, for every interface."""

    def __init__(
        self,
        acceptor: Acceptor,
        catalogue: OperationCatalogue,
        rpc: RpcClient,
        *,
        uploads: UploadService,
        open_uploads: OpenUploads,
    ) -> None:
        self._acceptor = acceptor
        self._catalogue = catalogue
        self._uploads = uploads
        self.open_uploads = open_uploads
        self._rpc = rpc
        self.lookup = BatchLookup(acceptor, rpc)
        self.actions = BatchActions(acceptor, self.lookup, rpc)
        self.results = ResultReader(acceptor, self.lookup, rpc)

    async def create(self, call: Call, query: UploadQuery, body: BatchInput | Upload) -> Reply:
        """Promise to run a batch, sent as one JSON document, streamed line by line, or still to be sent."""
        if query.only_check and (query.open or call.idempotency_key):
            raise invalid("/validate", "A check leaves nothing to open, or to repeat: leave it out.")
        if isinstance(body, Upload):
            if query.operation is None or query.open:
                raise invalid("/operation", "Name the operation of the upload: ?operation=…, without open.")
            await self._require(call.principal, query.operation)
            if query.only_check:
                return _checked(query.operation, await self._uploads.check(body), is_upload=True)
            return await self._uploads.accept(call, query.operation, body)
        if query.operation is not None:
            raise invalid("/operation", "A JSON body names its operation itself: leave the parameter out.")
        if query.open == bool(body.items):
            raise invalid("/items", "Send items; with open=true they follow, and none is sent here.")
        if query.open:
            return await self._open(call, body)
        if query.only_check:
            await self._require(call.principal, body.operation)
            await self._require_follow_up(call.principal, body.on_finished)
            return _checked(body.operation, len(body.items), is_upload=False)
        return await self.accept(call, body)

    async def _open(self, call: Call, batch: BatchInput) -> Reply:
        await self._require(call.principal, batch.operation)
        await self._require_follow_up(call.principal, batch.on_finished)
        acceptance = new_acceptance(envelope.new_id(), call.principal, "batch", batch.operation)
        about = _about(acceptance, batch, _scopes(call.principal), call.document)
        create = contract.CreateBatch(**about)
        return await self.open_uploads.open(call, replace(acceptance, status="open"), create)

    async def accept(self, call: Call, batch: BatchInput, *, name: str = "items") -> Reply:
        """Promise to run a batch that came as one document, whose items are its member `name`."""
        await self._require(call.principal, batch.operation)
        await self._require_follow_up(call.principal, batch.on_finished)
        acceptance = new_acceptance(envelope.new_id(), call.principal, "batch", batch.operation)
        make = partial(
            _messages, acceptance, batch, _scopes(call.principal), document=call.document, name=name
        )
        messages = make() if len(call.document) < _LARGE_BYTES else await asyncio.to_thread(make)
        return await self._acceptor.accept(
            call, acceptance, messages, location=f"/v1/batches/{acceptance.id}"
        )

    async def create_task(self, call: Call, body: TaskInput) -> Reply:
        """Promise to run one item, and wait for its result when the caller prefers to."""
        payload = member(call.document, "payload", orjson.dumps(body.payload))
        reply = await self.accept_task(call, body, payload)
        return await self._wait_for_end(call, reply) if call.prefers_wait else reply

    async def _wait_for_end(self, call: Call, accepted: Reply) -> Reply:
        """Return the task when it ends in time, else what was answered to its acceptance."""
        assert isinstance(accepted.body, bytes)
        task_id = UUID(orjson.loads(accepted.body)["id"])
        pause_s = _FIRST_LOOK_S
        while call.deadline.remaining_s() > pause_s:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            task = await self.lookup.read(call.principal, task_id, "task", call.deadline)
            if isinstance(task, bytes) and orjson.loads(task)["status"] in contract.FINISHED:
                return replace(
                    accepted, body=document(task), status=200, headers={"preference-applied": "wait"}
                )
        return accepted

    async def accept_task(self, call: Call, body: TaskInput, payload: bytes) -> Reply:
        """Promise to run one item, whose `payload` is written like this.

        Return the state of a task that has the `unique_key` already; raise `UniqueKeyInUse` if it differs.
        """
        await self._require(call.principal, body.operation)
        await self._require_follow_up(call.principal, body.on_finished)
        owner_id = call.principal.owner_id
        id_ = uuid5(_UNIQUE, f"{owner_id}:{body.unique_key}") if body.unique_key else envelope.new_id()
        acceptance = new_acceptance(id_, call.principal, "task", body.operation)
        if body.unique_key:
            content = orjson.dumps(body.payload, option=orjson.OPT_SORT_KEYS)
            acceptance = replace(acceptance, payload_hash=hashlib.sha256(content).digest())
            if await self._acceptor.find_earlier(call, acceptance):
                known = await self.lookup.find(call.principal, id_, "task", Deadline.after(_STATE_S))
                acceptance = replace(acceptance, status=known["status"])
        delayed_until = acceptance.accepted_at + timedelta(seconds=body.delay_s)
        create = contract.CreateBatch(
            batch_id=id_,
            owner_id=owner_id,
            kind="task",
            operation=body.operation,
            accepted_at=acceptance.accepted_at,
            not_before=delayed_until if body.delay_s else body.run_at,
            priority=body.priority,
            scopes=_scopes(call.principal),
            metadata=body.metadata,
            expires_at=body.expires_at,
            on_finished=_follow_up(body.on_finished, call.document),
        )
        items = b'[{"payload":' + payload + b"}]"
        message = _with_items(envelope.command(create, message_id=id_, tenant=owner_id), items)
        reply = await self._acceptor.accept(call, acceptance, [message], location=f"/v1/tasks/{id_}")
        if body.unique_key and reply.is_replay:
            # Another request may have taken the key in the meantime.
            await self._acceptor.find_earlier(call, acceptance)
        return reply

    async def get(self, call: Call, batch_id: UUID) -> bytes | dict[str, Any]:
        """Return the caller's batch."""
        return await self.lookup.read(call.principal, batch_id, "batch", call.deadline)

    async def get_task(self, call: Call, task_id: UUID) -> bytes | dict[str, Any]:
        """Return the caller's task, its result as it was stored."""
        return await self.lookup.read(call.principal, task_id, "task", call.deadline)

    async def find(
        self, principal: Principal, id_: UUID, kind: contract.Kind, deadline: Deadline
    ) -> dict[str, Any]:
        """Return the caller's batch or task."""
        principal.require(Scope.BATCHES_READ)
        return await self.lookup.find(principal, id_, kind, deadline)

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

    async def operations(self, _: Call) -> dict[str, Any]:
        """Return the operations that batches and tasks may name."""
        return {"data": await self._catalogue.all(), "next_cursor": None}

    async def _require_follow_up(self, principal: Principal, wanted: FollowUpInput | None) -> None:
        if wanted is not None:
            await self._catalogue.require(wanted.operation, principal, pointer="/on_finished/operation")

    async def _require(self, principal: Principal, operation: str) -> None:
        principal.require(Scope.BATCHES_WRITE)
        await self._catalogue.require(operation, principal)


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
    about = _about(acceptance, batch, scopes, document)
    if len(items) <= _RUN_ITEMS:
        create = contract.CreateBatch(**about)
        whole = b"[" + b",".join(items) + b"]"
        return [_with_items(envelope.command(create, message_id=acceptance.id, tenant=owner), whole)]
    runs = [
        uploads.message(acceptance.id, owner, start, items[start : start + _RUN_ITEMS])
        for start in range(0, len(items), _RUN_ITEMS)
    ]
    return [*runs, envelope.command(contract.SealBatch(**about, total=len(items)), tenant=owner)]


def _about(
    acceptance: Acceptance, batch: BatchInput, scopes: Sequence[str], document: bytes
) -> dict[str, Any]:
    """Return what a `CreateBatch` and a `SealBatch` say of the batch."""
    return {
        "batch_id": acceptance.id,
        "owner_id": acceptance.owner_id,
        "operation": batch.operation,
        "accepted_at": acceptance.accepted_at,
        "options": batch.options,
        "scopes": list(scopes),
        "metadata": batch.metadata,
        "expires_at": batch.expires_at,
        "on_finished": _follow_up(batch.on_finished, document),
    }


def _checked(operation: str, items: int, *, is_upload: bool) -> Reply:
    return Reply(
        document(Checked(operation=operation, items=items, custom_ids_compared=not is_upload)), status=200
    )


def _follow_up(wanted: FollowUpInput | None, document: bytes) -> contract.FollowUp | None:
    """Return the task that follows, its payload as it is written in the member `on_finished`."""
    if wanted is None:
        return None
    written = member(document, "on_finished", orjson.dumps(wanted.model_dump()))
    payload = member(written, "payload", orjson.dumps(wanted.payload))
    return contract.FollowUp(operation=wanted.operation, payload=payload.decode())


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

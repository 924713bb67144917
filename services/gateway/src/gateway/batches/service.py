"""Batches and tasks at the gateway: accepted here, run and reported by batch-processor."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from chassis.broker import envelope
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import Conflict, InvalidInput, NotFound, Unavailable
from contracts import batches as contract
from contracts.scopes import Scope
from gateway.acceptance.acceptor import Acceptor, new_acceptance
from gateway.batches import commands
from gateway.batches.actions import BatchActions
from gateway.batches.inputs import (
    BatchesQuery,
    BatchInput,
    Checked,
    SourceInput,
)
from gateway.batches.lookup import BatchLookup, revision_of, taken_over
from gateway.batches.open_uploads import OpenUploads
from gateway.batches.operations import OperationCatalogue
from gateway.batches.results import ResultReader
from gateway.batches.task_service import TaskService
from gateway.batches.upload_inputs import UploadQuery
from gateway.batches.upload_service import BatchUploadService
from gateway.errors import UnknownOperation
from gateway.http.calls import Call, Upload
from gateway.http.principal import Principal
from gateway.http.problems import invalid
from gateway.http.replies import HttpReply, document, entity_tag
from gateway.publishing.hub import Hub


class BatchService:
    """Accepts batches and tasks and reports on them, for every interface."""

    def __init__(
        self,
        acceptor: Acceptor,
        catalogue: OperationCatalogue,
        rpc: RpcClient,
        *,
        uploads: BatchUploadService,
        open_uploads: OpenUploads,
        hub: Hub,
    ) -> None:
        self._acceptor = acceptor
        self._catalogue = catalogue
        self._uploads = uploads
        self.open_uploads = open_uploads
        self._rpc = rpc
        self.lookup = BatchLookup(acceptor, rpc)
        self.actions = BatchActions(acceptor, catalogue, self.lookup, rpc)
        self.results = ResultReader(acceptor, self.lookup, rpc)
        self.tasks = TaskService(acceptor, catalogue, self.lookup, hub)

    async def create(self, call: Call, query: UploadQuery, body: BatchInput | Upload) -> HttpReply:
        """Accept a batch that is sent as one JSON document, streamed line by line, or sent later."""
        if query.only_check and (query.open or call.idempotency_key):
            raise invalid(
                "/validate", "A dry run stores nothing, so it cannot be opened or repeated: leave this out."
            )
        if isinstance(body, Upload):
            if query.operation is None or query.open:
                raise invalid("/operation", "Name the operation of the upload: ?operation=…, without open.")
            terms, written = query.read_terms()
            try:
                await self._catalogue.permit(call.principal, terms.operation, following=terms.on_finished)
                commands.require_time(terms.expires_at)
            except (InvalidInput, UnknownOperation):
                # Its body must be read to know whether it is the upload that was accepted then.
                if (again := await self._uploads.answer_again(call, body, terms.operation)) is None:
                    raise
                return again
            check = await self._catalogue.check_of(terms.operation)
            if query.only_check:
                return _checked(terms.operation, await self._uploads.check(call, body, check), is_upload=True)
            return await self._uploads.accept(call, body, terms, written, check)
        query.require_nothing_of_uploads()
        if [query.open, bool(body.items), body.source is not None].count(True) != 1:
            raise invalid("/items", "Send items or a source; with open=true the items follow later.")
        commands.require_time(body.expires_at)
        items: int | None = len(body.items)
        if body.source is not None:
            items = await self._require_source(call, body.source)
        if query.open:
            await self._permit(call.principal, body)
            acceptance = new_acceptance(envelope.new_id(), call.principal, "batch", body.operation)
            describe = partial(commands.description, acceptance, body, call.principal, call.document)
            create = contract.CreateBatch(**await call.compute(describe))
            return await self.open_uploads.open(call, replace(acceptance, status="open"), create)
        if query.only_check:
            await self._permit(call.principal, body)
            if items is None:
                raise Unavailable(
                    "The items of the source cannot be counted now; try again.", retry_after_s=5
                )
            return _checked(body.operation, items, is_upload=False)
        return await self.accept(call, body)

    async def _require_source(self, call: Call, source: SourceInput) -> int | None:
        """Return how many items the source has; None while batch-processor cannot be reached."""
        call.principal.require(Scope.BATCHES_READ)
        try:
            found = await self.lookup.find(call.principal, source.batch_id, "batch", call.deadline)
        except NotFound as error:
            raise invalid("/source/batch_id", error.detail) from None
        if found["status"] not in contract.FINISHED:
            raise Conflict(
                f"Batch {source.batch_id} is {found['status']}: wait until it has ended.", retry_after_s=5
            )
        return None if found["counts"] is None else int(found["counts"][source.status])

    async def accept(self, call: Call, batch: BatchInput, *, name: str = "items") -> HttpReply:
        """Accept a batch that was sent as one document with the items in its member `name`."""
        await self._permit(call.principal, batch, name)
        acceptance = new_acceptance(envelope.new_id(), call.principal, "batch", batch.operation)
        make = partial(
            commands.of_batch, acceptance, batch, call.principal, document=call.document, name=name
        )
        messages = await call.compute(make)
        return await self._acceptor.accept(
            call,
            acceptance,
            messages,
            location=f"/v1/batches/{acceptance.id}",
            following=taken_over(since=acceptance.accepted_at),
        )

    async def get(self, call: Call, batch_id: UUID) -> bytes | dict[str, Any]:
        """Return the caller's batch."""
        return await self.lookup.read(call.principal, batch_id, "batch", call.deadline)

    async def get_task(self, call: Call, task_id: UUID) -> HttpReply:
        """Return the caller's task, its result as it was stored."""
        found = await self.lookup.read(call.principal, task_id, "task", call.deadline)
        body = document(found)
        # A task that is not stored yet has no version.
        return HttpReply(
            body, etag=entity_tag(body, revision_of(found)) if isinstance(found, bytes) else None
        )

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

    async def _permit(self, principal: Principal, batch: BatchInput, name: str = "items") -> None:
        await self._catalogue.permit(
            principal, batch.operation, partial(batch.payloads, name), following=batch.on_finished
        )

    async def operations(self, _: Call) -> dict[str, Any]:
        """Return the operations that batches and tasks may name."""
        return {"data": await self._catalogue.all(), "next_cursor": None}


def _checked(operation: str, items: int, *, is_upload: bool) -> HttpReply:
    return HttpReply(
        document(Checked(operation=operation, items=items, custom_ids_compared=not is_upload)), status=200
    )

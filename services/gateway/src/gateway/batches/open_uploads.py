"""Uploads in several requests: opened, appended to, sealed or left to expire."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn
from uuid import UUID

from chassis import logging
from chassis.broker import envelope
from chassis.broker.publisher import Publisher
from chassis.errors import Conflict, DatabaseUnavailable, NotFound, PayloadTooLarge, TooManyAtOnce
from chassis.postgres import Connection, Postgres
from contracts import batches as contract
from gateway.acceptance.acceptor import Acceptor
from gateway.acceptance.repository import Acceptance
from gateway.batches import repository, upload_claims, uploads
from gateway.batches.backlog import Backlog
from gateway.batches.cutting import Cutter
from gateway.batches.lookup import taken_over
from gateway.batches.operations import OperationCatalogue
from gateway.batches.payload_checks import PayloadCheck
from gateway.batches.repository import UploadState
from gateway.batches.upload_inputs import AppendQuery, UploadProgress
from gateway.batches.upload_turns import UploadTurns
from gateway.errors import UploadOffsetMismatch
from gateway.http.calls import Call, Upload
from gateway.http.principal import Principal
from gateway.http.replies import HttpReply, document

log = logging.get(__name__)

# Each keeps its last line, if that is incomplete, until it is sealed or its batch ends.
MOST_OPEN_OF_OWNER = 100
# How often the offset is saved from which an interrupted upload continues.
_SAVE_EVERY_S = 1.0


class OpenUploads:
    """Appends to open batches. Bytes before the reported offset never need to be sent again."""

    def __init__(
        self,
        postgres: Postgres,
        acceptor: Acceptor,
        publisher: Publisher,
        *,
        catalogue: OperationCatalogue,
        turns: UploadTurns,
        backlog: Backlog,
    ) -> None:
        self._postgres = postgres
        self._acceptor = acceptor
        self._publisher = publisher
        self._catalogue = catalogue
        self._turns = turns
        self._backlog = backlog

    async def open(self, call: Call, acceptance: Acceptance, create: contract.CreateBatch) -> HttpReply:
        """Promise a batch whose items follow. Raise `TooManyAtOnce` when the owner has too many open."""
        seal = contract.SealBatch(total=0, **create.model_dump(exclude={"not_before", "priority", "items"}))
        # Before the acceptance: an upload without one cannot be found by anybody, and is removed in time.
        async with self._postgres.transaction() as connection:
            if await repository.count_uploads(connection, acceptance.owner_id) >= MOST_OPEN_OF_OWNER:
                raise TooManyAtOnce(
                    f"You have {MOST_OPEN_OF_OWNER} uploads open; seal or cancel some of them.",
                    retry_after_s=60,
                )
            await repository.create_upload(
                connection, acceptance.id, acceptance.owner_id, seal.model_dump_json()
            )
        message = envelope.command(create, message_id=acceptance.id, tenant=acceptance.owner_id)
        return await self._acceptor.accept(
            call,
            acceptance,
            [message],
            location=f"/v1/batches/{acceptance.id}",
            following=taken_over(since=acceptance.accepted_at),
        )

    async def get(self, call: Call, batch_id: UUID) -> UploadProgress:
        """Return the progress of an upload."""
        await self._require_open(call.principal, batch_id)
        async with self._postgres.connection() as connection:
            found = await repository.find_upload(connection, batch_id, call.principal.owner_id)
        if found is None:
            raise _not_open(batch_id)
        return _progress(batch_id, found[0])

    async def append(self, call: Call, batch_id: UUID, query: AppendQuery, body: Upload) -> UploadProgress:
        """Append the lines of `body` at the end of an upload, which must be `query.offset`."""
        check = await self._require_right(call.principal, batch_id)
        writer = envelope.new_id()
        with self._turns.room(call.principal.owner_id):
            async with upload_claims.renewed(partial(self._renew, batch_id, writer)):
                return await self._append(call, batch_id, query, body, check, writer=writer)

    async def _append(
        self,
        call: Call,
        batch_id: UUID,
        query: AppendQuery,
        body: Upload,
        check: PayloadCheck | None,
        *,
        writer: UUID,
    ) -> UploadProgress:
        owner_id = call.principal.owner_id
        async with self._postgres.connection() as connection:
            state = await repository.claim_upload(
                connection, batch_id, owner_id, offset=query.offset, writer=writer
            )
        if state is None:
            await self._refuse(batch_id, owner_id, query.offset)
        cutter = Cutter(state.items, state.lines, state.rest, state.size - len(state.rest), check=check)
        saved_at = time.monotonic()
        try:
            source = uploads.UploadParts(body.parts, body.has_read, body.digest)
            unpacked = uploads.unpacked(source, body)
            async for run in uploads.cut(unpacked, cutter, self._turns, owner_id=owner_id):
                body.require_within_limit()
                if run.end > body.limit:
                    raise PayloadTooLarge(f"An upload may have at most {body.limit} bytes in all.")
                # Back-pressure: a client that is faster than batch-processor or the broker waits for them.
                await self._backlog.wait_for_room(owner_id)
                await self._publisher.publish(uploads.append(batch_id, owner_id, run))
                state = UploadState(run.end, run.offset + len(run.items), run.last_line)
                if time.monotonic() - saved_at <= _SAVE_EVERY_S:
                    continue
                saved_at = time.monotonic()
                if not await self._save(batch_id, writer, state, goes_on=True):
                    await self._refuse(batch_id, owner_id, query.offset)
            body.require_within_limit()
            for run in cutter.flush():
                await self._backlog.wait_for_room(owner_id)
                await self._publisher.publish(uploads.append(batch_id, owner_id, run))
            state = UploadState(cutter.end + len(cutter.rest), cutter.total, cutter.line_number, cutter.rest)
        finally:
            # Also after an interruption: the next request continues after the last published run.
            is_ours = await self._save(batch_id, writer, state, goes_on=False)
        if not is_ours:
            await self._refuse(batch_id, owner_id, query.offset)
        return _progress(batch_id, state)

    async def seal(self, call: Call, batch_id: UUID) -> HttpReply:
        """End an upload: its batch runs once all of it is stored."""
        owner_id = call.principal.owner_id
        check = await self._require_right(call.principal, batch_id)

        async def take(connection: Connection) -> None:
            taken = await repository.take_upload(connection, batch_id, owner_id)
            if taken is None:
                found = await repository.find_upload(connection, batch_id, owner_id)
                raise _not_open(batch_id) if found is None else _written(batch_id)
            about, state = taken
            cutter = Cutter(state.items, state.lines, state.rest, state.size - len(state.rest), check=check)
            messages = [uploads.append(batch_id, owner_id, run) for run in await uploads.finish(cutter)]
            seal = contract.SealBatch.model_validate_json(about).model_copy(update={"total": cutter.total})
            messages.append(envelope.command(seal, tenant=owner_id))
            await self._acceptor.promise(connection, call, messages)

        call.writes.append(take)
        answer = {"id": str(batch_id), "status": "queued", "next": taken_over(since=datetime.now(UTC))}
        return HttpReply(document(answer), location=f"/v1/batches/{batch_id}")

    async def _require_right(self, principal: Principal, batch_id: UUID) -> PayloadCheck | None:
        """Return the check of payloads of an upload, which the caller has the scopes to run.

        Another key of the owner may have opened it, with scopes that this one does not have.
        """
        operation = await self._require_open(principal, batch_id)
        await self._catalogue.require(operation, principal)
        return await self._catalogue.check_of(operation)

    async def _require_open(self, principal: Principal, batch_id: UUID) -> str:
        """Return the operation of a batch that may be open. Raise `NotFound` or `Conflict`."""
        accepted = await self._acceptor.find_own(batch_id, principal, "batch")
        if accepted is None:
            raise NotFound(f"There is no batch {batch_id}.")
        if accepted.status in contract.FINISHED:
            raise Conflict(f"Batch {batch_id} is {accepted.status} and cannot be appended to.")
        return accepted.operation or ""

    async def _refuse(self, batch_id: UUID, owner_id: str, offset: int) -> NoReturn:
        async with self._postgres.connection() as connection:
            found = await repository.find_upload(connection, batch_id, owner_id)
        if found is None:
            raise _not_open(batch_id)
        state, is_written = found
        if is_written:
            raise _written(batch_id)
        raise UploadOffsetMismatch(
            f"The upload has {state.size} bytes, not {offset}: continue from there.",
            headers={"upload-offset": str(state.size)},
        )

    async def _renew(self, batch_id: UUID, writer: UUID) -> None:
        async with self._postgres.connection() as connection:
            await repository.renew_upload(connection, batch_id, writer)

    async def _save(self, batch_id: UUID, writer: UUID, state: UploadState, *, goes_on: bool) -> bool:
        """Store the progress of a writer; return False if another one has taken over."""
        try:
            async with self._postgres.connection() as connection:
                return await repository.save_upload(connection, batch_id, writer, state, goes_on=goes_on)
        except DatabaseUnavailable as error:
            # Items that are sent twice count once, and the claim expires by itself.
            log.warning("upload offset could not be saved", batch_id=str(batch_id), reason=error.detail)
            if not goes_on:
                raise
            return True


def _progress(batch_id: UUID, state: UploadState) -> UploadProgress:
    return UploadProgress(id=batch_id, offset=state.size, items=state.items)


def _not_open(batch_id: UUID) -> Conflict:
    return Conflict(f"Batch {batch_id} accepts no more items: it was sealed, or not opened with open=true.")


def _written(batch_id: UUID) -> Conflict:
    detail = f"Another request is appending to batch {batch_id}, or was until its gateway died; try again."
    return Conflict(detail, retry_after_s=5)

"""Acceptance of a streamed batch: items are forwarded as they arrive, and count once all have arrived."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from chassis import logging, metrics
from chassis.broker import envelope
from chassis.broker.publisher import Publisher
from chassis.errors import Unavailable
from contracts import batches as contract
from gateway.acceptance.acceptor import Acceptor, new_acceptance
from gateway.acceptance.idempotency import stored_reply
from gateway.acceptance.repository import Acceptance
from gateway.batches import commands, upload_claims, uploads
from gateway.batches.backlog import Backlog
from gateway.batches.cutting import Cutter, Run
from gateway.batches.inputs import BatchTerms
from gateway.batches.lookup import taken_over
from gateway.batches.payload_checks import PayloadCheck
from gateway.batches.upload_turns import UploadTurns
from gateway.http.calls import Call, IdempotencyKey, Upload
from gateway.http.replies import HttpReply

log = logging.get(__name__)


@dataclass(frozen=True)
class _Arriving:
    """An arriving upload: its batch, its idempotency key, and the source of its bytes."""

    call: Call
    acceptance: Acceptance
    source: uploads.UploadParts
    body: Upload

    @property
    def key(self) -> str | None:
        """The caller's name for this request."""
        return self.call.idempotency_key.key if self.call.idempotency_key else None

    @property
    def claim(self) -> bytes:
        """The token that distinguishes this request's claim of the key from others."""
        return self.acceptance.id.bytes

    def hash_what_was_read(self) -> None:
        """Put the hash of everything that was read into the idempotency key."""
        if self.key is not None:
            self.call.idempotency_key = IdempotencyKey(self.key, self.body.digest.digest())


class BatchUploadService:
    """Accepts NDJSON uploads: items are forwarded as they arrive, and take effect once all have arrived."""

    def __init__(
        self, acceptor: Acceptor, publisher: Publisher, turns: UploadTurns, backlog: Backlog
    ) -> None:
        self._acceptor = acceptor
        self._publisher = publisher
        self._turns = turns
        self._backlog = backlog

    async def accept(
        self,
        call: Call,
        body: Upload,
        terms: BatchTerms,
        written: bytes,
        check: PayloadCheck | None = None,
    ) -> HttpReply:
        """Accept a batch of the lines in `body`; if the upload fails, all of it is removed.

        `written` is the JSON document from which `terms` were read.
        """
        upload = _arriving(call, body, terms.operation)
        acceptance = upload.acceptance
        about = commands.description(acceptance, terms, call.principal, written)
        with self._turns.room(acceptance.owner_id):
            if upload.key and not await self._acceptor.begin(acceptance.owner_id, upload.key, upload.claim):
                return await self._repeat(upload, upload.key)
            renew = partial(self._acceptor.renew, acceptance.owner_id, upload.key or "", upload.claim)
            try:
                async with upload_claims.renewed(renew) if upload.key else nullcontext():
                    total = await self._stream(upload, Cutter(check=check))
                return await self._seal(upload, contract.SealBatch(**about, total=total))
            except BaseException:
                await self._abandon(upload)
                raise

    async def answer_again(self, call: Call, body: Upload, operation: str) -> HttpReply | None:
        """Return the stored answer to an upload that was accepted before; None if there is none.

        Raise `IdempotencyMismatch` if its key was used for something else.
        """
        key = call.idempotency_key
        if key is None or await self._acceptor.find_answer(call.principal.owner_id, key.key) is None:
            return None
        return await self._repeat(_arriving(call, body, operation), key.key)

    async def check(self, call: Call, body: Upload, check: PayloadCheck | None = None) -> int:
        """Return the number of items in `body`; nothing is stored. Raise the same errors as `accept`."""
        cutter, owner_id = Cutter(check=check), call.principal.owner_id
        source = uploads.unpacked(uploads.UploadParts(body.parts, body.has_read, body.digest), body)
        with self._turns.room(owner_id):
            async for _ in uploads.cut(source, cutter, self._turns, owner_id=owner_id):
                body.require_within_limit()
        body.require_within_limit()
        await uploads.finish(cutter)
        return cutter.total

    async def _repeat(self, upload: _Arriving, key: str) -> HttpReply:
        answered = await self._acceptor.find_answer(upload.acceptance.owner_id, key)
        if answered is not None and answered.status is not None:
            # The whole body must be read to compare it with the first request.
            async for _ in upload.source:
                upload.body.require_within_limit()
        upload.hash_what_was_read()
        assert upload.call.idempotency_key is not None
        return stored_reply(answered, upload.call.idempotency_key)

    async def _stream(self, upload: _Arriving, cutter: Cutter) -> int:
        id_, owner = upload.acceptance.id, upload.acceptance.owner_id
        async for run in _runs(upload, cutter, self._turns):
            upload.body.require_within_limit()
            # Back-pressure: a client that is faster than batch-processor or the broker waits for them.
            await self._backlog.wait_for_room(owner)
            await self._publisher.publish(uploads.append(id_, owner, run))
        upload.body.require_within_limit()
        return cutter.total

    async def _seal(self, upload: _Arriving, seal: contract.SealBatch) -> HttpReply:
        acceptance = upload.acceptance
        message = envelope.command(seal, message_id=acceptance.id, tenant=acceptance.owner_id)
        upload.hash_what_was_read()
        location = f"/v1/batches/{acceptance.id}"
        return await self._acceptor.accept(
            upload.call,
            acceptance,
            [message],
            location=location,
            following=taken_over(since=acceptance.accepted_at),
            claim=upload.claim,
        )

    async def _abandon(self, upload: _Arriving) -> None:
        metrics.ACCEPTED.labels("abandoned-upload").inc()
        acceptance = upload.acceptance
        message = contract.AbandonBatch(batch_id=acceptance.id, owner_id=acceptance.owner_id)
        outgoing = envelope.command(message, tenant=acceptance.owner_id)
        try:
            await self._acceptor.abandon(acceptance, upload.key, upload.claim, [outgoing])
        except Unavailable as error:
            # An upload that is never sealed expires at batch-processor.
            log.warning("upload could not be abandoned", batch_id=str(acceptance.id), reason=error.detail)


def _arriving(call: Call, body: Upload, operation: str) -> _Arriving:
    acceptance = new_acceptance(envelope.new_id(), call.principal, "batch", operation)
    source = uploads.UploadParts(body.parts, body.has_read, body.digest)
    return _Arriving(call, acceptance, source, body)


async def _runs(upload: _Arriving, cutter: Cutter, turns: UploadTurns) -> AsyncIterator[Run]:
    source, owner_id = uploads.unpacked(upload.source, upload.body), upload.acceptance.owner_id
    async for run in uploads.cut(source, cutter, turns, owner_id=owner_id):
        yield run
    for run in await uploads.finish(cutter):
        yield run

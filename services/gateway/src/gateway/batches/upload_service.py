"""Accepting a streamed batch: its items go out while they come in, and count only once all are there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from chassis import logging, metrics
from chassis.broker import envelope
from chassis.broker.rabbitmq import Publisher
from chassis.errors import Unavailable
from contracts import batches as contract
from gateway.acceptance import idempotency
from gateway.acceptance.acceptor import Accepted, Acceptor, batch_answer, new_acceptance, replay
from gateway.acceptance.idempotency import IdempotencyKey
from gateway.acceptance.repository import Acceptance, AcceptanceRepository
from gateway.batches import uploads
from gateway.http.bodies import Body
from gateway.http.principal import Principal

log = logging.get(__name__)

_RENEW_EVERY_S = 60.0


@dataclass(frozen=True)
class _Upload:
    """An upload on its way: what it will be, its idempotency key, and where its bytes come from."""

    acceptance: Acceptance
    key: str | None
    source: uploads.Source
    body: Body

    @property
    def claim(self) -> bytes:
        """What tells this request's claim of the key from that of another."""
        return self.acceptance.id.bytes

    def idempotency_key(self) -> IdempotencyKey | None:
        """The key with the hash of all that was read."""
        return IdempotencyKey(self.key, self.source.digest.digest()) if self.key else None


class UploadService:
    """Takes NDJSON uploads in."""

    def __init__(self, acceptor: Acceptor, repository: AcceptanceRepository, publisher: Publisher) -> None:
        self._acceptor = acceptor
        self._repository = repository
        self._publisher = publisher

    async def accept(
        self, principal: Principal, operation: str, body: Body, parts: AsyncIterator[bytes], key: str | None
    ) -> Accepted:
        """Promise to run a batch of the lines in `parts`; nothing of it is left when the upload fails."""
        path = f"POST /v1/batches?operation={operation}"
        claimed = idempotency.read(key, path, b"")
        upload = _Upload(
            acceptance=new_acceptance(envelope.new_id(), principal, "batch", operation),
            key=claimed.key if claimed else None,
            source=uploads.Source(parts, body.has_read, idempotency.hasher(path)),
            body=body,
        )
        if upload.key and not await self._repository.begin(principal.owner_id, upload.key, upload.claim):
            return await self._replay(upload)
        try:
            return await self._seal(upload, await self._stream(upload))
        except BaseException:
            await self._abandon(upload)
            raise

    async def _replay(self, upload: _Upload) -> Accepted:
        assert upload.key is not None
        answered = await self._acceptor.answered(upload.acceptance.owner_id, upload.key)
        # Only all of the body tells whether it is the same.
        async for _ in upload.source:
            upload.body.require_within(None)
        key = upload.idempotency_key()
        assert key is not None
        return replay(answered, key)

    async def _stream(self, upload: _Upload) -> int:
        id_, owner = upload.acceptance.id, upload.acceptance.owner_id
        cutter = uploads.Cutter()
        offset, renewed_at = 0, time.monotonic()
        async for run in uploads.cut(aiter(upload.source), cutter):
            upload.body.require_within(None)
            # Waiting for the broker's confirm here is what slows a client that is faster than the broker.
            await self._publisher.publish(uploads.message(id_, owner, offset, run))
            offset += len(run)
            if upload.key and time.monotonic() - renewed_at > _RENEW_EVERY_S:
                renewed_at = time.monotonic()
                await self._repository.renew(owner, upload.key, upload.claim)
        upload.body.require_within(None)
        return cutter.total

    async def _seal(self, upload: _Upload, total: int) -> Accepted:
        acceptance = upload.acceptance
        seal = contract.SealBatch(
            batch_id=acceptance.id,
            owner_id=acceptance.owner_id,
            operation=acceptance.operation or "",
            accepted_at=acceptance.accepted_at,
            total=total,
        )
        message = envelope.command(seal, message_id=acceptance.id, tenant=acceptance.owner_id)
        return await self._acceptor.accept(
            acceptance,
            [message],
            key=upload.idempotency_key(),
            answer=batch_answer(acceptance),
            claim=upload.claim,
        )

    async def _abandon(self, upload: _Upload) -> None:
        metrics.ACCEPTED.labels("abandoned-upload").inc()
        acceptance = upload.acceptance
        message = contract.AbandonBatch(batch_id=acceptance.id, owner_id=acceptance.owner_id)
        outgoing = envelope.command(message, tenant=acceptance.owner_id)
        try:
            await self._acceptor.abandon(acceptance, upload.key, upload.claim, [outgoing])
        except Unavailable as error:
            # An upload that is never sealed expires at batch-processor.
            log.warning("upload not abandoned", batch_id=str(acceptance.id), reason=error.detail)

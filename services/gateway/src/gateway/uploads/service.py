"""Files for mails: forwarded to email as they arrive, and usable once complete."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from chassis import logging
from chassis.broker import envelope
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import (
    DatabaseUnavailable,
    InvalidInput,
    NotFound,
    Unavailable,
)
from chassis.postgres import Postgres
from contracts.mail import MOST_UPLOAD_BYTES, Mail
from contracts.message import FieldError
from contracts.uploads import OpenedUpload, OpenUpload
from gateway.acceptance import repository as acceptances
from gateway.acceptance.acceptor import Acceptor
from gateway.acceptance.idempotency import stored_reply
from gateway.errors import IdempotencyConflict, UploadStalled
from gateway.http.byte_room import StreamRoom
from gateway.http.calls import Call, IdempotencyKey, Upload
from gateway.http.replies import HttpReply, document
from gateway.http.shared_bytes import SharedBytes
from gateway.uploads import repository
from gateway.uploads.inputs import UploadView
from gateway.uploads.transfer import Transfer

log = logging.get(__name__)

# The most concurrent uploads, of all owners and of one.
MOST_AT_ONCE = 32
MOST_OF_AN_OWNER = 4
# Each holds what was read at once, up to 320 KiB, and what of it the email service has not taken yet.
FILE_BYTES = 512 * 1024
PART_BYTES = 2 * 1024 * 1024
_PATIENCE_S = 60.0
_OPEN_WITHIN_S = 5.0
_RENEW_EVERY_S = 60.0
_STEP = 1000


class FileUploadService:
    """Stores files for mails, and checks which of them a mail may attach.

    Beyond their part, uploads in progress take of the bytes that are `shared` with requests and answers.
    """

    def __init__(
        self,
        postgres: Postgres,
        acceptor: Acceptor,
        rpc: RpcClient,
        transfer: Transfer,
        *,
        shared: SharedBytes | None = None,
    ) -> None:
        self._postgres = postgres
        self._acceptor = acceptor
        self._rpc = rpc
        self._transfer = transfer
        self._room = StreamRoom(
            "uploads of files",
            each=FILE_BYTES,
            most=MOST_AT_ONCE,
            of_owner=MOST_OF_AN_OWNER,
            part=PART_BYTES,
            shared=shared,
        )

    @property
    def at_work(self) -> int:
        """The number of uploads in progress."""
        return self._room.taken

    async def create(self, call: Call, body: Upload) -> HttpReply:
        """Store a file; if the upload fails, all of it is removed."""
        upload_id, owner_id = envelope.new_id(), call.principal.owner_id
        key, claim = call.idempotency_key, upload_id.bytes
        with self._room.hold(owner_id):
            if key and not await self._acceptor.begin(owner_id, key.key, claim):
                return await self._repeat(call, key.key, body)
            try:
                return await self._store(call, upload_id, body)
            except BaseException:
                if key:
                    await self._release(key.key, owner_id, claim)
                raise

    async def get(self, call: Call, upload_id: UUID) -> HttpReply:
        """Return a file of the caller that mails may attach now."""
        async with self._postgres.connection() as connection:
            found = await repository.find(connection, [upload_id], owner_id=call.principal.owner_id)
        if upload_id not in found:
            raise NotFound(f"There is no upload {upload_id} of yours, or it has expired.")
        return HttpReply(document(found[upload_id]), etag=_etag(found[upload_id]))

    async def misfits(self, call: Call, mails: Iterable[Mail]) -> list[list[FieldError]]:
        """Return the errors of the uploads that each mail names."""
        named = [
            [(number, file.upload_id) for number, file in enumerate(mail.attachments) if file.upload_id]
            for mail in mails
        ]
        ids = {upload_id for of_mail in named for _, upload_id in of_mail}
        found: dict[UUID, UploadView] = {}
        if ids:
            async with self._postgres.connection() as connection:
                found = await repository.find(connection, ids, owner_id=call.principal.owner_id)
        return [list(_misfits(of_mail, found)) for of_mail in named]

    async def require(self, call: Call, mail: Mail) -> None:
        """Raise `InvalidInput` if a mail names an upload that has expired or is not its sender's."""
        if not mail.attachments:
            return
        [errors] = await self.misfits(call, [mail])
        if errors:
            raise InvalidInput("The mail names uploads that it cannot attach; see errors.", errors=errors)

    async def remove_expired(self) -> None:
        """Remove expired uploads."""
        removed = _STEP
        while removed == _STEP:
            async with self._postgres.connection() as connection:
                removed = await repository.remove_expired(connection, most=_STEP)

    async def _store(self, call: Call, upload_id: UUID, body: Upload) -> HttpReply:
        owner_id, key = call.principal.owner_id, call.idempotency_key
        question = OpenUpload(upload_id=upload_id, owner_id=owner_id)
        opened = await self._rpc.call(question, OpenedUpload, Deadline.after(_OPEN_WITHIN_S))
        digest = hashlib.sha256()
        stored = await self._transfer.put(upload_id, opened.token, self._parts(call, upload_id, body, digest))
        body.require_within_limit()
        if stored.sha256 != digest.hexdigest():
            raise Unavailable(
                "The stored bytes differ from the sent bytes; send the upload again.", retry_after_s=2
            )
        view = UploadView(
            id=upload_id,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            created_at=datetime.now(UTC),
            expires_at=stored.expires_at,
        )
        answer, location, etag = document(view), f"/v1/uploads/{upload_id}", _etag(view)
        async with self._postgres.transaction() as connection:
            await repository.insert(connection, view, owner_id=owner_id)
            if key and not await acceptances.settle_idempotency(
                connection,
                owner_id,
                IdempotencyKey(key.key, body.digest.digest()),
                upload_id.bytes,
                status=201,
                answer=answer,
                location=location,
                etag=etag,
            ):
                raise IdempotencyConflict(
                    "Another request is using this Idempotency-Key; try again.", retry_after_s=2
                )
        return HttpReply(answer, location=location, etag=etag)

    async def _parts(
        self, call: Call, upload_id: UUID, body: Upload, digest: hashlib._Hash
    ) -> AsyncIterator[bytes]:
        key, owner_id, renewed_at = call.idempotency_key, call.principal.owner_id, time.monotonic()
        async for part in _arriving(body):
            body.require_within_limit()
            digest.update(part)
            yield part
            if key and time.monotonic() - renewed_at > _RENEW_EVERY_S:
                renewed_at = time.monotonic()
                await self._acceptor.renew(owner_id, key.key, upload_id.bytes)
        body.require_within_limit()

    async def _repeat(self, call: Call, key: str, body: Upload) -> HttpReply:
        answered = await self._acceptor.find_answer(call.principal.owner_id, key)
        if answered is not None and answered.status is not None:
            # The whole body must be read to compare it with the first request.
            async for _ in _arriving(body):
                body.require_within_limit()
        return stored_reply(answered, IdempotencyKey(key, body.digest.digest()))

    async def _release(self, key: str, owner_id: str, claim: bytes) -> None:
        try:
            async with self._postgres.connection() as connection:
                await acceptances.free_idempotency(connection, owner_id, key, claim)
        except DatabaseUnavailable as error:
            # The claim expires by itself.
            log.warning("idempotency key could not be released", reason=error.detail)


async def _arriving(body: Upload) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they arrive. Raise `UploadStalled` when none arrives for a minute."""
    while True:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                part = await anext(body.parts, None)
        except TimeoutError:
            raise UploadStalled(f"No data arrived for {_PATIENCE_S:.0f} s; send the upload again.") from None
        if part is None:
            return
        body.digest.update(part)
        yield part
        body.has_read(len(part))


def _misfits(named: Sequence[tuple[int, UUID]], found: dict[UUID, UploadView]) -> Iterator[FieldError]:
    total = 0
    for number, upload_id in named:
        if upload_id not in found:
            yield FieldError(
                pointer=f"/attachments/{number}/upload_id",
                detail=f"there is no upload {upload_id} of yours, or it has expired",
            )
        else:
            total += found[upload_id].size_bytes
    if total > MOST_UPLOAD_BYTES:
        yield FieldError(
            pointer="/attachments",
            detail=f"the uploads have {total} bytes together; a mail may have {MOST_UPLOAD_BYTES}",
        )


def _etag(upload: UploadView) -> str:
    return f'"{upload.sha256}"'

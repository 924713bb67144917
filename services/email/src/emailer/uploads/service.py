"""Uploads: room is reserved for each, its bytes are stored as they arrive, and it is removed in the end."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from chassis import logging, metrics, redaction, shares
from chassis.deadlines import Deadline
from chassis.errors import NotFound, Overloaded, PayloadTooLarge, TooManyAtOnce
from chassis.postgres import DATABASE_FAILURES, Postgres
from contracts.mail import MOST_UPLOAD_BYTES
from contracts.uploads import OpenedUpload, OpenParcel, OpenUpload, StoredUpload
from emailer.errors import TooManyUploads
from emailer.uploads import repository

log = logging.get(__name__)

_PART_BYTES = 256 * 1024
# Seconds within which all bytes must arrive.
_COMING_S = 900.0
# Seconds that an upload is kept after `expires_at`: a mail accepted in time may still be on its way.
GRACE_S = 86_400.0
# A parcel is removed with the last of its mails, whose commands may wait in the broker or be parked for days.
_PARCEL_LIFE_S = 30 * 86_400.0
_STEP = 1000
_REMOVE_EVERY_S = 10.0
_FULL_FOR_S = 60.0
_WAITING_FOR_S = 10.0


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The most bytes of uploads, of one owner and in all, and for how long each upload may be used."""

    owner_bytes: int = 500 << 20
    total_bytes: int = 10 << 30
    life_s: float = 86_400


class UploadReceiver:
    """Receives uploads. If one is interrupted, its parts are removed at once."""

    def __init__(self, postgres: Postgres, limits: UploadLimits) -> None:
        self._postgres = postgres
        self._limits = limits

    async def open(self, request: OpenUpload, _: Deadline) -> OpenedUpload:
        """Reserve room for an upload of the largest size, and return the token for sending it.

        Raise `TooManyUploads` when its owner has no room left, `TooManyAtOnce` when it has its share and the
        rest is for other owners, `Overloaded` when there is no room at all.
        """
        token = secrets.token_urlsafe(32)
        async with self._postgres.transaction() as connection:
            await repository.lock_room(connection)
            own, total = await repository.measure(connection, request.owner_id)
            if own + MOST_UPLOAD_BYTES > self._limits.owner_bytes:
                raise TooManyUploads(
                    f"Your uploads take {own} of {self._limits.owner_bytes} bytes, and the next one may need "
                    f"{MOST_UPLOAD_BYTES}; uploads are removed a day after they expire."
                )
            most = self._limits.total_bytes
            if not shares.has_room_for(MOST_UPLOAD_BYTES, own=own, held=total, most=most):
                if own:
                    raise TooManyAtOnce(
                        f"Your uploads take {own} bytes, and the rest of the room is for other owners;"
                        " uploads are removed a day after they expire.",
                        retry_after_s=_FULL_FOR_S,
                    )
                raise Overloaded(
                    "There is no room for uploads now; try again later.", retry_after_s=_FULL_FOR_S
                )
            await repository.insert(
                connection,
                request.upload_id,
                request.owner_id,
                token_hash=_hash(token),
                most_bytes=MOST_UPLOAD_BYTES,
                life_s=_COMING_S,
            )
        return OpenedUpload(token=token)

    async def open_parcel(self, request: OpenParcel, _: Deadline) -> OpenedUpload:
        """Reserve room for the attachments of mails; return the token for sending them, or what is stored.

        Raise `TooManyAtOnce` while the attachments of the owner take its share of the room, `Overloaded`
        while there is no room at all.
        """
        token = secrets.token_urlsafe(32)
        async with self._postgres.transaction() as connection:
            known = await repository.reopen_parcel(
                connection,
                request.parcel_id,
                request.owner_id,
                token_hash=_hash(token),
                life_s=_COMING_S,
                stored_life_s=_PARCEL_LIFE_S,
            )
            if known is not None and known["completed_at"] is None:
                return OpenedUpload(token=token)
            if known is not None:
                stored = StoredUpload(
                    size_bytes=known["size_bytes"],
                    sha256=known["sha256"].hex(),
                    expires_at=known["expires_at"],
                )
                return OpenedUpload(token="", stored=stored)
            await repository.lock_room(connection)
            own, total = await repository.measure_parcels(connection, request.owner_id)
            most = self._limits.total_bytes
            counted = max(request.size_bytes, repository.LEAST_COUNTED_BYTES)
            has_room = shares.has_room_for(counted, own=own, held=total, most=most)
            if own + counted > self._limits.owner_bytes or (own and not has_room):
                raise TooManyAtOnce(
                    "Too many of your attachments wait for their mails; try again.",
                    retry_after_s=_WAITING_FOR_S,
                )
            if not has_room:
                raise Overloaded(
                    "Too many attachments wait for their mails; try again.", retry_after_s=_WAITING_FOR_S
                )
            await repository.insert(
                connection,
                request.parcel_id,
                request.owner_id,
                token_hash=_hash(token),
                most_bytes=request.size_bytes,
                life_s=_COMING_S,
                mail_count=request.mail_count,
            )
        return OpenedUpload(token=token)

    async def store(self, upload_id: UUID, token: str, content: AsyncIterator[bytes]) -> StoredUpload:
        """Store the bytes of an upload as they arrive. Raise `NotFound` when the token is not valid."""
        async with self._postgres.connection() as connection:
            kind = await repository.begin(connection, upload_id, token_hash=_hash(token))
            if kind is None:
                raise NotFound(f"There is no upload {upload_id} that waits for content with this token.")
        try:
            life_s = _PARCEL_LIFE_S if kind == "parcel" else self._limits.life_s
            stored = await self._take(upload_id, content, life_s=life_s)
        except BaseException:
            metrics.EMAIL_UPLOADS.labels("broken-off").inc()
            try:
                async with self._postgres.connection() as connection:
                    await repository.drop(connection, upload_id)
            except DATABASE_FAILURES as error:
                # It will be removed when it expires.
                reason = redaction.safe_message(error)
                log.warning("upload could not be removed", upload_id=str(upload_id), reason=reason)
            raise
        metrics.EMAIL_UPLOADS.labels("stored" if kind == "upload" else kind).inc()
        return stored

    async def keep_removing(self) -> None:
        """Remove expired uploads, and update the metrics of their size, until cancelled."""
        metrics.EMAIL_UPLOADS_MOST_BYTES.set(self._limits.total_bytes)
        while True:
            try:
                await self.remove()
                async with self._postgres.connection() as connection:
                    _, total = await repository.measure(connection)
                metrics.EMAIL_UPLOADS_BYTES.set(total)
            except DATABASE_FAILURES as error:
                log.warning("old uploads could not be removed", reason=redaction.safe_message(error))
            await asyncio.sleep(_REMOVE_EVERY_S)

    async def remove(self) -> None:
        """Remove expired uploads in steps of a bounded size."""
        count = _STEP
        while count == _STEP:
            async with self._postgres.connection() as connection:
                removed = await repository.remove(connection, most=_STEP, grace_s=GRACE_S)
            for kind in removed:
                metrics.EMAIL_UPLOADS_REMOVED.labels(kind).inc()
            count = len(removed)

    async def _take(self, upload_id: UUID, content: AsyncIterator[bytes], *, life_s: float) -> StoredUpload:
        digest, size_bytes, position = hashlib.sha256(), 0, 0
        # Each part takes its own connection, so that a slow client does not hold one of the pool.
        async for part in _cut(content):
            size_bytes += len(part)
            if size_bytes > MOST_UPLOAD_BYTES:
                raise PayloadTooLarge(f"An upload may have at most {MOST_UPLOAD_BYTES} bytes.")
            digest.update(part)
            async with self._postgres.connection() as connection:
                if not await repository.append(connection, upload_id, position, part):
                    raise _too_slow(upload_id)
            position += 1
        async with self._postgres.transaction() as connection:
            expires_at = await repository.complete(
                connection,
                upload_id,
                size_bytes=size_bytes,
                sha256=digest.digest(),
                life_s=life_s,
            )
        if expires_at is None:
            raise _too_slow(upload_id)
        return StoredUpload(size_bytes=size_bytes, sha256=digest.hexdigest(), expires_at=expires_at)


async def _cut(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield `content` in parts of equal size; the last may be smaller."""
    held = bytearray()
    async for part in content:
        held += part
        while len(held) >= _PART_BYTES:
            yield bytes(held[:_PART_BYTES])
            del held[:_PART_BYTES]
    if held:
        yield bytes(held)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _too_slow(upload_id: UUID) -> NotFound:
    most = timedelta(seconds=_COMING_S)
    return NotFound(f"Upload {upload_id} was removed: its content must arrive within {most}.")

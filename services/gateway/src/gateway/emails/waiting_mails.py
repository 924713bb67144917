"""Mails that email does not know yet, as their attachments wait here: cancelled, rescheduled, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal
from uuid import UUID

from chassis import threads
from chassis.broker import envelope
from chassis.broker.publisher import Publisher
from chassis.errors import InvalidInput
from chassis.postgres import Postgres
from contracts.emails import EmailFilter, EmailsChanged, ParcelPart, SendPackedEmail
from contracts.gateways import WaitingEmailEnded
from gateway.acceptance.repository import Acceptance
from gateway.emails import repository
from gateway.emails.accepted_mail import CANCELLED, message_id_like
from gateway.emails.parcels import Parcel
from gateway.publishing.announcing import announce

# Each takes a transaction.
MOST_CHANGED = 200


class WaitingMails:
    """Changes mails whose parcels wait.

    Each change locks the parcel first, as its release does: a mail is either still here, or on its way.
    """

    def __init__(self, postgres: Postgres, publisher: Publisher) -> None:
        self._postgres = postgres
        self._publisher = publisher

    async def cancel(self, email_id: UUID, *, owner_id: str) -> bool:
        """Cancel a mail of `owner_id`; return False when it does not wait here."""
        at = datetime.now(UTC)
        async with self._postgres.transaction() as connection:
            parcel_id = await repository.lock_mail(connection, email_id, owner_id)
            if parcel_id is None or not await repository.drop_mail(connection, parcel_id, email_id):
                return False
            await repository.end_mails(connection, [email_id], status="cancelled", reason=CANCELLED, at=at)
        await self._announce([email_id], "cancelled", at)
        return True

    async def cancel_matching(
        self, wanted: EmailFilter, *, owner_id: str, before: UUID | None, dry_run: bool
    ) -> EmailsChanged:
        """Cancel the mails of `owner_id` before the id `before` that match; with `dry_run` only count them.

        The next call begins behind `next_cursor`. It is not complete either when one of them has just left
        for email.
        """
        async with self._postgres.connection() as connection:
            found, following = await repository.list_mails(
                connection, owner_id, wanted, waiting=True, before=before, limit=MOST_CHANGED
            )
        changed = 0
        for row in found:
            changed += dry_run or await self.cancel(row["id"], owner_id=owner_id)
        return EmailsChanged(
            matched=len(found),
            changed=changed,
            complete=following is None and changed == len(found),
            next_cursor=following,
        )

    async def copy(
        self, email_id: UUID, acceptance: Acceptance, *, domain: str
    ) -> tuple[SendPackedEmail, Parcel] | None:
        """Return a copy of a waiting mail under the id of `acceptance`, due at once, and a parcel for it.

        Return None when its owner has no such mail waiting here.
        """
        async with self._postgres.transaction() as connection:
            parcel_id = await repository.lock_mail(connection, email_id, acceptance.owner_id)
            if parcel_id is None:
                return None
            body = await repository.read_mail(connection, parcel_id, email_id)
            content = await repository.read_parcel(connection, parcel_id)
        if body is None:
            return None
        source = await threads.run(partial(SendPackedEmail.model_validate_json, body))
        copied_id, files, own = envelope.new_id(), [], bytearray()
        for file in source.attachments:
            if (part := file.part) is not None:
                moved = ParcelPart(parcel_id=copied_id, start=len(own), size=part.size)
                own += content[part.start : part.start + part.size]
                file = file.model_copy(update={"part": moved})
            files.append(file)
        fields: dict[str, Any] = {
            "email_id": acceptance.id,
            "accepted_at": acceptance.accepted_at,
            "message_id": message_id_like(source.message_id, acceptance.id, domain=domain),
            "attachments": files,
            "send_at": None,
            "expires_at": None,
        }
        return source.model_copy(update=fields), Parcel(copied_id, acceptance.owner_id, 1, bytes(own))

    async def refuse(self, parcel_id: UUID, reason: str) -> None:
        """End all mails of a parcel that email will never take."""
        at = datetime.now(UTC)
        async with self._postgres.transaction() as connection:
            ids = await repository.drop(connection, parcel_id)
            await repository.end_mails(connection, ids, status="failed", reason=reason, at=at)
        await self._announce(ids, "failed", at)

    async def reschedule(
        self, email_id: UUID, *, owner_id: str, send_at: datetime, expires_at: datetime | None
    ) -> bool:
        """Change the times of a mail of `owner_id`; return False when it does not wait here.

        Without a new `expires_at` the time that it has before it expires stays the same.
        """
        async with self._postgres.transaction() as connection:
            parcel_id = await repository.lock_mail(connection, email_id, owner_id)
            if parcel_id is None:
                return False
            body = await repository.read_mail(connection, parcel_id, email_id)
            if body is None:
                return False
            command = SendPackedEmail.model_validate_json(body)
            if expires_at is None and command.expires_at is not None:
                expires_at = send_at + (command.expires_at - (command.send_at or command.accepted_at))
            if expires_at is not None and expires_at <= send_at:
                raise InvalidInput("expires_at must be later than send_at")
            moved = command.model_copy(update={"send_at": send_at, "expires_at": expires_at})
            await repository.change_mail(connection, parcel_id, moved)
        return True

    async def _announce(
        self, ids: Sequence[UUID], status: Literal["cancelled", "failed"], at: datetime
    ) -> None:
        for email_id in ids:
            await announce(self._publisher, WaitingEmailEnded(email_id=email_id, status=status, at=at))

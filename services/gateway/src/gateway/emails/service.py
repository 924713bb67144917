"""E-mails at the gateway: accepted here; their state is kept and changed by email."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import orjson

from chassis import threads
from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import Conflict, InvalidInput, NotBegun, NotFound, ServiceError, Unavailable
from contracts import addresses
from contracts.emails import (
    CancelEmails,
    Email,
    EmailFilter,
    EmailsChanged,
    GetEmail,
    GetRawEmail,
    RawEmail,
    RescheduleEmail,
    ResendEmail,
    SendEmail,
    SendPackedEmail,
)
from contracts.json_texts import member
from contracts.mail import Mail
from contracts.message import Command, FieldError
from contracts.scopes import Scope
from gateway.acceptance.acceptor import Acceptor, new_acceptance
from gateway.acceptance.idempotency import stored_reply
from gateway.acceptance.repository import Acceptance, Work
from gateway.domains.senders import VerifiedSenders, domains_of
from gateway.emails import accepted_mail, several
from gateway.emails.inputs import (
    EmailList,
    EmailResult,
    EmailResults,
    EmailsInput,
    EmailsQuery,
    Rescheduling,
)
from gateway.emails.listing import EmailListing
from gateway.emails.parcels import Parcel, Parcels
from gateway.emails.waiting_mails import WaitingMails
from gateway.emails.waiting_parcels import WaitingParcels
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.replies import MAIL, HttpReply, document, entity_tag
from gateway.uploads.service import FileUploadService

_PART_WITHIN_S = 10


class EmailService:
    """Accepts mails and reports on them, for every interface."""

    def __init__(
        self,
        acceptor: Acceptor,
        rpc: RpcClient,
        uploads: FileUploadService,
        parcels: Parcels,
        waiting: WaitingParcels,
        waiting_mails: WaitingMails,
        listing: EmailListing,
        senders: VerifiedSenders,
        *,
        message_id_domain: str,
    ) -> None:
        self._acceptor = acceptor
        self._uploads = uploads
        self._parcels = parcels
        self._waiting = waiting
        self._waiting_mails = waiting_mails
        self._listing = listing
        self._rpc = rpc
        self._senders = senders
        self._message_id_domain = message_id_domain

    async def send(self, call: Call, body: Mail) -> HttpReply:
        """Accept a mail; the answer has its id and the path of its state."""
        call.principal.require(Scope.EMAILS_SEND)
        key, owner_id = call.idempotency_key, call.principal.owner_id
        for refusal in (await self._senders.refusals(owner_id, domains_of([body.sender]))).values():
            error = FieldError(pointer="/from", detail=refusal)
            raise InvalidInput(f"from: {refusal}", errors=[error])
        await self._uploads.require(call, body)

        def write() -> tuple[Acceptance, SendEmail]:
            text = None
            if body.metadata:
                text = member(call.document, "metadata", orjson.dumps(body.metadata)).decode()
            return self._command(call, body, text)

        acceptance, command = await call.compute(write)
        if body.attachments and key is not None:
            answered = await self._acceptor.find_answer(acceptance.owner_id, key.key)
            if answered is not None:
                # The attachments of a repeated request are not sent again.
                return stored_reply(answered, key)
        [command], left = await self._parcels.send_ahead([command], call.deadline)
        return await self._promise(call, acceptance, command, command.message_id, left)

    async def send_several(self, call: Call, body: EmailsInput) -> EmailResults:
        """Accept several mails: all of them or, in permissive mode, those that are valid."""
        call.principal.require(Scope.EMAILS_SEND)
        given, domains = await threads.run(partial(several.read_all, body.emails), until=call.deadline)
        read = await self._without_misfits(call, given, domains)
        errors = [error for found in read if isinstance(found, EmailResult) for error in found.errors]
        if errors and body.mode == "strict":
            raise InvalidInput("Some of the mails are invalid; see errors.", errors=errors)

        def write() -> list[EmailResult | tuple[Acceptance, SendEmail]]:
            texts = several.metadata_texts(call.document, read)
            return [
                found if isinstance(found, EmailResult) else self._command(call, found, text)
                for found, text in zip(read, texts, strict=True)
            ]

        results: list[EmailResult] = []
        accepted: list[tuple[Acceptance, SendEmail]] = []
        # In a thread: 500 commands take up to 30 ms.
        for index, written in enumerate(await threads.run(write, until=call.deadline)):
            if isinstance(written, EmailResult):
                results.append(written)
                continue
            acceptance, command = written
            accepted.append(written)
            results.append(several.accepted(index, acceptance, message_id=command.message_id))
        commands, left = await self._parcels.send_ahead([command for _, command in accepted], call.deadline)
        works: list[Work] = []
        waiting: list[SendPackedEmail] = []
        for (acceptance, _), command in zip(accepted, commands, strict=True):
            messages: list[Outgoing] = []
            if left is not None and isinstance(command, SendPackedEmail):
                waiting.append(command)
            else:
                messages.append(
                    envelope.command(command, message_id=acceptance.id, tenant=acceptance.owner_id)
                )
            works.append(Work(acceptance, messages, b"", f"/v1/emails/{acceptance.id}"))
        self._acceptor.accept_all(call, works)
        if left is not None:
            call.writes.append(await self._waiting.prepare(left, waiting, call.deadline))
        return EmailResults(accepted=len(works), refused=len(results) - len(works), results=results)

    async def resend(self, call: Call, email_id: UUID) -> HttpReply:
        """Accept a new mail with the content and the recipients of an earlier one."""
        call.principal.require(Scope.EMAILS_SEND)
        # What was accepted is sent, though the retention of its content may end before email copies it.
        question = GetEmail(email_id=email_id, owner_id=call.principal.owner_id, for_copy=True)
        acceptance = new_acceptance(envelope.new_id(), call.principal, "email")
        copied = await self._waiting_mails.copy(email_id, acceptance, domain=self._message_id_domain)
        if copied is not None:
            return await self._promise(call, acceptance, copied[0], copied[0].message_id, copied[1])
        source = await self._ask_of_stored(question, call)
        if not source["content_available"]:
            raise Conflict(
                f"E-mail {email_id} cannot be sent again: its content was removed or is not valid."
            )
        message_id = accepted_mail.message_id_like(
            source["message_id"], acceptance.id, domain=self._message_id_domain
        )
        command = ResendEmail(
            email_id=acceptance.id,
            source_id=email_id,
            owner_id=acceptance.owner_id,
            message_id=message_id,
            accepted_at=acceptance.accepted_at,
        )
        return await self._promise(call, acceptance, command, message_id)

    async def get(self, call: Call, email_id: UUID) -> HttpReply:
        """Return the caller's mail with its recipients."""
        found, _ = await self._read(call.principal, email_id, call.deadline)
        return _reply(found)

    async def find(self, principal: Principal, email_id: UUID, deadline: Deadline) -> dict[str, Any]:
        """Return a mail of `principal` for a push, without the line breaks that a caller may have sent."""
        found, accepted = await self._read(principal, email_id, deadline)
        document: dict[str, Any] = orjson.loads(orjson.dumps(found, option=orjson.OPT_UTC_Z))
        if accepted is not None:
            document["revision"] = accepted_mail.revision(accepted, status=found["status"])
        return document

    async def _read(
        self, principal: Principal, email_id: UUID, deadline: Deadline
    ) -> tuple[dict[str, Any], Acceptance | None]:
        """Return a mail of `principal` with its metadata as written, and its acceptance if it has one.

        It is `queued` until email has stored it.

        A mail whose command email could not handle is `parked`, with the reason, until an administrator has
        decided.
        """
        principal.require(Scope.EMAILS_READ)
        accepted = await self._acceptor.find_own(email_id, principal, "email")
        try:
            found = await self._ask(GetEmail(email_id=email_id, owner_id=principal.owner_id), deadline)
        except ServiceError as error:
            is_silent = isinstance(error, NotBegun) or error.status in (503, 504)
            if accepted is None or not (is_silent or error.status == 404):
                raise
            # Accepted here, but email does not know it or cannot be reached: the last reported status holds.
            found = accepted_mail.shown(accepted) | {"detail_available": error.status == 404}
        return found, accepted

    async def list(self, call: Call, query: EmailsQuery) -> EmailList:
        """Return a page of the caller's mails, newest first."""
        return await self._listing.page(query, owner_id=call.principal.owner_id, deadline=call.deadline)

    async def cancel_one(self, call: Call, email_id: UUID) -> dict[str, Any]:
        """Cancel a mail, except recipients already handed to the relay, and return its new state."""
        owner_id = call.principal.owner_id
        if await self._waiting_mails.cancel(email_id, owner_id=owner_id):
            return await self._as_accepted(call, email_id)
        question = CancelEmails(owner_id=owner_id, wanted=EmailFilter(ids=[email_id]))
        changed = await self._rpc.call(question, EmailsChanged, call.deadline)
        found = await self._ask_of_stored(GetEmail(email_id=email_id, owner_id=owner_id), call)
        if not changed.changed:
            raise Conflict(
                f"E-mail {email_id} is {found['status']}: none of its recipients can be cancelled."
            )
        return found

    async def reschedule(self, call: Call, email_id: UUID, body: Rescheduling) -> HttpReply:
        """Reschedule a mail before its first attempt."""
        times: dict[str, Any] = {"send_at": body.send_at, "expires_at": body.expires_at}
        # One that waits here has no entity tag yet.
        if not call.names_versions and await self._waiting_mails.reschedule(
            email_id, owner_id=call.principal.owner_id, **times
        ):
            return _reply(await self._as_accepted(call, email_id))
        question = RescheduleEmail(
            email_id=email_id,
            owner_id=call.principal.owner_id,
            **times,
        )
        if call.names_versions:
            seen = await self._ask_of_stored(GetEmail(email_id=email_id, owner_id=question.owner_id), call)
            call.require_revision(_revision(seen), etag=_reply(seen).etag or "")
            planned = seen["send_at"] or seen["accepted_at"]
            question = question.model_copy(
                update={
                    "seen_send_at": datetime.fromisoformat(planned),
                    "seen_expires_at": datetime.fromisoformat(seen["expires_at"]),
                }
            )
        return _reply(await self._ask_of_stored(question, call))

    async def raw(self, call: Call, email_id: UUID) -> HttpReply:
        """Return a mail as it is handed to the relay, byte for byte."""
        owner_id = call.principal.owner_id
        question = GetRawEmail(email_id=email_id, owner_id=owner_id)
        try:
            first = await self._rpc.call(question, RawEmail, call.deadline)
        except ServiceError as error:
            if error.status == 404:
                # One that was accepted and is not stored yet is not said to be unknown.
                await self._ask_of_stored(GetEmail(email_id=email_id, owner_id=owner_id), call)
            raise
        start = base64.b64decode(first.content)

        async def parts() -> AsyncIterator[bytes]:
            yield start
            sent = len(start)
            while sent < first.size:
                question = GetRawEmail(email_id=email_id, owner_id=owner_id, offset=sent)
                part = await self._rpc.call(question, RawEmail, Deadline.after(_PART_WITHIN_S))
                content = base64.b64decode(part.content)
                if part.size != first.size or not content:
                    # It was written anew for a slow reader, with other keys: the parts do not fit together.
                    raise Unavailable(f"E-mail {email_id} has changed while it was read; read it again.")
                yield content
                sent += len(content)

        body = start if len(start) == first.size else parts()
        return HttpReply(body, media_type=MAIL)

    def _command(self, call: Call, mail: Mail, metadata_text: str | None) -> tuple[Acceptance, SendEmail]:
        acceptance = new_acceptance(envelope.new_id(), call.principal, "email")
        domain = addresses.parse(mail.sender).domain if mail.sender else self._message_id_domain
        command = SendEmail.of(
            mail,
            email_id=acceptance.id,
            owner_id=acceptance.owner_id,
            accepted_at=acceptance.accepted_at,
            message_id=f"<{acceptance.id}@{domain}>",
            metadata_text=metadata_text,
        )
        return acceptance, command

    async def _without_misfits(
        self, call: Call, read: Sequence[Mail | EmailResult], domains: Mapping[str, str]
    ) -> Sequence[Mail | EmailResult]:
        """Return `read` with an error in place of each mail whose sender or uploads are not the caller's."""
        mails = {index: mail for index, mail in enumerate(read) if isinstance(mail, Mail)}
        refusals = await self._senders.refusals(call.principal.owner_id, domains)
        misfits = dict(zip(mails, await self._uploads.misfits(call, mails.values()), strict=True))
        found: list[Mail | EmailResult] = list(read)
        for index, mail in mails.items():
            refusal = refusals.get(mail.sender or "")
            errors = [FieldError(pointer="/from", detail=refusal)] if refusal else []
            if errors := [*errors, *(misfits[index] or ())]:
                pointed = [
                    FieldError(pointer=f"/emails/{index}{error.pointer}", detail=error.detail)
                    for error in errors
                ]
                found[index] = EmailResult(index=index, status="refused", errors=pointed)
        return found

    async def _promise(
        self,
        call: Call,
        acceptance: Acceptance,
        command: Command,
        message_id: str | None,
        left: Parcel | None = None,
    ) -> HttpReply:
        """Accept a mail, whose command waits for the parcel that is `left` to be sent."""
        messages, along = list[Outgoing](), None
        if left is None:
            write = partial(envelope.command, command, message_id=acceptance.id, tenant=acceptance.owner_id)
            messages.append(await call.compute(write))
        else:
            assert isinstance(command, SendPackedEmail)
            along = await self._waiting.prepare(left, [command], call.deadline)
        return await self._acceptor.accept(
            call,
            acceptance,
            messages,
            location=f"/v1/emails/{acceptance.id}",
            following=accepted_mail.taken_over(since=acceptance.accepted_at),
            details={"message_id": message_id or ""},
            along=along,
        )

    async def _ask_of_stored(self, question: GetEmail | RescheduleEmail, call: Call) -> dict[str, Any]:
        """Do `_ask`. Raise `Conflict` for a mail that was accepted and has not reached email yet."""
        try:
            return await self._ask(question, call.deadline)
        except NotFound:
            accepted = await self._acceptor.find_own(question.email_id, call.principal, "email")
            if accepted is None:
                raise
            if accepted.status != "queued":
                raise Conflict(f"E-mail {question.email_id} is {accepted.status}.") from None
            raise Conflict(
                f"E-mail {question.email_id} was accepted and is on its way to the email service; "
                "try again in a moment.",
                retry_after_s=2,
            ) from None

    async def _as_accepted(self, call: Call, email_id: UUID) -> dict[str, Any]:
        """Return the caller's mail as the gateway knows it."""
        accepted = await self._acceptor.find_own(email_id, call.principal, "email")
        if accepted is None:
            raise NotFound(f"There is no e-mail {email_id}.")
        return accepted_mail.shown(accepted)

    async def _ask(self, question: GetEmail | RescheduleEmail, deadline: Deadline) -> dict[str, Any]:
        try:
            found = await self._rpc.call(question, Email, deadline)
        except ServiceError as error:
            if error.status == 404:
                raise NotFound(f"There is no e-mail {question.email_id}.") from None
            raise
        document = found.model_dump(mode="json")
        document["from"] = document.pop("sender")
        if (text := document.pop("metadata_text")) is not None:
            document["metadata"] = orjson.Fragment(text)
        return document


def _revision(found: Mapping[str, Any]) -> str:
    """Return the parts of a mail that requests can change, its times, as a short string."""
    times = f"{found['send_at'] or found['accepted_at']} {found['expires_at']}"
    return hashlib.sha256(times.encode()).hexdigest()[:8]


def _reply(found: Mapping[str, Any]) -> HttpReply:
    """Return a mail with its entity tag; one that email has not stored yet has none."""
    body = document(found)
    return HttpReply(body, etag=entity_tag(body, _revision(found)) if "expires_at" in found else None)

"""E-mails at the gateway: promised here, reported from email."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chassis.broker import envelope
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotFound, ServiceError, Unavailable
from contracts.emails import Email, GetEmail, SendEmail
from contracts.mail import Mail
from contracts.scopes import Scope
from gateway.acceptance.acceptor import Acceptor, new_acceptance
from gateway.acceptance.repository import Acceptance
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.replies import Reply


class EmailService:
    """Accepts mails and reports on them, for every interface."""

    def __init__(self, acceptor: Acceptor, rpc: RpcClient) -> None:
        self._acceptor = acceptor
        self._rpc = rpc

    async def send(self, call: Call, body: Mail) -> Reply:
        """Promise to send a mail; the answer names its id and where to ask about it."""
        call.principal.require(Scope.EMAILS_SEND)
        acceptance = new_acceptance(envelope.new_id(), call.principal, "email")
        command = SendEmail.of(
            body,
            email_id=acceptance.id,
            owner_id=acceptance.owner_id,
            accepted_at=acceptance.accepted_at,
        )
        message = envelope.command(command, message_id=acceptance.id, tenant=acceptance.owner_id)
        return await self._acceptor.accept(
            call, acceptance, [message], location=f"/v1/emails/{acceptance.id}"
        )

    async def get(self, call: Call, email_id: UUID) -> dict[str, Any]:
        """Return the caller's mail with its recipients."""
        return await self.find(call.principal, email_id, call.deadline)

    async def find(self, principal: Principal, email_id: UUID, deadline: Deadline) -> dict[str, Any]:
        """Return a mail of `principal`; `queued` until email has seen it.

        A mail whose command email could not take is `parked`, with the reason, until somebody has decided.
        """
        principal.require(Scope.EMAILS_READ)
        accepted = await self._acceptor.find_own(email_id, principal, "email")
        question = GetEmail(email_id=email_id, owner_id=principal.owner_id)
        try:
            found = await self._rpc.call(question, Email, deadline)
        except ServiceError as error:
            if accepted is None or not (isinstance(error, Unavailable) or error.status in (404, 504)):
                raise NotFound(f"There is no e-mail {email_id}.") if error.status == 404 else error from None
            # Accepted here, not known or not reachable there: what was heard last is the truth so far.
            return _summary(accepted, is_complete=error.status == 404)
        document = found.model_dump(mode="json")
        document["from"] = document.pop("sender")
        return document


def _summary(accepted: Acceptance, *, is_complete: bool) -> dict[str, Any]:
    return {
        "id": str(accepted.id),
        "status": accepted.status,
        "accepted_at": accepted.accepted_at,
        "recipients": [],
        "detail_available": is_complete,
        **({"reason": accepted.reason} if accepted.reason else {}),
    }

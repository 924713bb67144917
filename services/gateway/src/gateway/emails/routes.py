"""`/v1/emails`: accept a mail, tell what has become of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from quart import Response, request

from chassis.broker import envelope
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotFound, ServiceError, Unavailable
from contracts.emails import Email, GetEmail, SendEmail
from contracts.mail import Mail
from gateway.acceptance import idempotency
from gateway.acceptance.acceptor import Accepted, Acceptor, new_acceptance
from gateway.acceptance.repository import Acceptance
from gateway.http.endpoint import JSON, Api, answer, parse, read_body, require_media_type
from gateway.http.principal import Principal


class EmailService:
    """Takes mails in and answers for them."""

    def __init__(self, acceptor: Acceptor, rpc: RpcClient) -> None:
        self._acceptor = acceptor
        self._rpc = rpc

    async def accept(
        self, principal: Principal, mail: Mail, key: idempotency.IdempotencyKey | None
    ) -> Accepted:
        """Promise to send `mail`; the answer names its id and where to ask about it."""
        acceptance = new_acceptance(envelope.new_id(), principal, "email")
        command = SendEmail.of(
            mail,
            email_id=acceptance.id,
            owner_id=acceptance.owner_id,
            accepted_at=acceptance.accepted_at,
        )
        message = envelope.command(command, message_id=acceptance.id, tenant=principal.owner_id)
        body = orjson.dumps({"id": str(acceptance.id), "status": "queued"})
        location = f"/v1/emails/{acceptance.id}"
        return await self._acceptor.accept(acceptance, [message], key=key, answer=Accepted(body, location))

    async def get(self, principal: Principal, email_id: UUID, deadline: Deadline) -> dict[str, Any]:
        """The caller's mail with its recipients; `queued` from the acceptance until email has seen it.

        What email could not take in is `parked`, with the reason, until somebody has decided about it.
        """
        accepted = await self._acceptor.find_own(email_id, principal, "email")
        question = GetEmail(email_id=email_id, owner_id=principal.owner_id)
        try:
            found = await self._rpc.call(question, Email, deadline)
        except ServiceError as error:
            if accepted is None or not (isinstance(error, Unavailable) or error.status in (404, 504)):
                raise _not_found(email_id) if error.status == 404 else error from None
            # Accepted here, not known or not reachable there: what was heard last is the truth so far.
            return _summary(accepted, is_complete=error.status == 404)
        return _document(found)


def register(api: Api, service: EmailService) -> None:
    """Serve the routes."""

    @api.route("/v1/emails", methods=("POST",), scope="emails:send")
    async def post_email(principal: Principal) -> Response:
        require_media_type(JSON)
        body = await read_body()
        key = idempotency.read(request.headers.get("idempotency-key"), "POST /v1/emails", body)
        mail = parse(Mail, body)
        async with api.within_deadline():
            return accepted_answer(await service.accept(principal, mail, key))

    @api.route("/v1/emails/<uuid:email_id>", scope="emails:read")
    async def get_email(principal: Principal, email_id: UUID) -> Response:
        return answer(await service.get(principal, email_id, api.deadline()))


def accepted_answer(accepted: Accepted) -> Response:
    """The answer to accepted work, with its headers."""
    headers = {"location": accepted.location}
    if accepted.is_replay:
        headers["idempotent-replayed"] = "true"
    return answer(accepted.body, accepted.status, headers)


def why(accepted: Acceptance) -> dict[str, Any]:
    """Why accepted work waits, or was given up, before its owner had a word of it; else nothing."""
    return {"reason": accepted.reason} if accepted.reason else {}


def _not_found(email_id: UUID) -> NotFound:
    return NotFound(f"There is no e-mail {email_id}.")


def _summary(accepted: Acceptance, *, is_complete: bool) -> dict[str, Any]:
    return {
        "id": str(accepted.id),
        "status": accepted.status,
        "accepted_at": accepted.accepted_at,
        "recipients": [],
        "detail_available": is_complete,
        **why(accepted),
    }


def _document(email: Email) -> dict[str, Any]:
    document = email.model_dump(mode="json")
    document["from"] = document.pop("sender")
    return document

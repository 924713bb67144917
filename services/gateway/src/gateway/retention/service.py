"""Retention of mails at the gateway: email keeps and applies it; changes are audited here."""

from __future__ import annotations

from typing import Any

from chassis.broker.rpc import RpcClient
from contracts.retention import GetRetention, MailRetention, SetRetention
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.http.calls import Call
from gateway.http.replies import HttpReply, document, entity_tag
from gateway.identity.user_service import UserService
from gateway.retention.inputs import RetentionInput


class RetentionService:
    """Forwards the requests of an owner about its own mails, and of administrators about everybody's."""

    def __init__(self, rpc: RpcClient, users: UserService, audit: AuditTrail) -> None:
        self._rpc = rpc
        self._users = users
        self._audit = audit

    async def get_own(self, call: Call) -> HttpReply:
        """Return the retention of the caller's mails."""
        return _reply(await self._find(call, call.principal.owner_id))

    async def set_own(self, call: Call, body: RetentionInput) -> HttpReply:
        """Set the retention of the caller's mails."""
        return await self._set(call, call.principal.owner_id, body)

    async def get(self, call: Call, user_id: int) -> HttpReply:
        """Return the retention of a user's mails. Raise `NotFound` if the user does not exist."""
        await self._users.get(call, user_id)
        return _reply(await self._find(call, str(user_id)))

    async def set(self, call: Call, user_id: int, body: RetentionInput) -> HttpReply:
        """Set the retention of a user's mails. Raise `NotFound` if the user does not exist."""
        await self._users.get(call, user_id)
        return await self._set(call, str(user_id), body)

    async def _find(self, call: Call, owner_id: str) -> MailRetention:
        return await self._rpc.call(GetRetention(owner_id=owner_id), MailRetention, call.deadline)

    async def _set(self, call: Call, owner_id: str, body: RetentionInput) -> HttpReply:
        """Set the retention at the version that the caller has read."""
        before = await self._find(call, owner_id)
        call.require_revision(before.version, etag=_reply(before).etag or "")
        request = SetRetention(
            owner_id=owner_id,
            content_days=body.content_days,
            record_days=body.record_days,
            version=before.version if call.names_versions else None,
        )
        changed = await self._rpc.call(request, MailRetention, call.deadline)
        await self._audit.record_now(
            call,
            Action.RETENTION_CHANGED,
            f"retention:{owner_id}",
            before=_audited(before),
            after=_audited(changed),
        )
        return _reply(changed)


def _audited(retention: MailRetention) -> dict[str, Any]:
    return retention.model_dump(mode="json", include={"chosen_content_days", "chosen_record_days"})


def _reply(retention: MailRetention) -> HttpReply:
    body = document(retention)
    return HttpReply(body, etag=entity_tag(body, retention.version))

"""Alerts at the gateway: requests about them, which stock-data stores and evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from chassis.broker import envelope
from chassis.broker.rpc import RpcClient
from chassis.errors import InvalidInput, Unavailable
from contracts.alerts import Alert, Alerts, CreateAlert, DeleteAlert, EmailTarget, GetAlert, ListAlerts
from contracts.message import FieldError
from contracts.scopes import Scope
from gateway.alerts import firings
from gateway.alerts.inputs import AlertInput, AlertList, AlertsQuery, AlertView
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.http.calls import Call
from gateway.http.replies import HttpReply, document
from gateway.webhooks.service import WebhookService

# When a replica of the new release may have replaced the one that answered.
_UPGRADED_S = 15


class AlertService:
    """Forwards the caller's requests with the caller's rights, and audits every change."""

    def __init__(self, rpc: RpcClient, webhooks: WebhookService, audit: AuditTrail) -> None:
        self._rpc = rpc
        self._webhooks = webhooks
        self._audit = audit

    async def create(self, call: Call, body: AlertInput) -> HttpReply:
        """Store an alert. The right to notify its targets is checked here, and again when the alert fires."""
        emails = [EmailTarget(email=target.email) for target in body.notify if target.webhook is None]
        webhooks = [target.webhook for target in body.notify] if len(emails) < len(body.notify) else []
        if emails:
            call.principal.require(Scope.EMAILS_SEND)
        if webhooks:
            call.principal.require(*firings.WEBHOOK_SCOPES)
            await self._require_known(call, webhooks)
        request = CreateAlert(
            alert_id=envelope.new_id(),
            owner_id=call.principal.owner_id,
            made_by=call.principal.key_id,
            request_key=call.request_key,
            **dict(body) | {"notify": emails, "webhooks": webhooks},
        )
        stored = await self._rpc.call(request, Alert, call.deadline)
        if stored.webhooks != webhooks:
            # By a replica of the release before, which does not know that alerts have webhooks.
            await self._rpc.call(
                DeleteAlert(alert_id=stored.id, owner_id=request.owner_id), Alert, call.deadline
            )
            raise Unavailable(
                "stock-data is being upgraded and cannot store the webhooks of an alert yet; try again.",
                retry_after_s=_UPGRADED_S,
            )
        alert = AlertView.of(stored)
        self._audit.record_with(call, Action.ALERT_CREATED, f"alert:{alert.id}", after=_audited(alert))
        return HttpReply(document(alert), location=f"/v1/alerts/{alert.id}")

    async def get(self, call: Call, alert_id: UUID) -> AlertView:
        """Return an alert of the caller."""
        request = GetAlert(alert_id=alert_id, owner_id=call.principal.owner_id)
        return AlertView.of(await self._rpc.call(request, Alert, call.deadline))

    async def list(self, call: Call, query: AlertsQuery) -> AlertList:
        """Return a page of the caller's alerts, newest first."""
        request = ListAlerts(
            owner_id=call.principal.owner_id,
            symbol=query.symbol,
            status=query.status or [],
            created_after=query.created_after,
            created_before=query.created_before,
            before=query.cursor,
            limit=query.limit,
        )
        page = await self._rpc.call(request, Alerts, call.deadline)
        return AlertList(data=[AlertView.of(alert) for alert in page.data], next_cursor=page.next_cursor)

    async def delete(self, call: Call, alert_id: UUID) -> None:
        """End an alert of the caller: it does not fire any more once this has returned."""
        request = DeleteAlert(alert_id=alert_id, owner_id=call.principal.owner_id)
        ended = AlertView.of(await self._rpc.call(request, Alert, call.deadline))
        await self._audit.record_now(call, Action.ALERT_DELETED, f"alert:{alert_id}", before=_audited(ended))

    async def _require_known(self, call: Call, webhooks: Sequence[UUID | None]) -> None:
        """Raise `InvalidInput` if one of these is no webhook of the caller."""
        named = {webhook_id for webhook_id in webhooks if webhook_id is not None}
        known = await self._webhooks.known(call, named)
        errors = [
            FieldError(
                pointer=f"/notify/{number}/webhook", detail=f"there is no webhook {webhook_id} of yours"
            )
            for number, webhook_id in enumerate(webhooks)
            if webhook_id is not None and webhook_id not in known
        ]
        if errors:
            raise InvalidInput("The alert names webhooks that do not exist; see errors.", errors=errors)


def _audited(alert: AlertView) -> dict[str, Any]:
    """Return the fields of an alert that the audit trail records."""
    names = {"symbol", "condition", "notify", "once", "expires_at"}
    return alert.model_dump(mode="json", include=names, exclude_none=True)

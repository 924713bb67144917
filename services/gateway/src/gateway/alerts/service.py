"""Alerts at the gateway: requests about them, which stock-data stores and evaluates."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chassis.broker import envelope
from chassis.broker.rpc import RpcClient
from contracts.alerts import Alert, Alerts, CreateAlert, DeleteAlert, GetAlert, ListAlerts
from contracts.scopes import Scope
from gateway.alerts.inputs import AlertInput, AlertList, AlertsQuery
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.http.calls import Call
from gateway.http.replies import HttpReply, document


class AlertService:
    """Forwards the caller's requests with the caller's rights, and audits every change."""

    def __init__(self, rpc: RpcClient, audit: AuditTrail) -> None:
        self._rpc = rpc
        self._audit = audit

    async def create(self, call: Call, body: AlertInput) -> HttpReply:
        """Store an alert. The right to send mail is checked here, and again when the alert fires."""
        if body.notify:
            call.principal.require(Scope.EMAILS_SEND)
        request = CreateAlert(
            alert_id=envelope.new_id(),
            owner_id=call.principal.owner_id,
            made_by=call.principal.key_id,
            request_key=call.request_key,
            **dict(body),
        )
        alert = await self._rpc.call(request, Alert, call.deadline)
        self._audit.record_with(call, Action.ALERT_CREATED, f"alert:{alert.id}", after=_audited(alert))
        return HttpReply(document(alert), location=f"/v1/alerts/{alert.id}")

    async def get(self, call: Call, alert_id: UUID) -> Alert:
        """Return an alert of the caller."""
        request = GetAlert(alert_id=alert_id, owner_id=call.principal.owner_id)
        return await self._rpc.call(request, Alert, call.deadline)

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
        return AlertList(data=page.data, next_cursor=page.next_cursor)

    async def delete(self, call: Call, alert_id: UUID) -> None:
        """End an alert of the caller: it does not fire any more once this has returned."""
        request = DeleteAlert(alert_id=alert_id, owner_id=call.principal.owner_id)
        ended = await self._rpc.call(request, Alert, call.deadline)
        await self._audit.record_now(call, Action.ALERT_DELETED, f"alert:{alert_id}", before=_audited(ended))


def _audited(alert: Alert) -> dict[str, Any]:
    """Return the fields of an alert that the audit trail records."""
    names = {"symbol", "condition", "notify", "once", "expires_at"}
    return alert.model_dump(mode="json", include=names, exclude_none=True)

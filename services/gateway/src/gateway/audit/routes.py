"""`/v1/admin/audit`: the declared endpoint."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import DatabaseUnavailable
from contracts.scopes import Scope
from gateway.audit.inputs import AuditPage
from gateway.audit.service import AuditTrail
from gateway.http.endpoints import Endpoint, get, json


def endpoints(trail: AuditTrail) -> Iterator[Endpoint]:
    """Yield the endpoint of the audit trail."""
    yield get(
        "/v1/admin/audit",
        trail.page,
        name="listAuditEntries",
        summary="List changes of users, keys, domains, templates, schedules and other settings",
        tag="Administration",
        scope=Scope.ADMIN,
        answers={200: json(AuditPage)},
        errors=(DatabaseUnavailable,),
    )

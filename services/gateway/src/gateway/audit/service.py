"""The audit trail: each entry is written in the transaction of the change that it records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from chassis import logging, metrics, tracing
from chassis.paging import page_of
from chassis.postgres import Connection, Postgres
from gateway.audit import repository
from gateway.audit.inputs import Action, Actor, AuditEntry, AuditPage, AuditQuery
from gateway.http.calls import Call
from gateway.http.principal import Principal

log = logging.get(__name__)

_STEP = 1000


class AuditTrail:
    """Records changes in the transactions that make them, and lists them."""

    def __init__(self, postgres: Postgres, *, retention_days: int) -> None:
        self._postgres = postgres
        self._retention_days = retention_days

    async def record(
        self,
        connection: Connection,
        principal: Principal | None,
        action: Action,
        target: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a change to the trail, in the transaction that makes the change.

        `principal` is the author of the change; None for a command on the host. `target` is the object as
        `kind:id`.
        """
        trace = tracing.current()
        actor = Actor(user_id=None, name="host", key_id=None)
        if principal is not None:
            actor = Actor(user_id=principal.user_id, name=principal.user_name, key_id=principal.key_id)
        request_id = trace.request_id if trace else None
        await repository.insert(
            connection, actor, action, target, before=before, after=after, request_id=request_id
        )
        log.info("audit", action=action, target=target, key_id=actor.key_id or "host")

    def record_with(
        self,
        call: Call,
        action: Action,
        target: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a change made by another service to the trail, with the other writes of `call`."""
        call.writes.append(
            lambda connection: self.record(
                connection, call.principal, action, target, before=before, after=after
            )
        )

    async def record_now(
        self,
        call: Call,
        action: Action,
        target: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a change made by another service to the trail, even if the call fails later."""
        async with self._postgres.transaction() as connection:
            await self.record(connection, call.principal, action, target, before=before, after=after)

    async def page(self, _: Call, query: AuditQuery) -> AuditPage:
        """Return a page of changes, the newest first."""
        async with self._postgres.connection() as connection:
            found = await repository.page(connection, query)
        page, following = page_of(found, query.limit, lambda row: str(row["id"]))
        entries = [
            AuditEntry(
                id=row["id"],
                at=row["at"],
                actor=Actor(user_id=row["user_id"], name=row["user_name"], key_id=row["key_id"]),
                action=row["action"],
                target=row["target"],
                before=orjson.loads(row["before"]) if row["before"] else None,
                after=orjson.loads(row["after"]) if row["after"] else None,
                request_id=row["request_id"],
            )
            for row in page
        ]
        return AuditPage(data=entries, next_cursor=following)

    async def remove_old(self) -> None:
        """Remove entries that are older than the retention, in short transactions."""
        removed = _STEP
        while removed == _STEP:
            async with self._postgres.connection() as connection:
                removed = await repository.clean(connection, keep_days=self._retention_days, most=_STEP)
            metrics.REMOVED.labels("audit entry").inc(removed)

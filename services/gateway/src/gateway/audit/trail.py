"""The audit trail in PostgreSQL: appended in the transaction of the change that it records."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from chassis import logging, redaction, tracing
from chassis.errors import DatabaseUnavailable
from chassis.postgres import Connection, Postgres
from gateway.audit.inputs import Action, Actor, AuditEntry, AuditPage, AuditQuery
from gateway.http.calls import Call
from gateway.http.principal import Principal

log = logging.get(__name__)

_CLEAN_EVERY_S = 600
_STEP = 1000


class AuditTrail:
    """Records changes and lists them."""

    def __init__(self, postgres: Postgres, queries: Mapping[str, str], *, retention_days: int) -> None:
        self._postgres = postgres
        self._queries = queries
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

        `principal` is who makes it, None for a command on the host. `target` names the thing as `kind:id`.
        """
        trace = tracing.current()
        await connection.execute(
            self._queries["insert_audit_entry"],
            principal.user_id if principal else None,
            principal.user_name if principal else "host",
            principal.key_id if principal else None,
            action,
            target,
            _document(before),
            _document(after),
            trace.request_id if trace else None,
        )
        log.info("audit", action=action, target=target, key_id=principal.key_id if principal else "host")

    async def page(self, _: Call, query: AuditQuery) -> AuditPage:
        """Return a page of changes, the newest first."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                self._queries["list_audit_entries"],
                query.cursor,
                query.user_id,
                query.key_id,
                query.action,
                query.target,
                query.created_after,
                query.created_before,
                query.limit + 1,
            )
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
            for row in rows[: query.limit]
        ]
        return AuditPage(data=entries, next_cursor=str(entries[-1].id) if len(rows) > query.limit else None)

    async def clean(self) -> None:
        """Remove entries that are older than the retention, for ever."""
        while True:
            await asyncio.sleep(_CLEAN_EVERY_S)
            try:
                await self.remove_old()
            except DatabaseUnavailable as error:
                log.warning("old audit entries not removed", reason=error.detail)

    async def remove_old(self) -> None:
        """Remove entries that are older than the retention, in short transactions."""
        removed = _STEP
        while removed == _STEP:
            async with self._postgres.connection() as connection:
                tag = await connection.execute(
                    self._queries["clean_audit_entries"], self._retention_days, _STEP
                )
            removed = int(tag.split()[-1])


def _document(fields: Mapping[str, Any] | None) -> str | None:
    if fields is None:
        return None
    # Names and addresses come from callers, who may have put a secret into one.
    plain = redaction.value(orjson.loads(orjson.dumps(dict(fields), option=orjson.OPT_UTC_Z)))
    return orjson.dumps(plain).decode()

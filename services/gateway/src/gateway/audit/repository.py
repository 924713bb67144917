"""The audit trail in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from chassis import queries, redaction
from chassis.postgres import Connection, Row, affected_rows
from gateway.audit.inputs import Action, Actor, AuditQuery

_SQL = queries.of("gateway")


async def insert(
    connection: Connection,
    actor: Actor,
    action: Action,
    target: str,
    *,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    request_id: str | None,
) -> None:
    """Append an entry, with secrets redacted that a user may have typed into a name or an address."""
    documents: list[str | None] = []
    for fields in (before, after):
        plain = orjson.loads(orjson.dumps(fields and dict(fields), option=orjson.OPT_UTC_Z))
        documents.append(None if plain is None else orjson.dumps(redaction.value(plain)).decode())
    await connection.execute(
        _SQL["insert_audit_entry"],
        actor.user_id,
        actor.name,
        actor.key_id,
        action,
        target,
        *documents,
        request_id,
    )


async def page(connection: Connection, query: AuditQuery) -> list[Row]:
    """Return a page of entries, newest first, plus one more entry if there is one."""
    return await connection.fetch(
        _SQL["list_audit_entries"],
        query.cursor,
        query.user_id,
        query.key_id,
        query.action,
        query.target,
        query.created_after,
        query.created_before,
        query.limit + 1,
    )


async def clean(connection: Connection, *, keep_days: int, most: int) -> int:
    """Remove up to `most` entries that are older than `keep_days`; return how many there were."""
    tag = await connection.execute(_SQL["clean_audit_entries"], keep_days, most)
    return affected_rows(tag)

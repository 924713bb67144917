"""Suppressions at the gateway: changes are audited here; email stores and applies them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from uuid import UUID

import orjson

from chassis import threads
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from contracts.suppressions import (
    MOST_ADDED,
    AddedOrigin,
    AddSuppressions,
    GetSuppression,
    LiftSuppression,
    LiftSuppressions,
    ListSuppressions,
    Suppression,
    SuppressionEntry,
    Suppressions,
    SuppressionsAdded,
    SuppressionsLifted,
)
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.http import tables
from gateway.http.calls import Call, RawBody
from gateway.http.filters import BulkResult
from gateway.http.replies import CSV, JSON, HttpReply, document
from gateway.suppressions import lines
from gateway.suppressions.inputs import (
    COLUMNS,
    ImportQuery,
    ImportResult,
    SuppressionInput,
    SuppressionList,
    SuppressionsBulk,
    SuppressionsQuery,
)

# An alias, because the method `list` hides the type.

_PAGE = 1000
_PAGE_S = 15


class SuppressionService:
    """Forwards the caller's requests, and writes every change into the audit trail."""

    def __init__(self, rpc: RpcClient, audit: AuditTrail) -> None:
        self._rpc = rpc
        self._audit = audit

    async def add(self, call: Call, body: SuppressionInput) -> HttpReply:
        """Suppress an address for the mails of the caller."""
        added = await self._add(call, [body.entry()], "manual", call.deadline)
        suppression = added.data[0]
        shown = suppression.model_dump(mode="json")
        target = f"suppression:{suppression.id}"
        self._audit.record_with(call, Action.SUPPRESSION_ADDED, target, after=shown)
        return HttpReply(document(suppression), location=f"/v1/suppressions/{suppression.id}")

    async def import_lines(self, call: Call, body: RawBody, query: ImportQuery) -> ImportResult:
        """Suppress the addresses of a list: all of them or only the valid ones.

        They are added in groups: if the limit is reached, the earlier groups remain and are audited.
        """
        read = await threads.run(partial(lines.read, body), until=call.deadline)
        if read.errors and query.mode == "strict":
            raise InvalidInput(f"{read.refused} lines are invalid; see errors.", errors=read.errors)
        added = 0
        for start in range(0, len(read.entries), MOST_ADDED):
            group = read.entries[start : start + MOST_ADDED]
            new = (await self._add(call, group, "import", call.deadline)).added
            after = {"added": new, "changed": len(group) - new}
            await self._audit.record_now(call, Action.SUPPRESSION_ADDED, "suppression:import", after=after)
            added += new
        return ImportResult(
            added=added,
            changed=len(read.entries) - added,
            skipped=read.skipped,
            refused=read.refused,
            errors=read.errors,
        )

    async def list(self, call: Call, query: SuppressionsQuery) -> SuppressionList | HttpReply:
        """Return suppressions of the caller, newest first: a page, or all of them in lines or as a table."""
        if call.media_type == JSON:
            found = await self._page(call, query, query.cursor, query.limit, call.deadline)
            return SuppressionList(data=found.data, next_cursor=found.next_cursor)
        # The first page is read before the status is sent, so that an error still becomes a problem.
        first = await self._page(call, query, query.cursor, _PAGE, call.deadline)
        return HttpReply(self._export(call, query, first), media_type=call.media_type)

    async def get(self, call: Call, suppression_id: UUID) -> Suppression:
        """Return a suppression of the caller."""
        request = GetSuppression(suppression_id=suppression_id, owner_id=call.principal.owner_id)
        return await self._rpc.call(request, Suppression, call.deadline)

    async def lift(self, call: Call, suppression_id: UUID) -> None:
        """End a suppression of the caller."""
        request = LiftSuppression(suppression_id=suppression_id, owner_id=call.principal.owner_id)
        lifted = await self._rpc.call(request, Suppression, call.deadline)
        target, before = f"suppression:{suppression_id}", lifted.model_dump(mode="json")
        await self._audit.record_now(call, Action.SUPPRESSION_LIFTED, target, before=before)

    async def lift_matching(self, call: Call, query: SuppressionsBulk) -> BulkResult:
        """End the suppressions of the caller that match; a dry run only counts them."""
        request = LiftSuppressions(
            owner_id=call.principal.owner_id, wanted=query.wanted(), dry_run=query.dry_run
        )
        found = await self._rpc.call(request, SuppressionsLifted, call.deadline)
        result = BulkResult(**found.model_dump(), dry_run=query.dry_run)
        if not query.dry_run:
            chosen = query.wanted().model_dump(mode="json", exclude_defaults=True)
            self._audit.record_with(
                call,
                Action.SUPPRESSION_LIFTED,
                "suppression:matching",
                before=chosen,
                after={"lifted": found.changed},
            )
        return result

    async def _add(
        self, call: Call, entries: Sequence[SuppressionEntry], origin: AddedOrigin, deadline: Deadline
    ) -> SuppressionsAdded:
        request = AddSuppressions(owner_id=call.principal.owner_id, origin=origin, entries=list(entries))
        return await self._rpc.call(request, SuppressionsAdded, deadline)

    async def _page(
        self, call: Call, query: SuppressionsQuery, before: UUID | None, limit: int, deadline: Deadline
    ) -> Suppressions:
        request = ListSuppressions(
            owner_id=call.principal.owner_id, wanted=query.wanted(), before=before, limit=limit
        )
        return await self._rpc.call(request, Suppressions, deadline)

    async def _export(self, call: Call, query: SuppressionsQuery, page: Suppressions) -> AsyncIterator[bytes]:
        """Yield `page` and all that follow it, in lines or as a table."""
        if call.media_type == CSV:
            yield tables.written([COLUMNS])
        while True:
            # In a thread, as a thousand rows of a table take some 20 ms.
            write = partial(_written_as, call.media_type, page.data)
            yield await threads.run(write, until=Deadline.after(_PAGE_S))
            if page.next_cursor is None:
                return
            page = await self._page(call, query, page.next_cursor, _PAGE, Deadline.after(_PAGE_S))


def _written_as(media_type: str, page: Sequence[Suppression]) -> bytes:
    rows = [one.model_dump(mode="json") for one in page]
    if media_type != CSV:
        return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    return tables.written(
        [tables.guarded("" if row[name] is None else str(row[name])) for name in COLUMNS] for row in rows
    )

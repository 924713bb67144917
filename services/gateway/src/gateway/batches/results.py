"""The outcome of items: results as pages, lines or a table, the items themselves, and their errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from uuid import UUID

import orjson

from chassis import threads
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import Conflict, ServiceError
from contracts import batch_items
from contracts import batches as contract
from contracts.json_texts import member
from gateway.acceptance.acceptor import Acceptor
from gateway.batches.inputs import ItemsQuery, ResultsQuery
from gateway.batches.lookup import BatchLookup
from gateway.http import tables
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.replies import CSV, JSON, HttpReply

_PAGE = 1000
# The rows of a page of small results; the size of a page is bounded by that of its message.
_MOST_ROWS = 4000
_PAGE_S = 15
# The most bytes of rows that are written as a table at once, in about a millisecond.
_SHORT_BYTES = 8 * 1024
# Around the rows of a page with one row per line; see `contracts.batches.ListResults`.
_LINES_BEGIN, _LINES_END = b'{"data":[\n', b"\n],"
_COLUMNS = ("position", "custom_id", "status", "attempts", "error_code", "error_detail", "result")


class ResultReader:
    """Reads items and results of a caller's batch from batch-processor, page by page."""

    def __init__(self, acceptor: Acceptor, lookup: BatchLookup, rpc: RpcClient) -> None:
        self._acceptor = acceptor
        self._lookup = lookup
        self._rpc = rpc

    async def results(self, call: Call, batch_id: UUID, query: ResultsQuery) -> HttpReply:
        """Return results in input order: a page as JSON, or all of them one per line, or as a table.

        With a `limit` lines and tables are pages, too.
        """
        if call.media_type == JSON:
            page = await self._page(call.principal, batch_id, query, call.deadline)
            return HttpReply(page + b"\n", headers=_headers(page))
        await self._lookup.find(call.principal, batch_id, "batch", call.deadline)
        # The first page is read before the status is sent, so that an invalid cursor still becomes a problem.
        is_page = "limit" in query.model_fields_set
        limit = query.limit if is_page and call.media_type != CSV else min(query.limit, _PAGE)
        first = query.model_copy(update={"limit": limit})
        page = await self._page(call.principal, batch_id, first, call.deadline, lines=True)
        headers = _headers(page)
        if not is_page:
            exported = self._export(call, batch_id, query, page)
            return HttpReply(exported, media_type=call.media_type, headers=headers)
        lines, cursor = split_page(page)
        if cursor is not None:
            headers["x-next-cursor"] = cursor
        body = await written_as(call.media_type, lines, call.deadline, is_first=True)
        return HttpReply(body, media_type=call.media_type, headers=headers)

    async def items(self, call: Call, batch_id: UUID, query: ItemsQuery) -> bytes:
        """Return a page of the items of a batch, each with its payload and the errors of its attempts."""
        question = batch_items.ListItems(
            batch_id=batch_id,
            owner_id=call.principal.owner_id,
            limit=query.limit,
            cursor=query.cursor,
        )
        return await self._ask(call.principal, question, call.deadline, b'{"data":[],"next_cursor":null}')

    async def errors(self, call: Call, batch_id: UUID) -> bytes:
        """Return the errors of a batch by code, with samples."""
        question = batch_items.ListErrors(batch_id=batch_id, owner_id=call.principal.owner_id)
        return await self._ask(call.principal, question, call.deadline, b'{"data":[],"next_cursor":null}')

    async def _page(
        self,
        principal: Principal,
        batch_id: UUID,
        query: ResultsQuery,
        deadline: Deadline,
        *,
        lines: bool = False,
    ) -> bytes:
        question = contract.ListResults(
            batch_id=batch_id,
            owner_id=principal.owner_id,
            status=query.status,
            limit=query.limit,
            cursor=query.cursor,
            lines=lines,
        )
        nothing = b'{"data":[],"next_cursor":null,"complete":false}'
        return await self._ask(principal, question, deadline, nothing)

    async def _ask(
        self,
        principal: Principal,
        question: contract.ListResults | batch_items.ListItems | batch_items.ListErrors,
        deadline: Deadline,
        nothing: bytes,
    ) -> bytes:
        """Return the answer to `question`, or `nothing` while batch-processor has not received the batch."""
        try:
            return await self._rpc.ask(question, deadline)
        except ServiceError as error:
            accepted = await self._acceptor.find_own(question.batch_id, principal, "batch")
            if error.status != 404 or accepted is None:
                raise
            return nothing

    async def _export(
        self, call: Call, batch_id: UUID, query: ResultsQuery, page: bytes
    ) -> AsyncIterator[bytes]:
        """Yield the results of `page` and of all that follow it, in lines or as a table.

        Raise `Conflict` when the batch was complete in `page` and is not any more: what its caller has been
        told would not be true.
        """
        is_first, was_complete = True, _is_complete(page)
        while True:
            if was_complete and not _is_complete(page):
                raise Conflict(f"Batch {batch_id} was retried while its results were read; read them again.")
            lines, cursor = split_page(page)
            rows = lines.count(b"\n")
            part = await written_as(call.media_type, lines, Deadline.after(_PAGE_S), is_first=is_first)
            is_first = False
            # A slow client keeps only this part and the next page in memory, without copies.
            del page, lines
            if cursor is None:
                yield part
                return
            # A page has many small results, but no more large ones than fit into a message. Rows of a table
            # are parsed here, one by one, so their pages stay short.
            most = _PAGE if call.media_type == CSV else _MOST_ROWS
            limit = min(most, max(_PAGE, 2 * rows))
            following = query.model_copy(update={"cursor": cursor, "limit": limit})
            deadline = Deadline.after(_PAGE_S)
            # The next page is requested while this one is being sent.
            coming = asyncio.create_task(
                self._page(call.principal, batch_id, following, deadline, lines=True)
            )
            # Retrieved even if the client goes away meanwhile, so that asyncio does not report an error.
            coming.add_done_callback(lambda page: page.cancelled() or page.exception())
            try:
                yield part
                page = await coming
            finally:
                coming.cancel()


def split_page(page: bytes) -> tuple[bytes, str | None]:
    """Return the rows of a page one per line, as batch-processor wrote them, and the cursor of the next page.

    A page that is not in lines comes from a batch-processor of the previous release.
    """
    if page.startswith(_LINES_BEGIN):
        rows, _, rest = page[len(_LINES_BEGIN) :].rpartition(_LINES_END)
        return rows.replace(b",\n", b"\n") + b"\n", orjson.loads(b"{" + rest)["next_cursor"]
    found = orjson.loads(page)
    lines = (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in found["data"])
    return b"".join(lines), found["next_cursor"]


def cells_of(line: bytes) -> list[str]:
    """Return a result as the cells of a table; its value is JSON text, as it was stored.

    A cell that a spreadsheet would evaluate as a formula gets a leading apostrophe.
    """
    row = orjson.loads(line)
    result = ""
    if row["result"] is not None:
        result = member(line, "result", orjson.dumps(row["result"])).decode()
    error = row["error"] or {"code": "", "detail": ""}
    cells = (row["custom_id"] or "", row["status"], str(row["attempts"]), *error.values(), result)
    return [str(row["position"]), *map(tables.guarded, cells)]


def _is_complete(page: bytes) -> bool:
    """Return whether the batch of a page of results had ended: the last member says so."""
    return page.endswith(b'"complete":true}')


async def written_as(media_type: str, lines: bytes, deadline: Deadline, *, is_first: bool) -> bytes:
    """Return rows, one per line, in CSV or as they are; the first ones of a table follow its head.

    Many rows of a table are written in a thread: results may have very many values.
    """
    if media_type != CSV:
        return lines
    write = partial(_table_of, lines, is_first=is_first)
    return write() if len(lines) <= _SHORT_BYTES else await threads.run(write, until=deadline)


def _table_of(lines: bytes, *, is_first: bool) -> bytes:
    rows = map(cells_of, lines.splitlines())
    return tables.written([_COLUMNS, *rows] if is_first else rows)


def _headers(page: bytes) -> dict[str, str]:
    return {"x-results-complete": "true" if _is_complete(page) else "false"}

"""Answers to requests: batches, results and counts, each for its owner only."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from batch_processor.batches import batch_repository, life_cycle
from batch_processor.batches.views import Surroundings, show
from batch_processor.errors import BatchNotFound, InvalidCursor
from batch_processor.limits.rules import LimitBook
from batch_processor.reading import item_pages, list_repository, repository, result_pages
from batch_processor.reading.repository import PAGE_BYTES
from chassis.deadlines import Deadline
from chassis.postgres import Connection, Postgres
from contracts.batch_items import ErrorSummaries, ListErrors, ListItems
from contracts.batches import (
    BatchCounts,
    CountBatches,
    GetBatch,
    ListBatches,
    ListResults,
)

# The shortest retention: what has ended since is there until the end of an answer.
_SURELY_KEPT = timedelta(days=1)
_FOREIGN_CURSOR = "The cursor does not belong to this list; leave it out to start from the first page."


class BatchAnswers:
    """Answers requests about batches. Another owner's batch is reported as not found."""

    def __init__(self, postgres: Postgres, limits: LimitBook, *, upload_expires_s: float) -> None:
        self._postgres = postgres
        self._limits = limits
        self._upload_expires_s = upload_expires_s

    async def get(self, request: GetBatch, _: Deadline) -> bytes:
        """Return a batch or task as the JSON of `Batch`; the result of a task as it was stored."""
        async with self._reading(request.batch_id, request.owner_id) as (connection, batch):
            if batch.kind != request.kind:
                raise BatchNotFound(f"There is no {request.kind} {request.batch_id}.")
            around = await batch_repository.surroundings(connection, [batch])
        return self._json(batch, around[batch.id]).encode()

    async def list(self, request: ListBatches, _: Deadline) -> bytes:
        """Return a page of batches or tasks, newest first, as the JSON of `Batches`.

        It is shorter than asked for when its results are large.
        """
        before = _place(request.cursor)
        async with self._postgres.connection() as connection:
            found, following = await list_repository.list_batches(
                connection,
                request.owner_id,
                kind=request.kind,
                wanted=request.wanted,
                before=before,
                limit=request.limit,
            )
            page = found[: await repository.count_fitting(connection, found)]
            around = await batch_repository.surroundings(connection, page)
        rows: list[str] = []
        size = 0
        for batch in page:
            if size >= PAGE_BYTES:
                break
            rows.append(self._json(batch, around[batch.id]))
            size += len(rows[-1])
        if len(rows) < len(found):
            following = page[len(rows) - 1].id
        cursor = f'"{following}"' if following else "null"
        return f'{{"data":[{",".join(rows)}],"next_cursor":{cursor}}}'.encode()

    async def results(self, request: ListResults, _: Deadline) -> bytes:
        """Return a page of results in input order, as the JSON of `Results`."""
        limit, status = request.limit, request.status
        after = _position(request.cursor)
        async with self._reading(request.batch_id, request.owner_id) as (connection, batch):
            _require_batch(batch)
            if status == "pending" or status == "running":
                page = await result_pages.list_unfinished(
                    connection, batch, status=status, after=after, limit=limit, lines=request.lines
                )
            else:
                page = await result_pages.list_ended(
                    connection, batch, status=status, after=after, limit=limit, lines=request.lines
                )
        return page.to_json(lines=request.lines)

    async def items(self, request: ListItems, _: Deadline) -> bytes:
        """Return a page of items in input order, as the JSON of `Items`."""
        after = _position(request.cursor)
        async with self._reading(request.batch_id, request.owner_id) as (connection, batch):
            _require_batch(batch)
            return await item_pages.list_items(connection, batch, after=after, limit=request.limit)

    async def errors(self, request: ListErrors, _: Deadline) -> ErrorSummaries:
        """Return the errors of a batch by their codes, the most frequent first, with the first items.

        Without samples they are counted for a retry, of a task as well.
        """
        async with self._reading(request.batch_id, request.owner_id) as (connection, batch):
            if request.samples:
                _require_batch(batch)
            errors = await repository.sum_up_errors(
                connection, batch.id, codes=request.codes, samples=request.samples
            )
        return ErrorSummaries(data=errors)

    async def count(self, request: CountBatches, _: Deadline) -> BatchCounts:
        """Return how many batches and tasks the owner has in each status."""
        before, until = _place(request.before), _place(request.until)
        async with self._postgres.connection() as connection:
            return await list_repository.count_batches(
                connection,
                request.owner_id,
                kind=request.kind,
                wanted=request.wanted,
                before=before,
                until=until,
            )

    @asynccontextmanager
    async def _reading(
        self, batch_id: UUID, owner_id: str
    ) -> AsyncIterator[tuple[Connection, life_cycle.StoredBatch]]:
        """Lend a connection and the owner's batch. Raise `BatchNotFound`, also if it is removed meanwhile."""
        async with self._postgres.connection() as connection:
            batch = await _own(connection, batch_id, owner_id)
            yield connection, batch
            if batch.finished_at is not None and batch.finished_at < datetime.now(UTC) - _SURELY_KEPT:
                # Its rows may have been removed between those that were read.
                await _own(connection, batch_id, owner_id)

    def _json(self, batch: life_cycle.StoredBatch, around: Surroundings) -> str:
        """Return a batch as the JSON of `Batch`, the result of a task as it was stored."""
        limits = self._limits.of_batch(batch.id, batch.operation or "", batch.options)
        shown = [limit.to_contract() for limit in limits]
        view = show(batch, around, upload_expires_s=self._upload_expires_s)
        text = view.model_copy(update={"limits": shown}).model_dump_json(exclude={"result"})
        return f'{text[:-1]},"result":{around.result_text or "null"}}}'


def _place(cursor: str | None) -> UUID | None:
    try:
        return UUID(cursor) if cursor is not None else None
    except ValueError as error:
        raise InvalidCursor(_FOREIGN_CURSOR) from error


def _position(cursor: str | None) -> int:
    if cursor is not None and not re.fullmatch("[0-9]{1,9}", cursor):
        raise InvalidCursor(_FOREIGN_CURSOR)
    return -1 if cursor is None else int(cursor)


def _require_batch(batch: life_cycle.StoredBatch) -> None:
    if batch.kind != "batch":
        raise BatchNotFound(f"{batch.id} is a task: read its result and its errors from the task itself.")


async def _own(connection: Connection, batch_id: UUID, owner_id: str) -> life_cycle.StoredBatch:
    batch = await batch_repository.get_batch(connection, batch_id)
    hidden = batch is None or batch.owner_id != owner_id
    if batch is None or hidden or batch.operation is None or batch.status == "abandoned":
        raise BatchNotFound(f"There is no batch {batch_id}.")
    return batch

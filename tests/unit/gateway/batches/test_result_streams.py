"""All results of a batch as one stream, of pages that are asked for ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from chassis.deadlines import Deadline
from chassis.errors import ServiceError, Unavailable
from contracts.batches import ListResults
from gateway.batches.inputs import ResultsQuery
from gateway.batches.results import ResultReader
from support.waiting import until

BATCH = UUID(int=1)


class _Processor:
    """Stands in for batch-processor and what leads to it: `rows` results, of which a page holds `most`."""

    def __init__(self, rows: int, *, most: int = 5000, failing: ServiceError | None = None) -> None:
        self.limits: list[int] = []
        self._rows = rows
        self._most = most
        self._failing = failing

    async def find(self, *_: Any) -> dict[str, Any]:
        return {}

    async def find_own(self, *_: Any) -> None:
        return None

    async def ask(self, question: ListResults, _: Deadline) -> bytes:
        self.limits.append(question.limit)
        if question.cursor is not None and self._failing is not None:
            raise self._failing
        first = 0 if question.cursor is None else int(question.cursor) + 1
        behind = min(self._rows, first + min(question.limit, self._most))
        lines = b",\n".join(b"%d" % position for position in range(first, behind))
        cursor = b"null" if behind == self._rows else b'"%d"' % (behind - 1)
        return b'{"data":[\n' + lines + b'\n],"next_cursor":' + cursor + b',"complete":true}'


async def _stream(processor: _Processor) -> AsyncIterator[bytes]:
    anything = cast(Any, processor)
    reader = ResultReader(anything, anything, anything)
    call = SimpleNamespace(
        media_type="application/x-ndjson",
        principal=SimpleNamespace(owner_id="ann"),
        deadline=Deadline.after(60),
    )
    reply = await reader.results(cast(Any, call), BATCH, ResultsQuery())
    return cast(AsyncIterator[bytes], reply.body)


async def test_all_rows_come_once_and_in_order_in_pages_that_grow() -> None:
    processor = _Processor(12_345)
    lines = b"".join([part async for part in await _stream(processor)]).splitlines()
    assert lines == [b"%d" % position for position in range(12_345)]
    assert processor.limits == [1000, 2000, 4000, 4000, 4000]


async def test_pages_of_large_results_are_not_asked_for_with_a_larger_limit() -> None:
    processor = _Processor(100, most=10)
    lines = b"".join([part async for part in await _stream(processor)]).splitlines()
    assert len(lines) == 100
    assert set(processor.limits) == {1000}


async def test_the_next_page_is_made_while_its_reader_takes_this_one() -> None:
    processor = _Processor(10_000)
    parts = await _stream(processor)
    await anext(parts)
    await until(lambda: len(processor.limits) == 2)
    # One page ahead and no more, however slow the reader is.
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(processor.limits) == 2


async def test_a_page_that_fails_fails_the_stream_behind_the_rows_before_it() -> None:
    parts = await _stream(_Processor(10_000, failing=Unavailable("away", retry_after_s=1)))
    assert len((await anext(parts)).splitlines()) == 1000
    with pytest.raises(Unavailable):
        await anext(parts)


async def test_a_reader_that_leaves_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    parts = await _stream(_Processor(10_000))
    await anext(parts)
    await cast(Any, parts).aclose()
    await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})

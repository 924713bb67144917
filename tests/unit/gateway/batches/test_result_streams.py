"""All results of a batch as one stream, of pages that are asked for ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from chassis.deadlines import Deadline
from chassis.errors import Conflict, ServiceError, Unavailable
from contracts.batches import ListResults
from gateway.batches.inputs import ResultsQuery
from gateway.batches.results import ResultReader
from gateway.http.replies import CSV, JSON, NDJSON, HttpReply
from support.waiting import until

BATCH = UUID(int=1)


class _Processor:
    """Stands in for batch-processor and what leads to it: `rows` results, of which a page holds `most`.

    `ended` says of each page in turn whether the batch has ended, and of the last one for all that follow.
    """

    def __init__(
        self,
        rows: int,
        *,
        most: int = 5000,
        failing: ServiceError | None = None,
        ended: tuple[bool, ...] = (True,),
    ) -> None:
        self.limits: list[int] = []
        self._ended = list(ended)
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
        lines = b",\n".join(self._row(position) for position in range(first, behind))
        cursor = b"null" if behind == self._rows else b'"%d"' % (behind - 1)
        ended = b"true" if self._ended[0] else b"false"
        self._ended = self._ended[1:] or self._ended
        return b'{"data":[\n' + lines + b'\n],"next_cursor":' + cursor + b',"complete":' + ended + b"}"

    def _row(self, position: int) -> bytes:
        return b"%d" % position


class _Table(_Processor):
    """Has results that can be written as rows of a table."""

    def _row(self, position: int) -> bytes:
        about = b'"custom_id":null,"status":"succeeded","attempts":1,"error":null,"result":7'
        return b'{"position":%d,' % position + about + b"}"


async def _reply(processor: _Processor, media_type: str = NDJSON, **query: Any) -> HttpReply:
    anything = cast(Any, processor)
    reader = ResultReader(anything, anything, anything)
    call = SimpleNamespace(
        media_type=media_type, principal=SimpleNamespace(owner_id="ann"), deadline=Deadline.after(60)
    )
    return await reader.results(cast(Any, call), BATCH, ResultsQuery(**query))


async def _stream(processor: _Processor) -> AsyncIterator[bytes]:
    return cast(AsyncIterator[bytes], (await _reply(processor)).body)


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


@pytest.mark.parametrize("media_type", [JSON, NDJSON, CSV])
@pytest.mark.parametrize("limit", [{}, {"limit": 2}], ids=["all", "page"])
async def test_every_form_of_the_results_says_whether_the_batch_had_ended(
    media_type: str, limit: dict[str, int]
) -> None:
    for has_ended, says in ((True, "true"), (False, "false")):
        reply = await _reply(_Table(3, ended=(has_ended,)), media_type, **limit)
        assert reply.headers["x-results-complete"] == says


async def test_a_batch_that_is_retried_while_its_results_are_read_cuts_the_stream() -> None:
    parts = await _stream(_Processor(10_000, ended=(True, False)))
    await anext(parts)
    with pytest.raises(Conflict, match="was retried"):
        await anext(parts)
    # What was not said to be complete may end while it is read.
    rows = [part async for part in await _stream(_Processor(2500, ended=(False, True)))]
    assert len(b"".join(rows).splitlines()) == 2500


@pytest.mark.parametrize("media_type", [NDJSON, CSV])
async def test_lines_and_tables_come_in_pages_where_a_limit_is_given(media_type: str) -> None:
    heads = 1 if media_type == CSV else 0
    processor = _Table(5)
    seen: list[int] = []
    cursor = None
    for _ in range(3):
        reply = await _reply(processor, media_type, limit=2, cursor=cursor)
        assert isinstance(reply.body, bytes)
        seen.append(len(reply.body.splitlines()) - heads)
        cursor = reply.headers.get("x-next-cursor")
    assert (seen, cursor) == ([2, 2, 1], None)
    # A page of a table is parsed row by row, so a long one is not asked for.
    await _reply(processor, media_type, limit=5000)
    assert processor.limits == [2, 2, 2, 1000 if media_type == CSV else 5000]


async def test_a_reader_that_leaves_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    parts = await _stream(_Processor(10_000))
    await anext(parts)
    await cast(Any, parts).aclose()
    await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})

"""Pages of bars as tables: they take much more memory than as JSON, and wait for room before they come."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import orjson
import pytest

from chassis.deadlines import Deadline
from contracts.scopes import Scope
from contracts.stocks import GetBars
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.replies import CSV, JSON, NDJSON
from gateway.http.shared_bytes import MOST_SHARED_BYTES, SharedBytes
from gateway.stocks import tables
from gateway.stocks.book import QuoteBook
from gateway.stocks.inputs import BarsQuery
from gateway.stocks.service import StockService

LARGEST = BarsQuery(limit=10_000)


def page(number: int) -> bytes:
    """Return a page of bars as stock-data writes it."""
    values = {"o": "12.123456", "h": "13.123456", "l": "11.123456", "c": "12.345678", "v": "123456789012"}
    bars = [
        {"t": f"2004-01-{number % 28 + 1:02}T05:00:00Z", **values, "factor": "0.0178571"}
        for number in range(number)
    ]
    return orjson.dumps({"symbol": "AAPL", "data": bars, "next_cursor": "c"})


class BarPages:
    """Stock-data, whose pages come when `go` is set; counts those that were requested."""

    def __init__(self) -> None:
        self.requested = 0
        self.go = asyncio.Event()

    async def ask(self, _: GetBars, __: Deadline) -> bytes:
        self.requested += 1
        await self.go.wait()
        return page(10)


def call(owner: int, media_type: str = CSV) -> Call:
    return Call(Principal(owner, "", "", "", frozenset(Scope)), Deadline.after(20), media_type)


async def test_tables_have_room_before_their_pages_are_requested() -> None:
    rpc: Any = BarPages()
    shared = SharedBytes()
    service = StockService(QuoteBook(fresh_s=60), rpc, shared=shared)
    owners = (1, 1, 1, *range(2, 20))
    waiting = [asyncio.create_task(service.bars(call(owner), "AAPL", LARGEST)) for owner in owners]
    await asyncio.sleep(0.05)
    # Two of an owner, and one of each other owner, until the memory for all is used up.
    held = rpc.requested * LARGEST.limit * tables.BYTES_OF_A_BAR
    assert rpc.requested == 7
    assert held - tables.PART_BYTES == shared.taken <= MOST_SHARED_BYTES
    # Those that are passed on as they are wait for nothing.
    waiting.append(asyncio.create_task(service.bars(call(1, JSON), "AAPL", LARGEST)))
    await asyncio.sleep(0.05)
    assert rpc.requested == 8
    rpc.go.set()
    await asyncio.gather(*waiting)
    assert (rpc.requested, shared.taken) == (len(waiting), 0)


@pytest.mark.parametrize("media_type", [CSV, NDJSON])
def test_a_table_has_all_bars_and_the_next_cursor(media_type: str) -> None:
    content, bars = page(3), orjson.loads(page(3))["data"]
    reply = tables.reply(media_type, content)
    assert isinstance(reply.body, bytes)
    assert reply.headers == {"x-next-cursor": "c"}
    lines = reply.body.decode().splitlines()
    if media_type == CSV:
        columns = ["t", "o", "h", "l", "c", "v", "factor"]
        assert lines == [",".join(columns), *(",".join(map(bar.get, columns)) for bar in bars)]
    else:
        assert [orjson.loads(line) for line in lines] == bars
    empty = tables.reply(media_type, b'{"data":[],"warnings":[{"text":"a, b]}"}],"next_cursor":null}')
    assert (empty.headers, empty.body) == ({}, b"t,o,h,l,c,v,factor\r\n" if media_type == CSV else b"")


@pytest.mark.parametrize("media_type", [CSV, NDJSON])
def test_a_table_takes_no_more_memory_than_it_is_counted_for(media_type: str) -> None:
    content = page(LARGEST.limit)
    assert len(content) > 1_000_000
    gc.collect()
    tracemalloc.start()
    try:
        reply = tables.reply(media_type, content)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(reply.body, bytes)
    assert reply.body.count(b"\n") >= LARGEST.limit
    assert len(content) + most <= LARGEST.limit * tables.BYTES_OF_A_BAR

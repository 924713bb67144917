"""The replay while PostgreSQL stands still or restarts: ticks go on, and history never begins anew."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta

import asyncpg
import psutil
import pytest

from contracts.stocks import Quote
from native import postgres
from support.stock_stack import DAYS_OF_A_SECOND, StockStack, epochs, replayed_moment
from support.waiting import until

_STANDSTILL_S = 8
# A second of this replay is a day of history, and a weekend lies between two of them.
_A_MOMENT = timedelta(days=4)


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[postgres.PostgresServer]:
    """Yield a server of the test's own, because it is stopped."""
    async with postgres.start(tmp_path_factory.mktemp("stopped")) as started:
        yield started


@pytest.fixture
async def stack(broker_url: str, server: postgres.PostgresServer) -> AsyncIterator[StockStack]:
    async with AsyncExitStack() as exits:
        yield StockStack(broker_url, server.dsn("stock_data"), exits)


def postmaster(server: postgres.PostgresServer) -> psutil.Process:
    return psutil.Process(int((server.cluster.data / "postmaster.pid").read_text().split()[0]))


@asynccontextmanager
async def standing_still(server: postgres.PostgresServer) -> AsyncIterator[None]:
    """Stop the server and its sessions (SIGSTOP) for the length of the block."""
    main = postmaster(server)
    stopped = [main, *main.children(recursive=True)]
    for each in stopped:
        os.kill(each.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in reversed(stopped):
            os.kill(each.pid, signal.SIGCONT)


def apple(ticks: list[Quote]) -> list[Quote]:
    return [quote for quote in ticks if quote.symbol == "AAPL"]


def largest_step_back(moments: list[datetime]) -> timedelta:
    return max((before - after for before, after in itertools.pairwise(moments)), default=timedelta(0))


async def test_ticks_go_on_while_postgresql_stands_still(
    stack: StockStack, server: postgres.PostgresServer, ticks: list[Quote]
) -> None:
    await stack.run(replay_enabled=True, **DAYS_OF_A_SECOND)
    await until(lambda: ticks)
    async with standing_still(server):
        await asyncio.sleep(_STANDSTILL_S)
        heard = len(ticks)
        await until(lambda: len(ticks) > heard)
    await asyncio.sleep(3)
    assert len(epochs(ticks)) == 1
    offsets = [quote.stream.offset for quote in apple(ticks) if quote.stream]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
    moments = [replayed_moment(quote) for quote in apple(ticks)]
    assert largest_step_back(moments) < timedelta(0)


async def test_the_feed_goes_on_whichever_of_two_replicas_leads_after_a_standstill(
    stack: StockStack, server: postgres.PostgresServer, ticks: list[Quote]
) -> None:
    replicas = [await stack.run(replay_enabled=True, **DAYS_OF_A_SECOND) for _ in range(2)]
    await until(lambda: all(each.board.position for each in replicas))
    async with standing_still(server):
        await asyncio.sleep(_STANDSTILL_S)
        leader = next(each for each in replicas if each.feed.is_running)
        before = leader.board.position
    assert before is not None
    await asyncio.sleep(4)
    assert sum(each.feed.is_running for each in replicas) == 1
    latest = [quote for quote in apple(ticks) if quote.stream and quote.stream.epoch == epochs(ticks)[-1]]
    moments = [replayed_moment(quote) for quote in latest if quote.as_of > before.shown_at]
    assert moments[0] > before.replayed - _A_MOMENT
    assert largest_step_back(moments) < timedelta(0)
    shown = {each.board.position.replayed for each in replicas if each.board.position}
    assert max(shown) - min(shown) < _A_MOMENT


async def test_a_restart_of_postgresql_does_not_interrupt_the_replay(
    stack: StockStack, server: postgres.PostgresServer, ticks: list[Quote]
) -> None:
    await stack.run(replay_enabled=True, **DAYS_OF_A_SECOND)
    await until(lambda: ticks)
    old = postmaster(server).pid
    os.kill(old, signal.SIGINT)
    dsn = server.dsn("stock_data")

    async def is_saved_again() -> bool:
        try:
            connection = await asyncpg.connect(dsn, timeout=1)
        except (OSError, asyncpg.PostgresError):
            return False
        position = await connection.fetchval("SELECT shown_at FROM replay")
        await connection.close()
        return bool(position and position > restarted)

    restarted = apple(ticks)[-1].as_of + timedelta(seconds=2)
    await until(is_saved_again, timeout_s=40)
    assert postmaster(server).pid != old
    assert len(epochs(ticks)) == 1
    assert largest_step_back([replayed_moment(quote) for quote in apple(ticks)]) < timedelta(0)

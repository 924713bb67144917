"""Code that stands for another machine is niced, and processes that start meanwhile are not."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from faults.elsewhere import NICENESS, elsewhere
from faults.neighbour import Home, Neighbour
from faults.street import environment


@asynccontextmanager
async def reported() -> AsyncIterator[list[object]]:
    found: list[object] = [threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)]
    yield found
    found.append(threading.get_native_id())


async def test_a_context_begins_and_ends_in_one_niced_thread() -> None:
    async with elsewhere(reported()) as found:
        assert found == [found[0], NICENESS]
        assert found[0] != threading.get_native_id()
    assert found[2:] == [found[0]]


async def test_a_process_that_starts_meanwhile_is_not_niced() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with elsewhere(reported()):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"),
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
    assert (int(output), os.getpriority(os.PRIO_PROCESS, 0)) == (own, own)


async def test_a_loop_that_stands_still_in_the_other_thread_does_not_delay_this_one() -> None:
    @asynccontextmanager
    async def sleeping() -> AsyncIterator[asyncio.Task[None]]:
        async def stand_still() -> None:
            time.sleep(0.5)  # noqa: ASYNC251 - it shall stand still

        yield asyncio.create_task(stand_still())

    started = time.monotonic()
    async with elsewhere(sleeping()) as task:
        await asyncio.sleep(0)
        took_s = time.monotonic() - started
        assert not task.done()
    assert took_s < 0.4


async def test_errors_of_entering_or_leaving_are_raised_in_the_calling_thread() -> None:
    @asynccontextmanager
    async def broken(*, at_once: bool) -> AsyncIterator[None]:
        if at_once:
            raise ValueError("on the way in")
        yield
        raise ValueError("on the way out")

    with pytest.raises(ValueError, match="on the way in"):
        async with elsewhere(broken(at_once=True)):
            raise AssertionError("it was entered")
    with pytest.raises(ValueError, match="on the way out"):
        async with elsewhere(broken(at_once=False)):
            pass


def test_the_clients_of_the_neighbour_take_none_of_its_time() -> None:
    neighbour = Neighbour(Home("http://127.0.0.1:1", "key", ("127.0.0.1", 1), "http://127.0.0.1:1"))
    started = time.process_time()
    for _ in range(50):
        neighbour.new_client()
    # 50 clients that read the certificates took 1.5 s of processor time.
    assert time.process_time() - started < 0.5

"""Computing processes: each call has one to itself, and is ended at its deadline whatever it does there."""

from __future__ import annotations

import asyncio
import decimal
import mmap
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from batch_processor.errors import ProcessDied
from batch_processor.execution.chunks import ChunkRun
from batch_processor.execution.processes import MOST_ANSWER_BYTES, Processes
from batch_processor.execution.running_chunk import StoredItem
from batch_processor.operation import Context, Operation, RetryPolicy
from batch_processor.operations import indicators
from chassis import shares
from chassis.errors import Conflict
from support import faulty_double
from support.operation_world import OperationWorld
from support.waiting import until


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("words \ud800")
        self.hidden = lambda: None


def loop_for_ever(_: object) -> None:
    while True:
        pass


def fail(error: BaseException) -> None:
    raise error


def fail_unpicklably() -> None:
    raise Unpicklable


def make_lambda() -> object:
    return lambda: None


def keep(megabytes: int) -> None:
    kept.append(bytearray(megabytes << 20))


def share_without_end() -> None:
    while True:
        shared.append(mmap.mmap(-1, 8 << 20))
        shared[-1].write(bytes(8 << 20))
        time.sleep(0.01)


def set_precision() -> None:
    decimal.getcontext().prec = 3


def third() -> str:
    return str(1 / decimal.Decimal(3))


def print_much() -> int:
    return sum(os.write(1, b"x" * 65_536) for _ in range(64))


kept: list[bytearray] = []
shared: list[mmap.mmap] = []


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    made = Processes(1)
    yield made
    await made.close()


async def test_a_process_that_a_function_has_changed_computes_nothing_more(processes: Processes) -> None:
    first = await processes.compute(os.getpid)
    await processes.compute(os.chdir, "/")
    second = await processes.compute(os.getpid)
    await processes.compute(keep, 20)
    assert await processes.compute(os.getpid) == second != first
    await processes.compute(keep, 150)
    assert await processes.compute(os.getpid) not in (first, second)


async def test_a_function_leaves_the_precision_of_decimals_to_the_next_one(processes: Processes) -> None:
    first = await processes.compute(third)
    await processes.compute(set_precision)
    assert await processes.compute(third) == first


async def test_a_copy_that_a_function_makes_of_its_process_answers_no_call(processes: Processes) -> None:
    for n in range(5):
        assert await processes.compute(os.fork) > 0
        assert await processes.compute(abs, -n) == n


async def test_what_a_function_prints_is_dropped(
    processes: Processes, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await processes.compute(print_much) == 4 << 20
    assert "xx" not in capfd.readouterr().out


async def test_a_function_runs_in_another_process_which_is_kept(processes: Processes) -> None:
    first = await processes.compute(os.getpid)
    assert first != os.getpid()
    assert await processes.compute(os.getpid) == first
    assert await processes.compute(indicators.compute, [1.0, 2.0], ["sma:2"]) == {"sma:2": [None, 1.5]}


async def test_a_process_without_calls_is_ended_after_a_while() -> None:
    processes = Processes(1, idle_s=0.3)
    idle = psutil.Process(await processes.compute(os.getpid))
    await until(lambda: not idle.is_running())
    assert await processes.compute(os.getpid) != idle.pid
    await processes.close()


async def test_a_process_that_dies_is_replaced_and_the_error_says_try_again(processes: Processes) -> None:
    with pytest.raises(ProcessDied, match="3") as caught:
        await processes.compute(os._exit, 3)
    assert caught.value.retryable
    assert await processes.compute(len, "abc") == 3


async def test_a_cancelled_call_kills_the_process_that_it_would_keep(processes: Processes) -> None:
    pid = await processes.compute(os.getpid)
    process = psutil.Process(pid)
    begun_at = process.cpu_times().user
    endless = asyncio.create_task(processes.compute(loop_for_ever, None))
    while process.cpu_times().user < begun_at + 0.1:
        await asyncio.sleep(0.01)
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless
    assert await processes.compute(os.getpid) != pid
    process.wait(10)


@pytest.mark.parametrize("error", [Conflict("no"), ValueError("bad"), SystemExit(3), KeyboardInterrupt()])
async def test_an_exception_of_the_function_comes_back_and_the_process_stays(
    processes: Processes, error: BaseException
) -> None:
    pid = await processes.compute(os.getpid)
    with pytest.raises(type(error)) as caught:
        await processes.compute(fail, error)
    assert str(caught.value) == str(error)
    assert await processes.compute(os.getpid) == pid


async def test_an_error_that_cannot_travel_sends_its_words(processes: Processes) -> None:
    with pytest.raises(RuntimeError, match="Unpicklable: words"):
        await processes.compute(fail_unpicklably)


async def test_a_result_that_cannot_travel_is_an_error_of_its_call(processes: Processes) -> None:
    with pytest.raises(Exception, match="pickle"):
        await processes.compute(make_lambda)
    assert await processes.compute(len, "ab") == 2


async def test_a_function_that_needs_more_memory_than_it_may_use_fails_alone() -> None:
    processes = Processes(1, memory_bytes=128 << 20)
    pid = await processes.compute(os.getpid)
    with pytest.raises(MemoryError):
        await processes.compute(bytearray, 512 << 20)
    assert await processes.compute(os.getpid) == pid
    await processes.close()


async def test_a_function_that_shares_more_memory_than_it_may_use_ends_with_its_process() -> None:
    processes = Processes(1, memory_bytes=128 << 20)
    with pytest.raises(ProcessDied, match="shared memory"):
        await processes.compute(share_without_end)
    assert await processes.compute(len, "ab") == 2
    await processes.close()


async def test_a_result_that_is_too_large_for_the_service_stays_where_it_was_computed(
    processes: Processes,
) -> None:
    with pytest.raises(ValueError, match=f"at most {MOST_ANSWER_BYTES}"):
        await processes.compute(bytes, MOST_ANSWER_BYTES + 1)
    assert len(await processes.compute(bytes, MOST_ANSWER_BYTES - 1000)) == MOST_ANSWER_BYTES - 1000


async def test_only_the_items_to_blame_fail_and_their_neighbours_wait_without_being_late(
    processes: Processes, world: OperationWorld
) -> None:
    async def run(number: int, _: Context) -> int:
        return await processes.compute(faulty_double.double, number)

    # Shorter than the way of all items through the only process.
    operation = Operation(
        "double", "for tests", payload=None, run=run, timeout_s=2, retry=RetryPolicy(max_attempts=1)
    )
    items = [StoredItem(n, str(n)) for n in range(8)]
    await processes.compute(len, "started")
    chunk = ChunkRun(operation, items, attempt=1, context=world.context)
    await chunk.execute()
    outcomes = chunk.take()
    assert {failure.position: failure.code for failure in outcomes.failures} == {
        3: "timeout",
        5: "worker-died",
    }
    assert sorted(outcomes.positions) == [0, 1, 2, 4, 6, 7]


async def test_a_call_that_is_cancelled_while_its_process_starts_leaves_the_process_to_the_next(
    processes: Processes,
) -> None:
    waiting = asyncio.create_task(processes.compute(len, "a"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await processes.compute(len, "ab") == 2


async def test_owners_take_turns_however_many_calls_one_of_them_has(processes: Processes) -> None:
    ended: list[str] = []

    async def compute(owner: str) -> None:
        shares.current.set(owner)
        await processes.compute(len, owner)
        ended.append(owner)

    await asyncio.gather(*map(compute, ["ann"] * 10 + ["bob"]))
    assert ended.index("bob") <= 1


async def test_closing_kills_computing_processes(processes: Processes) -> None:
    process = psutil.Process(await processes.compute(os.getpid))
    endless = asyncio.create_task(processes.compute(loop_for_ever, None))
    await asyncio.sleep(0)
    await processes.close()
    with pytest.raises((ProcessDied, asyncio.CancelledError, RuntimeError)):
        await endless
    assert not process.is_running()


_PARENT = """
import asyncio, os, sys
from batch_processor.execution.processes import Processes
from test_processes import loop_for_ever

async def main():
    processes = Processes(1)
    print(await processes.compute(os.getpid), flush=True)
    await processes.compute(loop_for_ever, None)

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_processes_do_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    path = [Path(__file__).parent, *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, str(script), env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    process = psutil.Process(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()
    await asyncio.to_thread(psutil.wait_procs, [process], timeout=10)
    assert not process.is_running()


async def test_closing_what_was_never_used_does_nothing() -> None:
    await Processes(1).close()

"""Computations of owners: nobody waits for the work of another owner, and what goes on is not forgotten."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from chassis import shares, threads
from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded, TooManyAtOnce
from chassis.threads import Threads, outlasting
from support.waiting import until

SERVICES = Path(__file__).parents[3] / "services"
# What starts or ends a process, or asks for its operator, serves no owner.
OF_NO_OWNER = {
    "chassis/allocator.py",
    "chassis/inspecting.py",
    "chassis/runtime.py",
    "batch_processor/execution/processes.py",
    "batch_processor/execution/process_pool.py",
    "stock_data/replay/ticks.py",
    "stock_data/resources.py",
}


class Computations:
    """Computations that end when they are told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends = threading.Event()

    def do(self, name: str) -> str:
        self.begun.append(name)
        assert self._ends.wait(30)
        return name

    def end(self) -> None:
        self._ends.set()


@asynccontextmanager
async def working() -> AsyncIterator[Computations]:
    work = Computations()
    try:
        yield work
    finally:
        work.end()


def start(pool: Threads, work: Computations, owner: str) -> asyncio.Task[str]:
    return asyncio.create_task(pool.run(lambda: work.do(owner), owner_id=owner))


def waits() -> float:
    return REGISTRY.get_sample_value("tickwire_thread_wait_seconds_count") or 0


async def begins(work: Computations, *owners: str) -> None:
    await until(lambda: sorted(work.begun) == sorted(owners))


async def test_a_neighbour_begins_at_once_beside_ten_times_the_work_that_an_owner_may_have() -> None:
    pool = Threads(most=2, of_owner=1)
    async with working() as work:
        greedy = [start(pool, work, "a") for _ in range(10)]
        await begins(work, "a")
        neighbour = start(pool, work, "b")
        await begins(work, "a", "b")
        assert pool.turns.held_by("a") == 10
        work.end()
        assert await asyncio.gather(neighbour, *greedy) == ["b", *["a"] * 10]
    assert pool.turns.held_by("a") == pool.turns.held_by("b") == 0


async def test_owners_take_turns_when_all_threads_are_taken() -> None:
    pool = Threads(most=1, of_owner=1)
    async with working() as work:
        tasks = [start(pool, work, owner) for owner in "aaaabc"]
        await begins(work, "a")
        work.end()
        await asyncio.gather(*tasks)
    assert work.begun[:3] == ["a", "b", "c"]


async def test_the_owner_is_that_of_the_present_request_and_the_thread_sees_its_context() -> None:
    pool = Threads()
    shares.current.set("7")
    assert await pool.run(lambda: (shares.current.get(), pool.turns.taken_by("7"))) == ("7", 1)


async def test_the_error_of_a_computation_is_that_of_its_caller() -> None:
    def fail() -> None:
        raise ValueError("no number")

    pool = Threads()
    with pytest.raises(ValueError, match="no number"):
        await pool.run(fail, owner_id="a")
    assert pool.turns.taken_by("a") == 0


async def test_too_much_work_of_an_owner_that_waits_is_refused() -> None:
    pool = Threads(most=2, of_owner=1, most_waiting=3)
    async with working() as work:
        tasks = [start(pool, work, "a") for _ in range(4)]
        await begins(work, "a")
        with pytest.raises(TooManyAtOnce):
            await start(pool, work, "a")
        work.end()
        await asyncio.gather(*tasks)


async def test_work_of_a_caller_that_leaves_never_begins_or_keeps_its_turn_until_its_end() -> None:
    pool = Threads(most=2, of_owner=1)
    async with working() as work:
        running, waiting = start(pool, work, "a"), start(pool, work, "a")
        await begins(work, "a")
        for task in (running, waiting):
            task.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        assert pool.turns.held_by("a") == 1, "the thread still runs"
        later = start(pool, work, "a")
        await asyncio.sleep(0)
        assert work.begun == ["a"]
        work.end()
        assert await later == "a"
    assert work.begun == ["a", "a"]


@pytest.mark.parametrize(
    ("at_work", "error"),
    [("", DeadlineExceeded), ("bc", DeadlineExceeded), ("a", TooManyAtOnce)],
    ids=["is slow", "waits for others", "waits for its own"],
)
async def test_what_has_no_result_by_its_deadline_fails_at_once_and_says_for_whom_it_waited(
    at_work: str, error: type[Exception]
) -> None:
    pool = Threads(most=2, of_owner=1)
    async with working() as work:
        others = [start(pool, work, owner) for owner in at_work]
        await begins(work, *at_work)
        with pytest.raises(error):
            await pool.run(lambda: work.do("late"), until=Deadline.after(0.02), owner_id="a")
        assert ("late" in work.begun) is not bool(at_work)
        work.end()
        await asyncio.gather(*others)


async def test_work_never_begins_after_its_deadline_and_its_wait_is_counted() -> None:
    pool, before = Threads(), waits()
    async with working() as work:
        with pytest.raises(DeadlineExceeded):
            await pool.run(lambda: work.do("late"), until=Deadline.after(-1), owner_id="a")
    assert (work.begun, pool.turns.held_by("a")) == ([], 0)
    assert waits() == before + 1


async def test_waits_that_end_without_a_thread_are_counted() -> None:
    pool, before = Threads(of_owner=1, most_waiting=1), waits()
    async with working() as work:
        running = start(pool, work, "a")
        await begins(work, "a")
        with pytest.raises(TooManyAtOnce, match="Other requests"):
            await pool.run(lambda: None, until=Deadline.after(0.02), owner_id="a")
        waiting = start(pool, work, "a")
        await until(lambda: pool.turns.held_by("a") == 2)
        with pytest.raises(TooManyAtOnce):
            await start(pool, work, "a")
        assert waits() == before + 3, "of the thread, of the deadline, of the refusal"
        work.end()
        await asyncio.gather(running, waiting)


async def test_the_error_of_work_whose_caller_has_left_is_no_fault_of_the_loop() -> None:
    loop, faults = asyncio.get_running_loop(), []

    def fail(work: Computations) -> None:
        work.do("a")
        raise ValueError("no number")

    pool, handler = Threads(), loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: faults.append(context["message"]))
    try:
        async with working() as work:
            task = asyncio.create_task(pool.run(lambda: fail(work), owner_id="a"))
            await begins(work, "a")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not pool.turns.held_by("a"))
        del task
        gc.collect()
    finally:
        loop.set_exception_handler(handler)
    assert faults == []


@pytest.mark.parametrize("is_nested", [True, False])
async def test_what_a_thread_works_with_is_given_back_when_it_has_ended_and_not_before(
    is_nested: bool,
) -> None:
    pool, released = Threads(), []

    async def hold(work: Computations) -> None:
        with outlasting(lambda: released.append("outer")):
            if not is_nested:
                await pool.run(lambda: work.do("a"), owner_id="a")
                return
            with outlasting(lambda: released.append("inner")):
                await asyncio.gather(pool.run(lambda: work.do("a"), owner_id="a"))

    async with working() as work:
        task = asyncio.create_task(hold(work))
        await begins(work, "a")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert released == []
        work.end()
        await until(lambda: len(released) == 1 + is_nested)


async def test_without_a_thread_at_work_it_is_given_back_at_once() -> None:
    pool, released = Threads(), []
    with outlasting(lambda: released.append("outer")):
        await pool.run(lambda: None, owner_id="a")
    assert released == ["outer"]


def test_no_work_of_owners_goes_to_the_pool_that_serves_who_comes_first() -> None:
    users = {
        path.relative_to(SERVICES).as_posix().partition("/src/")[2]
        for path in SERVICES.glob("*/src/**/*.py")
        if re.search(r"asyncio\.to_thread|run_in_executor\(None", path.read_text())
    }
    assert users == OF_NO_OWNER


async def test_a_process_has_one_pool() -> None:
    assert threads.of_process() is threads.of_process()

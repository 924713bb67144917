"""Items that harm their process: the one to blame fails, and its neighbours run at most once more."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from prometheus_client import REGISTRY

from batch_processor.execution import reports
from batch_processor.execution.claims import Loaded, RemainingItems
from batch_processor.execution.isolated_run import MOST_CALLS, ServiceCalls
from batch_processor.execution.process_pool import ProcessPool
from batch_processor.execution.processes import Processes
from batch_processor.execution.running_chunk import ItemFailure, StoredItem
from batch_processor.execution.shared_runs import SharedRuns
from batch_processor.operations.echo import OPERATION as ECHO
from batch_processor.operations.stock_quote import OPERATION as QUOTE
from chassis import shares
from chassis.broker.rpc import RpcClient
from chassis.errors import Unavailable
from support.chunk_bench import OPTIONS, ChunkBench, claim, of
from support.harmful_operation import (
    CROWDED,
    CURIOUS,
    HOARDING,
    OF_TEXTS,
    OPERATION,
    PATIENT,
    SLEEPY,
    WAYS,
)
from support.waiting import until

POISON = 7
pytestmark = pytest.mark.usefixtures("installed")


@pytest.mark.parametrize("way", WAYS)
async def test_only_the_item_that_harms_its_process_fails(
    bench: ChunkBench, tmp_path: Path, way: str
) -> None:
    notes = tmp_path / "notes"
    payloads: list[dict[str, str]] = [{"notes": str(notes)} for _ in range(20)]
    payloads[POISON]["way"] = way
    await bench.finish(OPERATION, [json.dumps(payload) for payload in payloads])
    assert list(bench.failures) == [POISON]
    assert bench.results == {n: str(n) for n in range(20) if n != POISON}
    failure = bench.failures[POISON]
    late = dict.fromkeys(("loop", "expression", "stop", "print"), "timeout")
    expected = late | {
        "hunger": "out-of-memory",
        "shared hunger": "worker-died",
        "hunger of many": "worker-died",
        **dict.fromkeys(
            ("memory without a file", "segment that outlives it", "large file"), "operation-failed"
        ),
    }
    assert failure.code == expected.get(way, failure.code)
    assert failure.code in ("worker-died", "timeout", "out-of-memory", "operation-failed")
    if way in ("shared hunger", "hunger of many"):
        assert "The process was killed, as its shared memory, or the memory of" in failure.detail
    runs = Counter(map(int, notes.read_text().split()))
    assert runs.pop(POISON) <= 3
    assert max(runs.values()) <= 2


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_an_item_asks_other_services_in_the_share_of_its_owner_and_operation(bench: ChunkBench) -> None:
    shares_taken: list[str] = []

    class Calls(ServiceCalls):
        async def answer(self, parts: Sequence[Any], *, begun: Callable[[], None]) -> str:
            shares_taken.append(shares.current.get())
            raise Unavailable("stock-data is away")

    bench.calls = Calls(cast(RpcClient, None), Processes(1))
    await bench.run(QUOTE, of(['{"symbol": "AAPL"}'])).execute()
    assert shares_taken == ["ann/stock.quote"]


async def test_an_item_that_floods_the_service_with_calls_has_few_of_them_there(bench: ChunkBench) -> None:
    answering, most, expected = 0, 0, 20
    all_there = asyncio.Event()

    class Calls(ServiceCalls):
        async def answer(self, parts: Sequence[Any], *, begun: Callable[[], None]) -> str:
            nonlocal answering, most
            answering += 1
            most = max(most, answering)
            if answering == expected:
                all_there.set()
            await all_there.wait()
            # Others come meanwhile.
            await asyncio.sleep(0.2)
            answering -= 1
            raise Unavailable("stock-data is away")

    bench.calls = Calls(cast(RpcClient, None), Processes(1))
    await bench.finish(CURIOUS, ["20"])
    few = json.loads(bench.results.pop(0))
    all_there.clear()
    expected = MOST_CALLS
    await bench.finish(CURIOUS, [str(5 * MOST_CALLS)])
    many = json.loads(bench.results.pop(0))
    assert few == {"service-unavailable": 20}
    assert sum(many.values()) == 5 * MOST_CALLS
    assert many["too-many-at-once"] > 0
    assert most == MOST_CALLS


async def test_a_call_that_fails_in_the_service_is_answered(bench: ChunkBench) -> None:
    class Calls(ServiceCalls):
        async def answer(self, parts: Sequence[Any], *, begun: Callable[[], None]) -> str:
            raise BlockingIOError("no more processes")

    bench.calls = Calls(cast(RpcClient, None), Processes(1))
    await bench.finish(CURIOUS, ["2"])
    assert json.loads(bench.results[0]) == {"service-unavailable": 2}


async def test_what_items_keep_in_memory_is_not_missed_by_those_of_the_next_chunk(bench: ChunkBench) -> None:
    pids = []
    for payloads in (["5"], ["-60"], ["50"], ["-60"]):
        await bench.finish(HOARDING, payloads)
        pids.append(bench.results.pop(0))
    # A little is kept without harm.
    assert pids[0] == pids[1] == pids[2] != pids[3]


async def test_an_item_may_have_many_threads_within_the_memory_of_its_process(bench: ChunkBench) -> None:
    await bench.finish(CROWDED, ["20"])
    assert bench.results == {0: "20"}


async def test_texts_that_kill_their_process_are_found_one_by_one(bench: ChunkBench) -> None:
    payloads = [str(n) for n in range(200)]
    payloads[POISON] = '"exit"'
    await bench.finish(OF_TEXTS, payloads)
    assert [(failure.position, failure.code) for failure in bench.failures.values()] == [
        (POISON, "worker-died")
    ]
    assert bench.failures[POISON].detail.startswith("3 processes died")
    assert bench.results == {n: str(n) for n in range(200) if n != POISON}


async def test_of_tasks_that_share_a_process_only_the_one_that_kills_it_fails(bench: ChunkBench) -> None:
    texts = [str(n) for n in range(20)]
    texts[POISON] = '"exit"'
    shared = SharedRuns(lambda own, operation, items: bench.run(operation, Loaded(own, items)))
    waiting = [RemainingItems.of([n], attempt=1) for n in range(20)]
    results: dict[int, str] = {}
    failed: list[ItemFailure] = []
    while waiting:
        chunks = [Loaded(claim(rest), [StoredItem(n := rest.first_position, texts[n])]) for rest in waiting]
        reported = [report for chunk in chunks if (report := reports.of_lost(chunk)) is not None]
        runs = [
            (chunk.claim, shared.join(chunk.claim, OF_TEXTS, chunk.items) or bench.run(OF_TEXTS, chunk))
            for chunk in chunks
            if reports.of_lost(chunk) is None
        ]
        await asyncio.gather(*(run.execute() for _, run in runs))
        reported += [reports.of_ended(own, run, None) for own, run in runs]
        for report in reported:
            results |= zip(report.outcomes.positions, report.outcomes.results, strict=True)
            failed += report.outcomes.failures
        waiting = [rest for report in reported for rest in report.rests]
    assert results == {n: str(n) for n in range(20) if n != POISON}
    assert [(failure.position, failure.code) for failure in failed] == [(POISON, "worker-died")]


async def test_a_chunk_that_holds_its_process_is_stopped_when_its_run_is_cancelled(
    bench: ChunkBench, tmp_path: Path
) -> None:
    run = bench.run(PATIENT, of([json.dumps({"notes": str(tmp_path / "notes"), "way": "loop"})]))
    executing = asyncio.create_task(run.execute())
    while not (tmp_path / "notes").exists():
        await asyncio.sleep(0.01)
    executing.cancel()
    executing.cancel()
    with suppress(asyncio.CancelledError):
        await executing
    assert run.unfinished == [0]
    assert run.death is None
    await bench.finish(ECHO, ["1"])
    assert bench.results == {0: "1"}


async def test_a_process_that_begins_no_more_says_which_items_have_not_begun(
    bench: ChunkBench, tmp_path: Path
) -> None:
    first = json.dumps({"seconds": 1, "notes": str(tmp_path / "notes")})
    run = bench.run(SLEEPY, of([first, "0", "0"]))
    executing = asyncio.create_task(run.execute())
    await until((tmp_path / "notes").exists)
    run.stop_beginning()
    await until(lambda: run.not_begun == [1, 2])
    run.let_go(run.not_begun)
    assert run.unfinished == [0]
    await executing
    assert (run.take().positions, run.unfinished, run.death) == ([0], [], None)


async def test_a_cancelled_run_says_which_items_have_not_begun(bench: ChunkBench, tmp_path: Path) -> None:
    first = json.dumps({"seconds": 600, "notes": str(tmp_path / "notes")})
    run = bench.run(SLEEPY, of([first, "0", "0"]))
    assert run.not_begun == [0, 1, 2]
    executing = asyncio.create_task(run.execute())
    await until((tmp_path / "notes").exists)
    executing.cancel()
    with suppress(asyncio.CancelledError):
        await executing
    assert (run.unfinished, run.not_begun) == ([0, 1, 2], [1, 2])


async def test_a_process_has_no_file_or_socket_of_the_service(bench: ChunkBench) -> None:
    process = await bench.pool.take()
    bench.pool.give_back(process)
    await bench.finish(ECHO, ["1"])
    of_service = {connection.laddr for connection in psutil.Process().net_connections("inet")}
    theirs = psutil.Process(process.pid)
    assert not theirs.net_connections("inet")
    assert of_service.isdisjoint(connection.laddr for connection in theirs.net_connections("inet"))
    assert not [file.path for file in theirs.open_files() if "tickwire" in file.path]
    # Where memory runs out, it dies first.
    assert oom_score(process.pid) == 1000


async def test_quick_chunks_share_a_process_and_slow_ones_get_their_own(
    bench: ChunkBench, tmp_path: Path
) -> None:
    for _ in range(20):
        await bench.run(ECHO, of(["1"])).execute()
    first = await bench.pool.take()
    second = await asyncio.wait_for(bench.pool.take(), 10)
    assert first.pid != second.pid
    bench.pool.give_back(first)
    bench.pool.give_back(second)
    again = await bench.pool.take()
    assert again.pid == second.pid
    bench.pool.give_back(again)


async def test_the_first_chunk_of_an_owner_is_the_first_in_the_line_for_a_process(bench: ChunkBench) -> None:
    taken = [await bench.pool.take() for _ in range(3)]
    others = [asyncio.create_task(bench.pool.take()) for _ in range(2)]
    await asyncio.sleep(0)
    first = asyncio.create_task(bench.pool.take(is_first=True))
    await asyncio.sleep(0)
    bench.pool.give_back(taken[0])
    assert (await first).pid == taken[0].pid
    # One that does not wait any more does not keep a process from the next.
    others[0].cancel()
    bench.pool.give_back(taken[1])
    assert (await others[1]).pid == taken[1].pid
    for process in taken:
        bench.pool.give_back(process)


async def test_how_long_the_chunk_at_the_head_of_the_line_waits_to_begin_is_measured(
    bench: ChunkBench,
) -> None:
    def waited_s() -> float:
        return REGISTRY.get_sample_value("tickwire_batch_not_begun_seconds") or 0.0

    taken = [await bench.pool.take() for _ in range(3)]
    await until(lambda: waited_s() == 0)
    head, last = [asyncio.create_task(bench.pool.take()) for _ in range(2)]
    await until(lambda: waited_s() > 0)
    seen = waited_s()
    # It grows as long as nothing begins, which the alert relies on.
    await until(lambda: waited_s() > 2 * seen)
    bench.pool.give_back(taken[0])
    bench.pool.give_back(taken[1])
    await asyncio.gather(head, last)
    await until(lambda: waited_s() == 0)
    for process in taken:
        bench.pool.give_back(process)


async def test_the_process_that_is_kept_is_a_fresh_one_when_there_was_nothing_to_do_for_a_while() -> None:
    pool = ProcessPool(1, OPTIONS, renewed_after_s=0.1)
    watching = asyncio.create_task(pool.watch_forever())
    process = await pool.take()
    pool.give_back(process)
    await ChunkBench(pool).finish(ECHO, ["1"])
    worked = psutil.Process(process.pid)
    await until(lambda: not worked.is_running())
    fresh = await pool.take()
    pool.give_back(fresh)
    assert fresh.pid != worked.pid
    # One that has not worked is as good as another.
    await asyncio.sleep(1.5)
    assert (await pool.take()).pid == fresh.pid
    watching.cancel()
    await pool.close()


async def test_a_process_that_was_taken_lives_until_its_chunk_begins(bench: ChunkBench) -> None:
    process = await bench.pool.take()
    assert process.marks.due == math.inf
    bench.pool.give_back(process)


async def test_processes_end_with_their_pool(bench: ChunkBench) -> None:
    process = await bench.pool.take()
    theirs = psutil.Process(process.pid)
    await bench.pool.close()
    assert not theirs.is_running() or theirs.status() == psutil.STATUS_ZOMBIE


_SERVICE = """
import asyncio, json, sys
from support.harmful_operation import LEAVING
from test_isolation import OPTIONS, ChunkBench, ProcessPool, of

async def main():
    bench = ChunkBench(ProcessPool(1, OPTIONS))
    process = await bench.pool.take()
    bench.pool.give_back(process)
    print(process.pid, flush=True)
    await bench.run(LEAVING, of([json.dumps({"notes": sys.argv[1], "way": "expression"})])).execute()

asyncio.run(main())
"""


async def test_nothing_of_items_outlives_a_service_that_was_killed(tmp_path: Path) -> None:
    notes, path = tmp_path / "notes", [tmp_path / "plugins", Path(__file__).parent, *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _SERVICE,
        str(notes),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert service.stdout is not None
    blocked = psutil.Process(int(await service.stdout.readline()))
    await until(lambda: blocked.cpu_times().user > 0.5)
    # A daemon in a session of its own, and a copy with all that the process had open.
    left = [blocked, *map(psutil.Process, map(int, notes.read_text().split()))]
    assert len(left) == 3
    service.kill()
    await service.wait()
    # A process that is blocked in C cannot notice.
    await until(lambda: not [each for each in left if is_alive(each)])
    # Nor has anything else kept what it had open.
    assert not await service.stdout.read()


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False

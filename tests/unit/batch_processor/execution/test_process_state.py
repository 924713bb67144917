"""What items leave behind in their process is not found by those of the next chunk."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.chunk_bench import ChunkBench
from support.harmful_operation import CHANGES, CHANGING, DAEMON, LEAVING, OPERATION, WATCHDOG
from support.waiting import until


@pytest.mark.parametrize("what", CHANGES)
async def test_what_an_item_changes_in_its_process_is_not_found_by_those_of_the_next_chunk(
    bench: ChunkBench, what: str
) -> None:
    pids = []
    for payload in (None, None, what, None):
        await bench.finish(CHANGING, [json.dumps(payload)])
        pids.append(bench.results.pop(0, "") or bench.failures.pop(0).code)
    # What harms nobody is kept, such as an idle thread.
    assert pids[0] == pids[1] != pids[3]
    assert pids[2] in (pids[0], "operation-failed")


async def test_a_watchdog_that_an_item_leaves_behind_does_not_end_the_process_of_another(
    bench: ChunkBench,
) -> None:
    pids, threads = [], []
    for payload in (None, WATCHDOG, None):
        await bench.finish(CHANGING, [json.dumps(payload)])
        pids.append(bench.results.pop(0))
        threads.append(psutil.Process(int(pids[0])).num_threads())
    assert pids == [pids[0]] * 3
    assert threads == [threads[0]] * 3


async def test_a_daemon_that_an_item_starts_ends_with_its_chunk(bench: ChunkBench) -> None:
    await bench.finish(CHANGING, [json.dumps(DAEMON)])
    with suppress(psutil.NoSuchProcess):
        daemon = psutil.Process(int(bench.results[0]))
        await until(lambda: not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE)


async def test_what_an_item_starts_ends_with_a_process_that_dies(bench: ChunkBench, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    await bench.finish(LEAVING, [json.dumps({"notes": str(notes), "way": "exit"})])
    assert bench.failures[0].code == "worker-died"
    started = list(map(int, notes.read_text().split()))
    assert len(started) == 6
    assert not list(filter(psutil.pid_exists, started))


async def test_what_items_print_is_passed_on_slowly(
    bench: ChunkBench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    quiet, loud = ({"notes": str(tmp_path / "notes"), **more} for more in ({}, {"way": "print"}))
    await bench.finish(OPERATION, [json.dumps(loud), json.dumps(quiet)])
    assert (bench.failures[0].code, bench.results) == ("timeout", {1: "1"})
    await bench.pool.close()
    printed = capfd.readouterr()
    # It prints 32 MiB, in two runs of a second.
    assert 0 < printed.err.count("xx") < 1 << 20
    assert "xx" not in printed.out

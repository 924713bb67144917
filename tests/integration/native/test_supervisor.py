"""Programs that crash, hang and ignore signals, under the real supervisor."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from native import leftovers, supervisor
from native.directories import RunDirectory
from native.errors import NotReadyError, ProcessFailedError
from native.probes import Probe
from native.process import Program
from native.supervisor import ProgramEvent

IDLE = "import time; time.sleep(60)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print('asked to stop', flush=True))
print('up', flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True).wait()
"""
RUNNER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from native import memcached
async def main():
    async with memcached.start(Path(sys.argv[2])):
        print('up', flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
DEPLOY = str(Path(__file__).resolve().parents[3] / "deploy")


def program(
    directory: Path, name: str, script: str, *, says: str = "", stop_timeout_s: float = 5.0
) -> Program:
    """Return a Python one-liner that is ready once its log holds `says`."""
    run = RunDirectory.at(directory)

    async def check() -> None:
        if says not in run.log(name).read_text():
            raise NotReadyError(f"{says} not said")

    return Program(
        name=name,
        command=(sys.executable, "-c", script),
        environment=run.environment(),
        directory=directory,
        log=run.log(name),
        probe=Probe(f"{name} says {says!r}", check),
        stop_timeout_s=stop_timeout_s,
        ready_timeout_s=1.0,
    )


async def test_a_killed_process_comes_back(tmp_path: Path) -> None:
    events: list[ProgramEvent] = []
    async with supervisor.running(
        tmp_path, [[program(tmp_path, "idle", IDLE)]], report=events.append
    ) as started:
        keeper = started.keepers["idle"]
        first = keeper.process.pid
        psutil.Process(first).kill()
        async with asyncio.timeout(10):
            while not (keeper.process.pid != first and any(e.state == "exited" for e in events)):
                await asyncio.sleep(0.05)
        await keeper.ready(timeout_s=10)
        assert psutil.Process(keeper.process.pid).is_running()
    assert [event.detail for event in events if event.state == "exited"] == ["signal SIGKILL, again in 0.5 s"]
    assert leftovers.find(tmp_path) == []


async def test_a_process_that_ends_at_once_is_named_with_its_last_words(tmp_path: Path) -> None:
    broken = program(tmp_path, "broken", "print('no such table'); raise SystemExit(3)", says="never")
    with pytest.raises(ProcessFailedError) as error:
        async with supervisor.running(tmp_path, [[broken]]):
            pass
    message = str(error.value)
    for expected in (
        "broken ended with exit code 3",
        "no such table",
        "broken says 'never'",
        "next:",
        "broken.log",
    ):
        assert expected in message


async def test_a_process_that_never_gets_ready_is_named_with_its_check(tmp_path: Path) -> None:
    silent = program(tmp_path, "silent", IDLE, says="hello")
    with pytest.raises(ProcessFailedError, match=r"silent was not ready after 1 s \(hello not said\)"):
        async with supervisor.running(tmp_path, [[program(tmp_path, "idle", IDLE)], [silent]]):
            pass
    assert leftovers.find(tmp_path) == []


async def test_the_time_of_a_program_begins_when_the_stages_before_it_are_ready(tmp_path: Path) -> None:
    late = "import time; time.sleep(2); print('up', flush=True); time.sleep(60)"
    server = replace(program(tmp_path, "server", late, says="up"), ready_timeout_s=60.0)
    # Ready as soon as the server is, in whose log it looks.
    service = replace(program(tmp_path, "service", IDLE), probe=server.probe)
    async with supervisor.running(tmp_path, [[server], [service]]) as started:
        assert set(started.keepers) == {"server", "service"}
    assert leftovers.find(tmp_path) == []


async def test_a_process_that_ignores_the_signal_is_killed_after_it(tmp_path: Path) -> None:
    stubborn = program(tmp_path, "stubborn", STUBBORN, says="up", stop_timeout_s=0.3)
    async with supervisor.running(tmp_path, [[stubborn]]) as started:
        process = started.keepers["stubborn"].process
    assert (process.last_lines(), process.ending) == (["up", "asked to stop"], "signal SIGKILL")
    assert leftovers.find(tmp_path) == []


async def test_a_grandchild_does_not_survive(tmp_path: Path) -> None:
    async with supervisor.running(tmp_path, [[program(tmp_path, "parent", PARENT, says="up")]]):
        assert len(leftovers.find(tmp_path)) == 2
    assert leftovers.find(tmp_path) == []


async def test_a_program_that_ends_at_once_is_not_waited_for_nor_is_what_it_has_started(
    tmp_path: Path,
) -> None:
    parent = program(tmp_path, "parent", PARENT, says="up")
    other = replace(program(tmp_path, "other", STUBBORN, says="up"), kill_signal=signal.SIGUSR1)
    async with supervisor.running(tmp_path, [[parent], [other]], at_once=True) as started:
        assert len(leftovers.find(tmp_path)) == 3
    assert leftovers.find(tmp_path) == []
    endings = {name: keeper.process.ending for name, keeper in started.keepers.items()}
    assert endings == {"parent": "signal SIGKILL", "other": "signal SIGUSR1"}


async def test_the_last_stage_stops_first(tmp_path: Path) -> None:
    events: list[ProgramEvent] = []
    stages = [[program(tmp_path, name, IDLE)] for name in ("server", "watcher", "service")]
    async with supervisor.running(tmp_path, stages, report=events.append):
        pass
    assert [e.name for e in events if e.state == "stopped"] == ["service", "watcher", "server"]


async def test_a_stopped_process_stays_stopped_until_it_is_started(tmp_path: Path) -> None:
    async with supervisor.running(tmp_path, [[program(tmp_path, "idle", IDLE)]]) as started:
        keeper = started.keepers["idle"]
        await keeper.stop()
        await asyncio.sleep(0.7)
        assert leftovers.find(tmp_path) == []
        await keeper.start()
        assert len(leftovers.find(tmp_path)) == 1


async def test_the_kernel_ends_the_children_of_a_killed_runner(tmp_path: Path) -> None:
    runner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUNNER, DEPLOY, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert runner.stdout
    assert await runner.stdout.readline() == b"up\n"
    runner.send_signal(signal.SIGKILL)
    await runner.wait()
    async with asyncio.timeout(10):
        while leftovers.find(tmp_path):
            await asyncio.sleep(0.1)

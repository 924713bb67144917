"""Programs that the benchmark starts end with it, and its proxy delays bytes as long as it says."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from benchmarks.latency import delayed, smtp_times
from benchmarks.programs import program, python, sink
from support.waiting import until

_TESTS = Path(__file__).parents[2]
# A program that starts another one, and both ignore that they should end.
_STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"])
time.sleep(60)
"""


async def test_a_program_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    script = tmp_path / "stubborn.py"
    script.write_text(_STUBBORN)
    async with program(sys.executable, str(script), environment=os.environ, patience_s=0.5) as pid:
        process = psutil.Process(pid)
        await until(process.children, what=lambda: "it has a child")
        family = [process, *process.children()]
    assert not any(map(_runs, family))


async def test_the_output_of_a_program_is_shown_when_the_block_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = "print('the port is taken', flush=True); import time; time.sleep(60)"

    async def fail() -> None:
        async with python("-c", code):
            await asyncio.sleep(1)
            raise TimeoutError

    with pytest.raises(TimeoutError):
        await fail()
    assert "the port is taken" in capfd.readouterr().err


@pytest.mark.parametrize("delay_ms", [5, 50])
async def test_the_proxy_delays_each_direction_and_the_handshake(delay_ms: int) -> None:
    async with sink() as port, delayed(port, delay_ms=delay_ms) as far:
        greeting_s, answer_s = await smtp_times(far)
    assert greeting_s >= 4 * delay_ms / 1000
    assert answer_s >= 2 * delay_ms / 1000


async def test_the_proxy_passes_every_octet_on_in_order() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, delayed(server.sockets[0].getsockname()[1], delay_ms=1) as far:
        reader, writer = await asyncio.open_connection("127.0.0.1", far)
        sent = os.urandom(1 << 20)
        writer.write(sent)
        assert await reader.readline() == b"220 hello\r\n"
        assert await reader.readexactly(len(sent)) == sent
        writer.close()


# The line that the benchmark says when it begins to measure, and the one when its broker runs.
@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGTERM, b"batch items"),
        pytest.param(signal.SIGKILL, b"batch items", marks=pytest.mark.long),
        # It ends as SIGTERM does, so less has to run meanwhile.
        (signal.SIGINT, b"1/1 batches"),
    ],
)
async def test_a_benchmark_that_is_stopped_leaves_no_process(number: signal.Signals, line: bytes) -> None:
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    command = ("-m", "benchmarks", "--only", "batches", "--scale", "0.01")
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        env=environment,
        cwd=_TESTS,
        stderr=pipe,
        stdout=pipe,
        # What a shell starts in the background ignores Ctrl-C, and so would all that these tests start.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stderr is not None
    benchmark = psutil.Process(child.pid)
    try:
        async with asyncio.timeout(100):
            while line not in await child.stderr.readline():
                assert child.returncode is None
        family = await until(
            lambda: benchmark.children(recursive=True), what=lambda: "it has started a program"
        )
        child.send_signal(number)
        async with asyncio.timeout(60):
            await child.wait()
        # It has not come to its end by itself.
        assert child.returncode in (130, -number)
    finally:
        if child.returncode is None:
            child.kill()
    await until(lambda: not [one for one in family if _runs(one)], timeout_s=60, what=lambda: str(family))


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

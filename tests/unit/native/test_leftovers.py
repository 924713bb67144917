"""Commands after a runner was killed, some of whose processes take a while to end, or hang."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from native.__main__ import main
from native.directories import MARKER, RunDirectory


@pytest.fixture
def left(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process of the stack in `tmp_path`, which has no runner."""
    run = RunDirectory.at(tmp_path / "run")
    words = (sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)")
    with subprocess.Popen(words, env={MARKER: str(run.root)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("command", ["stop", "reset"])
def test_a_command_ends_what_a_killed_runner_has_left(
    tmp_path: Path, left: subprocess.Popen[bytes], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(tmp_path / "run"), command]) == 0
    assert left.wait(10) != 0
    assert (tmp_path / "run").exists() == (command == "stop")
    said = capsys.readouterr().out
    assert command == "reset" or f"({left.pid})" in said

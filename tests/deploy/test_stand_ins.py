"""The programs that make stand-ins: whatever becomes of them, none of their children is left."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.deployment import stand_ins
from support.deployment.composed import until
from support.deployment.engine import NoEngine


@pytest.mark.parametrize(("end", "timeout_s"), [("exit 3", 60.0), ("wait", 3.0)], ids=["failed", "too late"])
def test_a_program_that_does_not_succeed_leaves_no_child(tmp_path: Path, end: str, timeout_s: float) -> None:
    child = tmp_path / "child"
    script = f"sleep 300 & echo $! >{child}; echo 'half of it is there' >&2; {end}"
    with pytest.raises(NoEngine, match="half of it is there"):
        stand_ins.run_whole(["sh", "-c", script], timeout_s=timeout_s)
    left = int(child.read_text())
    until(lambda: None if runs(left) else True)


def runs(pid: int) -> bool:
    """Return whether a process has not been killed; nobody may be there to bury it."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False

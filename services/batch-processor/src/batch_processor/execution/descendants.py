"""The processes that a process has started, and those that they have started."""

from __future__ import annotations

import contextlib
import os
import signal

_MOST_BYTES = 65_536


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`; none if it is gone."""
    found: list[int] = []
    # A process, or a thread of it, may end meanwhile.
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        for thread in threads:
            with contextlib.suppress(OSError):
                found += map(int, read(f"{thread.path}/children").split())
    return found


def read(path: str) -> bytes:
    """Return what a small file of /proc says, in half of the time that `Path` needs."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)


def of(pid: int) -> list[int]:
    """Return the descendants of a process."""
    found = children_of(pid)
    for each in found:
        found += children_of(each)
    return found


def kill_those_of(pid: int) -> None:
    """Kill all descendants of a process. Those that they start meanwhile need another call."""
    for each in of(pid):
        with contextlib.suppress(OSError):
            os.kill(each, signal.SIGKILL)

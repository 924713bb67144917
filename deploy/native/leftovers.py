"""Processes of a stack that outlived their runner, found by the marker in their environment."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

from native.directories import MARKER
from native.process import kill

# For servers to store what they have in memory.
PATIENCE_S = 5.0


def find(root: Path) -> list[psutil.Process]:
    """Return the processes with the marker of the run directory `root`, except this one and its parents."""
    mine = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid not in mine and process.environ().get(MARKER) == str(root):
                found.append(process)
    return found


async def stop(root: Path, *, patience_s: float) -> list[str]:
    """End every leftover of `root`: SIGTERM, and SIGKILL after `patience_s`; return `name (pid)` of each."""
    found = find(root)
    labels = []
    for process in found:
        name = ""
        with suppress(psutil.NoSuchProcess):
            name = f"{process.name()} "
        labels.append(f"{name}({process.pid})")
    await kill(found, patience_s=patience_s)
    return labels

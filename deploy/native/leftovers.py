"""Processes of a stack that outlived their runner, found by the marker in their environment."""

from __future__ import annotations

from pathlib import Path

import psutil

from native.directories import MARKER
from native.process import kill


def find(root: Path) -> list[psutil.Process]:
    """Return the processes with the marker of the run directory `root`, except this one and its parents."""
    mine = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    return [
        process for process in psutil.process_iter() if process.pid not in mine and _belongs(process, root)
    ]


async def stop(root: Path, *, patience_s: float) -> list[str]:
    """End every leftover of `root`, politely for `patience_s`; return `name (pid)` of each."""
    found = find(root)
    labels = [_label(process) for process in found]
    await kill(found, patience_s=patience_s)
    return labels


def _belongs(process: psutil.Process, root: Path) -> bool:
    try:
        return process.environ().get(MARKER) == str(root)
    except (psutil.Error, OSError):
        return False


def _label(process: psutil.Process) -> str:
    try:
        return f"{process.name()} ({process.pid})"
    except psutil.NoSuchProcess:
        return f"({process.pid})"

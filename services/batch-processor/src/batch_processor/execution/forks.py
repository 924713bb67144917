"""Processes forked from a server that has loaded what they need, and nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_PRELOADED = ["batch_processor.execution.preloaded"]


def context() -> ForkServerContext:
    """Return the context that starts such processes: in milliseconds, without our files and sockets."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOADED)
    return found


def die_first() -> None:
    """Let the kernel end this process before others when machine or container has no memory left."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def adopt_orphans() -> None:
    """Make this process the parent of processes that those which it has started leave behind."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def mute_copies(connection: int) -> None:
    """Let no fork that an operation makes of this process answer for it on the descriptor `connection`.

    Such a copy reads the end of the connection, and what it writes is lost.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.register_at_fork(after_in_child=partial(os.dup2, nowhere, connection))

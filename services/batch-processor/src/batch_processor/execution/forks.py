"""Processes forked from a server that has loaded what they need, and nothing else."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

_PRELOADED = ["batch_processor.execution.preloaded"]


def context() -> ForkServerContext:
    """Return how such processes are started: in some milliseconds, without a file or socket of this one."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOADED)
    return found

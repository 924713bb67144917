"""Processes forked from a server that has loaded what they need, and nothing else."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

_PRELOADED = ["batch_processor.execution.preloaded"]


def context() -> ForkServerContext:
    """Return the context that starts such processes: in milliseconds, without our files and sockets."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOADED)
    return found

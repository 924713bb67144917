"""Processes forked from a server that has loaded what they need, and nothing else."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import warnings
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from batch_processor.execution import descendants, system_calls

# The largest file that operations write, unless they raise this limit for themselves: one that grows without
# end would fill a disk, or the memory of `/dev/shm`.
MOST_FILE_BYTES = 1 << 30
# Of a thread, which counts in full for the memory of its process, however little of it is used.
_STACK_BYTES = 2 << 20
_PR_SET_CHILD_SUBREAPER = 36
_PRELOADED = ["batch_processor.execution.preloaded"]
_EXIT_S = 5
# Between two looks at what is left behind: the server has to hear of each death.
_LOOK_S = 0.01
# The processes that the server has forked for this one, by their ids, with the id of the server. Its other
# children were left behind by processes that are gone.
_forked: dict[int, int] = {}
_forking = threading.Lock()


def context() -> ForkServerContext:
    """Return the context that starts such processes: in milliseconds, without our files and sockets."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOADED)
    return found


def start(process: ForkServerProcess) -> None:
    """Fork a process, which must be buried. This blocks: call it in a thread."""
    with _forking:
        process.start()
        assert process.pid, "it was started"
        _forked[process.pid] = _parent_of(process.pid)


def bury(process: ForkServerProcess) -> None:
    """Wait until a process is gone, and kill what it has left behind. This blocks: call it in a thread."""
    process.join(_EXIT_S)
    with _forking:
        server = _forked.pop(process.pid or 0, 0)
    until = time.monotonic() + _EXIT_S
    # The children of one that was killed come next.
    while time.monotonic() < until and (orphans := _orphans_of(server)):
        for pid in orphans:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_S)


def serve() -> None:
    """Prepare this process, if it is the server: it adopts the orphans of processes that it has forked.

    They end with it, and it ends with the service.
    """
    if not any(forkserver.__name__ in word for word in sys.orig_argv):
        # Whoever imports all modules, and must keep its own children and all system calls.
        return
    _adopt_orphans()
    # It says so of each of them.
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
    system_calls.deny()
    atexit.register(_end_all, os.getpid())


def settle(memory_bytes: int) -> None:
    """Prepare this process, a forked one, to run operations, with so much memory of its own at most."""
    # A process group of its own, so that processes that an operation starts end with it.
    os.setsid()
    # The process that answers and acknowledges has priority.
    os.nice(5)
    # The kernel ends it before others when machine or container has no memory left.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _adopt_orphans()
    # The server waits for the service and, with this copy, for all processes that would hold it.
    os.close(vars(forkserver._forkserver)["_forkserver_alive_fd"])  # noqa: SLF001 - it has no other name
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # numpy reserves 40 MiB for each further thread, before it computes anything.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    # By default it has 8 MiB: thirty threads would have all the memory.
    threading.stack_size(_STACK_BYTES)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = MOST_FILE_BYTES if hard == resource.RLIM_INFINITY else min(MOST_FILE_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def mute_copies(connection: int) -> None:
    """Let no fork that an operation makes of this process answer for it on the descriptor `connection`.

    Such a copy reads the end of the connection, and what it writes is lost.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.register_at_fork(after_in_child=partial(os.dup2, nowhere, connection))


def _adopt_orphans() -> None:
    """Make this process the parent of processes that those which it has started leave behind."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _parent_of(pid: int) -> int:
    try:
        # The name before the bracket may have spaces.
        _, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return 0
    return int(rest.split()[1])


def _orphans_of(server: int) -> list[int]:
    # None is forked meanwhile, as it would not be known yet.
    with _forking:
        return [pid for pid in descendants.children_of(server) if pid not in _forked]


def _end_all(server: int) -> None:
    """Kill what is left of the processes that this one, the server, has forked."""
    if os.getpid() != server:
        # A copy that ends has inherited this.
        return
    until = time.monotonic() + _EXIT_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < until:
            descendants.kill_those_of(server)
            # The children of one that was killed come next.
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(_LOOK_S)

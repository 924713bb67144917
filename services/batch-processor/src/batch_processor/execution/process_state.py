"""What code of operations can change in its process, and would leave behind for the code that runs next."""

from __future__ import annotations

import faulthandler
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, Self, TypeVar

from batch_processor.execution import descendants, process_memory

P = ParamSpec("P")
T = TypeVar("T")

# Files and sockets that may stay open: those that a module keeps for its next call.
_MOST_KEPT_FILES = 64
# The beginnings of the names of threads that wait for the next call of anybody.
_IDLE_THREADS = ("look-up", "to-thread")
# Those that programs handle; to ask for all of them takes as long as everything else here.
_SIGNALS = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD,
    signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))


class CountedThreads(ThreadPoolExecutor):
    """The threads that the loop gives to blocking calls; `at_work` are functions that have not returned."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="to-thread")
        self.at_work: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` in a thread."""
        future = super().submit(fn, *args, **kwargs)
        self.at_work.add(future)
        future.add_done_callback(self.at_work.discard)
        return future


@dataclass(frozen=True, slots=True)
class ProcessState:
    """The state of this process at a moment. `settings` are what is set for the whole process, by names."""

    settings: dict[str, object]
    modules: dict[str, ModuleType]
    threads: frozenset[int | None]
    files: int
    has_children: bool
    shared_bytes: int

    @classmethod
    def now(cls) -> Self:
        """Return the state of this process."""
        threads = (thread for thread in threading.enumerate() if not thread.name.startswith(_IDLE_THREADS))
        return cls(
            settings=_settings(),
            modules=dict(sys.modules),
            threads=frozenset(thread.ident for thread in threads),
            files=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            has_children=_has_children(),
            shared_bytes=process_memory.shared_bytes(os.getpid()),
        )


def left_since(before: ProcessState, *, own_bytes: int, limit_bytes: int) -> list[str]:
    """Return what the code that ran since `before` has left behind, in words; this never raises.

    New modules, some open files, idle threads, and half of the memory from `own_bytes` to `limit_bytes` do no
    harm. A change inside of a module is not noticed. A watchdog, which cannot be seen, is ended, and so are
    the processes that were started, whatever their group.
    """
    try:
        faulthandler.cancel_dump_traceback_later()
        now, kept_bytes = ProcessState.now(), data_bytes() - own_bytes
        kept_bytes += max(0, now.shared_bytes - before.shared_bytes)
        found = {
            **{name: value != before.settings[name] for name, value in now.settings.items()},
            "modules": not before.modules.items() <= now.modules.items(),
            "threads": bool(now.threads - before.threads),
            "open files": now.files - before.files > _MOST_KEPT_FILES,
            "processes": now.has_children,
            "memory": kept_bytes > (limit_bytes - own_bytes) / 2,
        }
        if now.has_children:
            descendants.kill_those_of(os.getpid())
    except Exception as error:
        # Such as no descriptor for looking.
        return [f"a process that cannot be looked at ({type(error).__name__})"]
    return [name for name, is_left in found.items() if is_left]


def data_bytes() -> int:
    """Return the memory of this process that counts under its limit."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def _settings() -> dict[str, object]:
    mask = os.umask(0o077)
    os.umask(mask)
    # To read it is to set it, too.
    stack_bytes = threading.stack_size()
    threading.stack_size(stack_bytes)
    try:
        folder = Path.cwd()
    except OSError:
        folder = None
    root = logging.getLogger()
    return {
        "working directory": folder,
        "file mode mask": mask,
        "environment": dict(os.environ),
        "time zone": time.tzname,
        "locale": locale.setlocale(locale.LC_ALL),
        "signal handlers": list(map(signal.getsignal, _SIGNALS)),
        "timers": list(map(signal.getitimer, _TIMERS)),
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "limits": [resource.getrlimit(limit) for limit in _LIMITS],
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": os.sched_getaffinity(0),
        "stack size of threads": stack_bytes,
        "recursion limit": sys.getrecursionlimit(),
        "import path": (list(sys.path), list(sys.meta_path)),
        "standard streams": (sys.stdin, sys.stdout, sys.stderr, *map(_file_at, range(3))),
        "hooks": (sys.excepthook, threading.excepthook, sys.gettrace(), sys.getprofile()),
        "warnings that raise": [each for each in warnings.filters if each[0] == "error"],
        "digits of integers": sys.get_int_max_str_digits(),
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
        "time-out of sockets": socket.getdefaulttimeout(),
        "logging": (root.level, root.manager.disable, list(root.handlers)),
    }


def _file_at(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True

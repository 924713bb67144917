"""An operation whose items harm their process in the way that their payload names."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import io
import locale
import mmap
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from batch_processor.execution import forks
from batch_processor.operation import Context, Operation, RetryPolicy
from contracts.stocks import GetQuotes, Quotes

TIMEOUT_S = 1.0


def _loop() -> None:
    while True:
        pass


def _hunger() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(8 << 20))


def _fork_and_exit() -> None:
    # What it leaves holds the socket of the process open.
    if os.fork() == 0:
        time.sleep(600)
    os._exit(4)


def _babble() -> None:
    for descriptor in range(3, 40):
        try:
            os.write(descriptor, b"\xff" * 8)
        except OSError:
            continue


def _leave_thread() -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()
    sys.exit(1)


def _recur() -> None:
    sys.setrecursionlimit(10**9)
    _recur()


def _open_files() -> None:
    _kept.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(100))


def _use_up_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    while True:
        _kept.append(os.open(os.devnull, os.O_RDONLY))


def _keep_shared(mib: int) -> None:
    for _ in range(mib):
        _kept.append(mmap.mmap(-1, 1 << 20))
        _kept[-1].write(b"x" * (1 << 20))


def _share() -> None:
    while True:
        _keep_shared(8)
        time.sleep(0.01)


def _share_among_processes() -> None:
    for _ in range(4):
        if os.fork() == 0:
            _kept.append(b"x" * (50 << 20))
            time.sleep(600)
    time.sleep(600)


def _write_a_file() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(forks.MOST_FILE_BYTES + 1)


def _share_as_system_v() -> None:
    if ctypes.CDLL(None, use_errno=True).shmget(0, 1 << 20, 0o600) < 0:
        raise OSError(ctypes.get_errno(), "no segment")


def _call_again() -> None:
    asyncio.get_running_loop().call_soon(_call_again)


def _print_without_end() -> None:
    for _ in range(512):
        os.write(1, b"x" * 65_535 + b"\n")


_kept: list[Any] = []
# Ends its process after a while, unless somebody ends it before.
WATCHDOG = "watchdog"
DAEMON = "daemon"
# What an item may leave behind in its process without harm to itself.
CHANGES: dict[str, Callable[[], Any]] = {
    "working directory": lambda: os.chdir("/tmp"),
    "file mode mask": lambda: os.umask(0o007),
    "environment": lambda: os.environ.update(LANGUAGE="tlh"),
    "locale": lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8"),
    "signal handlers": lambda: signal.signal(signal.SIGUSR1, lambda *_: None),
    "timers": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 600),
    "warnings that raise": lambda: warnings.simplefilter("error"),
    "digits of integers": lambda: sys.set_int_max_str_digits(700),
    "standard output": lambda: os.close(1),
    "stack size of threads": lambda: threading.stack_size(1 << 20),
    "recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() // 2),
    "limits": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)),
    "modules": lambda: sys.modules.update(json=sys),
    "import path": lambda: sys.path.clear(),
    "standard streams": lambda: setattr(sys, "stderr", io.StringIO()),
    "time-out of sockets": lambda: socket.setdefaulttimeout(0.001),
    "open files": _open_files,
    "all files": _use_up_files,
    "threads": lambda: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(),
    "functions in threads": lambda: _kept.append(
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    ),
    "timers of the event loop": lambda: asyncio.get_running_loop().call_later(600, print),
    "signals of the event loop": lambda: asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, print),
    "calls of the event loop": _call_again,
    "files that the event loop watches": lambda: asyncio.get_running_loop().add_reader(os.pipe()[0], print),
    "hooks of the event loop": lambda: asyncio.get_running_loop().set_exception_handler(print),
    "shared memory": lambda: _keep_shared(100),
    "a copy of the process": os.fork,
    "processes": lambda: _kept.append(subprocess.Popen(["sleep", "600"])),
}

WAYS: dict[str, Callable[[], Any]] = {
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "real-time signal": lambda: os.kill(os.getpid(), signal.SIGRTMIN + 1),
    "crash": lambda: ctypes.string_at(0),
    "loop": _loop,
    # Inside one call of C, in which no other thread of the process can run.
    "expression": lambda: re.match("(a+)+b", "a" * 64),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "close": lambda: os.closerange(3, 200),
    "babble": _babble,
    "fork": _fork_and_exit,
    "end the loop": lambda: asyncio.get_running_loop().stop(),
    "leave a thread and exit": _leave_thread,
    "hunger": _hunger,
    "shared hunger": _share,
    "hunger of many": _share_among_processes,
    "memory without a file": lambda: os.memfd_create("hoard"),
    "segment that outlives it": _share_as_system_v,
    "large file": _write_a_file,
    "recursion": _recur,
    "print": _print_without_end,
}


async def run(payload: dict[str, str], context: Context) -> Any:
    """Record the run, and do the harm that the payload names."""
    _note(payload["notes"], context.position)
    await asyncio.sleep(0.02)
    if "way" in payload:
        WAYS[payload["way"]]()
        await asyncio.sleep(0.05)
    return context.position


def run_texts(payloads: Sequence[str]) -> Sequence[str]:
    """Return the payloads, unless one of them asks the process to exit."""
    if '"exit"' in payloads:
        os._exit(5)
    return payloads


def _note(path: str, position: int) -> None:
    with Path(path).open("a") as notes:
        notes.write(f"{position}\n")


_ONCE = RetryPolicy(max_attempts=1)
OPERATION = Operation(
    "harmful", "for tests", payload=None, run=run, retry=_ONCE, timeout_s=TIMEOUT_S, concurrency=5
)
# For what must not end by the deadline of its item.
PATIENT = Operation("harmful.patient", "for tests", payload=None, run=run, retry=_ONCE)
OF_TEXTS = Operation("harmful.texts", "for tests", payload=None, run=run, run_texts=run_texts, retry=_ONCE)


async def sleep_or_exit(payload: float | dict[str, Any], context: Context) -> float:
    """Sleep for the seconds of the payload, after a note if it names a file; exit at less than 0."""
    if isinstance(payload, dict):
        _note(payload["notes"], context.position)
    seconds: float = payload["seconds"] if isinstance(payload, dict) else payload
    if seconds < 0:
        os._exit(6)
    await asyncio.sleep(seconds)
    return seconds


async def ask_often(payload: int, context: Context) -> dict[str, int]:
    """Ask so many times at once, and return how often each kind of error came."""
    asking = (context.ask(GetQuotes(symbols=["AAPL"]), Quotes, timeout_s=5) for _ in range(payload))
    found = await asyncio.gather(*asking, return_exceptions=True)
    return Counter(getattr(one, "code", type(one).__name__) for one in found)


_hoard: list[bytearray] = []


async def keep_or_need(payload: int, _: Context) -> int:
    """Keep so many MiB after the end of the item, or need as many as are below zero for a moment."""
    taken = bytearray(abs(payload) << 20)
    _hoard.extend([taken] if payload > 0 else [])
    return os.getpid()


def _start_daemon() -> int:
    # In a session of its own, and without a parent once the shell has ended.
    return int(subprocess.check_output(["sh", "-c", "setsid sleep 600 >/dev/null & echo $!"]))


async def change(payload: str | None, _: Context) -> int:
    """Make the change that the payload names, if any; return the number of the process, or of a daemon."""
    if payload is None:
        # An idle thread stays.
        return await asyncio.to_thread(os.getpid)
    if payload == WATCHDOG:
        faulthandler.dump_traceback_later(600, exit=True)
    if payload == DAEMON:
        return _start_daemon()
    if payload in CHANGES:
        CHANGES[payload]()
    return os.getpid()


def _copy() -> int:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(600)
    return pid


async def leave_daemons(payload: dict[str, str], _: Context) -> None:
    """Leave a daemon and a copy of the process behind, noted in the file that the payload names.

    Then do the harm that it names.
    """
    for pid in (_start_daemon(), _copy()):
        _note(payload["notes"], pid)
    WAYS[payload["way"]]()


async def be_many(payload: int, _: Context) -> int:
    """Have so many threads at work at a time."""
    all_there = threading.Barrier(payload + 1, timeout=20)
    threads = [threading.Thread(target=all_there.wait) for _ in range(payload)]
    for thread in threads:
        thread.start()
    all_there.wait()
    return len(threads)


CHANGING = Operation("changing", "for tests", payload=None, run=change, retry=_ONCE)
CROWDED = Operation("crowded", "for tests", payload=None, run=be_many, retry=_ONCE)
LEAVING = Operation("leaving", "for tests", payload=None, run=leave_daemons, retry=_ONCE)
HOARDING = Operation("hoarding", "for tests", payload=None, run=keep_or_need, retry=_ONCE)
CURIOUS = Operation("curious", "for tests", payload=None, run=ask_often, retry=_ONCE)
SLEEPY = Operation("sleepy", "for tests", payload=None, run=sleep_or_exit, retry=_ONCE, concurrency=1)
ENTRY_POINTS = """[tickwire.operations]
harmful = support.harmful_operation:OPERATION
harmful.patient = support.harmful_operation:PATIENT
harmful.texts = support.harmful_operation:OF_TEXTS
changing = support.harmful_operation:CHANGING
crowded = support.harmful_operation:CROWDED
curious = support.harmful_operation:CURIOUS
leaving = support.harmful_operation:LEAVING
hoarding = support.harmful_operation:HOARDING
sleepy = support.harmful_operation:SLEEPY
"""


def install(folder: Path) -> Path:
    """Make the operations discoverable with `folder` on the path, as an installed package would be."""
    installed = folder / "harmful-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: harmful\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder

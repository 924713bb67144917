"""Processes for functions that compute: one call at a time in each; killed when a call must end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from batch_processor.errors import ProcessDied
from batch_processor.execution import deadlines, forks, process_memory
from batch_processor.execution.process_state import ProcessState, data_bytes, left_since
from chassis import logging, plain, shares
from chassis.turns import OwnerTurns

log = logging.get(__name__)

T = TypeVar("T")

# Not a fork of this process: a copy of one with threads and open connections is not safe to run.
_FORKS = forks.context()
_START_S = 60
# Calls of one owner; each is that of a running item.
_MOST_WAITING = 10_000
# The most memory of a process, unless it is chosen. An answer passes through the service, and must fit into a
# frame, which has four bytes for three of it.
_MEMORY_BYTES = 256 * 1024 * 1024
MOST_ANSWER_BYTES = 16 * 1024 * 1024
# A process that was idle for this long is ended: what it has imported takes 10 MiB and more.
_IDLE_S = 60
# Between two looks at the memory of a process at work.
_LOOK_S = 0.1
# The first byte of an answer: whether the function has left nothing behind in its process.
_CLEAN, _CHANGED = b"\1", b"\0"


def write_call(function: Callable[..., Any], *arguments: Any) -> bytes:
    """Return a call that `Processes.answer` accepts."""
    return pickle.dumps((function, arguments))


def read_answer(answer: bytes) -> Any:
    """Return the result of the function, or raise its error."""
    has_succeeded, outcome = pickle.loads(answer)  # noqa: S301 - from a process of our own
    if not has_succeeded:
        raise outcome
    return outcome


class Processes:
    """At most `size` processes, started when needed, each replaced when it dies, is killed or was changed.

    A function that needs more than `memory_bytes` fails. A process that was idle for `idle_s` seconds is
    ended. The owners in `shares.current` take turns.
    """

    def __init__(self, size: int, *, memory_bytes: int = _MEMORY_BYTES, idle_s: float = _IDLE_S) -> None:
        self._memory_bytes = memory_bytes
        self._idle_s = idle_s
        self._turns = OwnerTurns(most=size, of_owner=size, most_waiting=_MOST_WAITING)
        # The timers end them.
        self._idle: dict[_Child, asyncio.TimerHandle] = {}
        self._children: set[_Child] = set()
        self._is_closed = False
        # Each thread waits for one process; a cancelled wait continues until that process is gone.
        self._threads = ThreadPoolExecutor(2 * size, thread_name_prefix="compute")

    async def compute(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return the result of `function`; it, `arguments` and the result must be picklable.

        A cancelled call kills its process, so that a function that never ends does not keep it. Raise
        `ProcessDied` when the process ended during the call; no other call was running in it.
        """
        # The time behind the functions of others does not count for the item.
        with contextlib.ExitStack() as waiting:
            waiting.enter_context(deadlines.stopped())
            answer = await self.answer(write_call(function, *arguments), begun=waiting.close)
        result: T = read_answer(answer)
        return result

    async def answer(self, call: bytes, *, begun: Callable[[], None]) -> bytes:
        """Do the same as `compute` with a serialized call; return the serialized answer.

        `begun` is called when the call begins.
        """
        async with self._turns.turn(shares.current.get()):
            if self._idle:
                # The one that was used last, so that those beyond the need become idle and end.
                child, timer = self._idle.popitem()
                timer.cancel()
            else:
                child = await self._start()
            begun()
            try:
                answer = await asyncio.get_running_loop().run_in_executor(self._threads, child.call, call)
            except BaseException as error:
                self._children.discard(child)
                child.kill()
                log.warning("computing process replaced", reason=plain.text(error) or type(error).__name__)
                raise
            if child.is_clean:
                self._rest(child)
            else:
                self._dismiss(child)
        return answer

    async def close(self) -> None:
        """Kill the processes; what they compute now is lost."""
        self._is_closed = True
        for timer in self._idle.values():
            timer.cancel()
        self._idle.clear()
        # A copy, because a call that ends meanwhile removes its process from the set.
        children = list(self._children)
        for child in children:
            child.kill()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for child in children:
            await asyncio.to_thread(child.wait)
        self._children.clear()

    async def _start(self) -> _Child:
        """Start a process; if the caller is cancelled meanwhile, keep it for the next call."""
        starting = asyncio.get_running_loop().run_in_executor(self._threads, _Child, self._memory_bytes)
        starting.add_done_callback(self._started)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._keep)
            raise

    def _started(self, starting: asyncio.Future[_Child]) -> None:
        if starting.cancelled() or starting.exception() is not None:
            return
        self._children.add(starting.result())
        if self._is_closed:
            starting.result().kill()

    def _keep(self, starting: asyncio.Future[_Child]) -> None:
        if not starting.cancelled() and starting.exception() is None:
            self._rest(starting.result())

    def _rest(self, child: _Child) -> None:
        """Keep a process for the next call, but not for longer than `idle_s` seconds."""

        def dismiss() -> None:
            del self._idle[child]
            self._dismiss(child)

        if not self._is_closed:
            self._idle[child] = asyncio.get_running_loop().call_later(self._idle_s, dismiss)

    def _dismiss(self, child: _Child) -> None:
        """End a process that is not at work."""
        self._children.discard(child)
        child.kill()
        if not self._is_closed:
            self._threads.submit(child.wait)


class _Child:
    """A process and the connection to it. The constructor waits until it has started, which takes seconds.

    It `is_clean` if its last function has left nothing behind for the next one.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.is_clean = True
        self._memory_bytes = memory_bytes
        self._connection, theirs = _FORKS.Pipe()
        self._process = _FORKS.Process(target=_serve, args=(theirs, memory_bytes), daemon=True)
        forks.start(self._process)
        # The only other end is in the process, so its death ends every wait for it.
        theirs.close()
        if not self._connection.poll(_START_S):
            self.kill()
        self._receive()

    def call(self, call: bytes) -> bytes:
        """Send a call and wait for its answer."""
        # If the process has died, receiving the answer fails.
        with contextlib.suppress(OSError):
            self._connection.send_bytes(call)
        answer = self._receive()
        self.is_clean = answer.startswith(_CLEAN)
        return answer[len(_CLEAN) :]

    def _receive(self) -> bytes:
        how = ""
        try:
            while not self._connection.poll(_LOOK_S):
                if process_memory.exceeds(self._process.pid or 0, self._memory_bytes):
                    how = f", as {process_memory.EXCEEDED}"
                    self.kill()
            return self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            self.wait()
            raise ProcessDied(f"The computing process ended with {self._process.exitcode}{how}.") from error

    def kill(self) -> None:
        """Kill the process and those that it has started."""
        assert self._process.pid, "it was started"
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # In case it has not made a process group of its own yet.
        self._process.kill()

    def wait(self) -> None:
        """Wait until the process is gone with what it has started."""
        forks.bury(self._process)


def _serve(connection: Connection, memory_bytes: int) -> None:
    """Answer calls until the parent closes the connection or dies."""
    forks.settle(memory_bytes)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Functions must not be able to fill logs: what they have to say is returned or raised.
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    forks.mute_copies(connection.fileno())
    own_bytes = data_bytes()
    connection.send_bytes(b"started")
    while True:
        try:
            call = connection.recv_bytes()
        except EOFError:
            return
        state = ProcessState.now()
        answer = _answer(call)
        left = left_since(state, own_bytes=own_bytes, limit_bytes=memory_bytes)
        connection.send_bytes((_CHANGED if left else _CLEAN) + answer)


def _answer(call: bytes) -> bytes:
    try:
        function, arguments = pickle.loads(call)  # noqa: S301 - from our own parent
        # In a context of its own: the precision of decimals that it sets is not that of the next function.
        answer = pickle.dumps((True, contextvars.Context().run(function, *arguments)))
        if len(answer) > MOST_ANSWER_BYTES:
            raise ValueError(f"the result has {len(answer)} bytes; at most {MOST_ANSWER_BYTES} are returned")
    except BaseException as error:
        return _pickled_error(error)
    return answer


def _pickled_error(error: BaseException) -> bytes:
    try:
        answer = pickle.dumps((False, error))
        pickle.loads(answer)  # noqa: S301 - made in the line above
    except BaseException:
        # An exception that cannot be pickled is replaced by its text.
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {plain.text(error)}")))
    return answer


def _end_with_parent() -> None:
    """End this process with its parent, which may be killed while a function computes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

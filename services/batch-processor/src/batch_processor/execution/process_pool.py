"""The processes in which operations run: taken for one chunk at a time, watched, killed and replaced."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import os
import signal
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from typing import Any, Self

from batch_processor.execution import forks, frames, item_process, marks, process_memory
from batch_processor.execution.item_process import Options
from batch_processor.execution.marks import Marks
from batch_processor.execution.process_output import ProcessOutput
from chassis import beats, logging, metrics, redaction

log = logging.get(__name__)

# A chunk that waits for longer gets a new process; short chunks share a few.
_GROW_AFTER_S = 0.1
# A process that was idle for this long is ended, except the last one.
_IDLE_S = 10
# The last one is replaced by a fresh one then, without what operations have imported and kept.
_RENEWED_AFTER_S = 60
_LOOK_S = 0.1
# The pause between looks while no process is busy and no chunk waits.
_IDLE_LOOK_S = 0.5
# Consecutive looks after the deadline: so a process can end the item itself, even after both were suspended.
_LATE_LOOKS = 4
_PAUSE_S = 1


class ItemProcess:
    """An item process: the connection to it, the marks that it makes, and what it prints."""

    def __init__(
        self,
        process: ForkServerProcess,
        own: Marks,
        reader: StreamReader,
        writer: StreamWriter,
        output: ProcessOutput,
    ) -> None:
        self.marks = own
        self.output = output
        self.idle_since = 0.0
        self.late_looks = 0
        # Whether what it shares, and what it has started, has more memory than it may use of its own.
        self.is_greedy = False
        self.has_worked = False
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, options: Options, threads: ThreadPoolExecutor) -> Self:
        """Fork a process. The first one waits until the server that it is forked from has started."""
        own, theirs = socket.socketpair()
        shown, descriptor = marks.create()
        printed, output = os.pipe()
        socket.send_fds(own, [b"m"], [descriptor, output])
        os.close(descriptor)
        os.close(output)

        def fork() -> ForkServerProcess:
            with theirs:
                process = forks.context().Process(
                    target=item_process.serve, args=(theirs, options), name="items", daemon=True
                )
                forks.start(process)
            return process

        try:
            process = await asyncio.get_running_loop().run_in_executor(threads, fork)
            reader, writer = await asyncio.open_unix_connection(sock=own)
        except BaseException:
            own.close()
            os.close(printed)
            raise
        return cls(process, shown, reader, writer, await ProcessOutput.of(printed))

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._process.pid or 0

    @property
    def is_late(self) -> bool:
        """Return whether the process has not made progress in time."""
        return self.late_looks >= _LATE_LOOKS

    @property
    def is_gone(self) -> bool:
        """Return whether the process has closed its end."""
        return self._reader.at_eof() or self._writer.is_closing()

    def send(self, frame: bytes) -> None:
        """Send a frame; it is lost if the process has died."""
        self.has_worked = True
        if not self._writer.is_closing():
            self._writer.write(frame)

    async def receive(self) -> list[Any]:
        """Return the next frame of the process. Raise `ProcessDied` when there is none."""
        return await frames.read(self._reader)

    def kill(self) -> None:
        """Kill the process and those that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        # In case it has not made a process group of its own yet.
        self._process.kill()

    def bury(self) -> str:
        """Wait until the process is gone with what it has started; return how it ended.

        This blocks: call it in a thread.
        """
        forks.bury(self._process)
        code = self._process.exitcode
        self.marks.close()
        if self.is_late:
            return "was killed, as it was still at work after its deadline"
        if self.is_greedy:
            return f"was killed, as {process_memory.EXCEEDED}"
        if code is None or code >= 0:
            return f"ended with {code}"
        names = {each.value: each.name for each in signal.Signals}
        # Most real-time signals have no name.
        return f"ended by {names.get(-code, f'signal {-code}')}"

    def close(self) -> None:
        """Let the process end by itself."""
        self._writer.close()


@dataclass(order=True, slots=True)
class _Wait:
    """A chunk that waits for a process, ordered by these fields."""

    is_later: bool
    since: float
    process: asyncio.Future[ItemProcess] = field(compare=False)


class ProcessPool:
    """At most `most` processes, started when chunks wait and ended when idle; one is kept.

    That one is replaced when it has worked and was then idle for `renewed_after_s` seconds.
    """

    def __init__(self, most: int, options: Options, *, renewed_after_s: float = _RENEWED_AFTER_S) -> None:
        self._most = most
        self._options = options
        self._renewed_after_s = renewed_after_s
        # The one that was used last is reused first.
        self._idle: list[ItemProcess] = []
        self._all: set[ItemProcess] = set()
        self._busy: set[ItemProcess] = set()
        self._waiting: list[_Wait] = []
        self._starting = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="items")
        self._is_closed = False

    async def take(self, *, is_first: bool = False) -> ItemProcess:
        """Return a process for exclusive use; it must be given back or discarded.

        The chunk of an owner without other running chunks is first in line.
        """
        while True:
            process = self._idle.pop() if self._idle else await self._next_free(is_first=is_first)
            if not process.is_gone:
                self._busy.add(process)
                return process
            await self.discard(process)

    async def _next_free(self, *, is_first: bool) -> ItemProcess:
        """Wait in line for a process that is given back, or for a new one."""
        loop = asyncio.get_running_loop()
        wait = _Wait(not is_first, time.monotonic(), loop.create_future())
        bisect.insort(self._waiting, wait)
        growing = loop.call_later(_GROW_AFTER_S if self._all or self._starting else 0, self.grow)
        try:
            return await wait.process
        except asyncio.CancelledError:
            if wait.process.done() and not wait.process.cancelled():
                self.give_back(wait.process.result())
            raise
        finally:
            growing.cancel()
            self._waiting = [other for other in self._waiting if other is not wait]

    def give_back(self, process: ItemProcess) -> None:
        """Keep a process for the next chunk."""
        self._busy.discard(process)
        process.idle_since = time.monotonic()
        while self._waiting:
            wait = self._waiting.pop(0)
            if not wait.process.done():
                wait.process.set_result(process)
                return
        self._idle.append(process)

    async def discard(self, process: ItemProcess) -> str:
        """Kill a process; return how it ended."""
        self._busy.discard(process)
        self._all.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        process.close()
        process.kill()
        ended = asyncio.get_running_loop().run_in_executor(self._threads, process.bury)
        if self._waiting:
            self.grow()
        self._begin(process.output.end())
        return await asyncio.shield(ended)

    def grow(self) -> None:
        """Start another process, unless there are enough."""
        if not self._is_closed and len(self._all) + self._starting < self._most:
            self._starting += 1
            self._begin(self._start())

    async def wait_for_first(self, timeout_s: float) -> None:
        """Wait until there is a process, but no longer than `timeout_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                self.give_back(await self.take())

    async def watch_forever(self) -> None:
        """Kill processes that are late or greedy, end idle ones, and measure, until cancelled."""
        while True:
            now = time.monotonic()
            for process in self._busy:
                process.late_looks = process.late_looks + 1 if now > process.marks.due else 0
                process.is_greedy |= process_memory.exceeds(process.pid, self._options.memory_bytes)
                if process.is_late or process.is_greedy:
                    process.kill()
            # Except the one that was used last.
            for process in self._idle[:-1]:
                if now - process.idle_since > _IDLE_S:
                    self._idle.remove(process)
                    self._begin(self.discard(process))
            last = self._idle[-1] if self._idle else None
            if last and last.has_worked and now - last.idle_since > self._renewed_after_s:
                self._begin(self._replace(self._idle.pop()))
            metrics.BATCH_PROCESSES.set(len(self._all))
            metrics.BATCH_NOT_BEGUN.set(now - min((wait.since for wait in self._waiting), default=now))
            await beats.following(_LOOK_S if self._busy or self._waiting else _IDLE_LOOK_S)

    async def close(self) -> None:
        """Kill all processes; what they do now is lost."""
        self._is_closed = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in list(self._all):
            await self.discard(process)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    async def _replace(self, process: ItemProcess) -> None:
        await self.discard(process)
        if not self._all and not self._starting:
            self.grow()

    async def _start(self) -> None:
        try:
            while not self._is_closed:
                try:
                    process = await ItemProcess.start(self._options, self._threads)
                except Exception as error:
                    log.error(
                        "item process cannot be started, retrying", reason=redaction.safe_message(error)
                    )
                    await asyncio.sleep(_PAUSE_S)
                    continue
                self._all.add(process)
                self.give_back(process)
                return
        finally:
            self._starting -= 1

    def _begin(self, action: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

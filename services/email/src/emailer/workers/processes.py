"""Processes for work whose cost is decided by tenants; each answers one frame after the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence

from emailer.workers.frames import LENGTH, pieces

# Signals by which the work itself ends its process, apart from its CPU time: a failed allocation or a crash.
# Any other signal comes from outside, such as from the kernel when the machine runs out of memory.
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP)
# A process that has been idle for this long ends, which frees its memory.
IDLE_S = 60.0
_STARTED_WITHIN_S = 10.0
# A process that is killed is gone at once, unless the kernel cannot end it now, as while a disk hangs.
_GONE_WITHIN_S = 5.0


class ProcessEnded(Exception):
    """The process ended instead of answering."""

    def __init__(self, return_code: int) -> None:
        super().__init__(f"its process ended with {return_code}")
        self._signal = -return_code

    @property
    def used_its_time_up(self) -> bool:
        """Whether the kernel ended it because its CPU time was used up."""
        return self._signal == signal.SIGXCPU

    @property
    def crashed(self) -> bool:
        """Whether the work crashed it in another way."""
        return self._signal in _CRASHES

    @property
    def raised(self) -> bool:
        """Whether the work raised an error that nothing handled, such as a lack of memory."""
        return self._signal < 0


class NotAnswered(TimeoutError):
    """The process did not answer in time; `cpu_s` is the processor time that it took meanwhile."""

    def __init__(self, cpu_s: float) -> None:
        super().__init__("its process did not answer in time")
        self.cpu_s = cpu_s


class FrameTooLarge(Exception):
    """The answer is larger than the caller accepts."""


class WorkerProcesses:
    """Processes that run `module`; each starts when it is needed, and ends after a minute without work.

    The callers bound their number. They do not inherit the service's environment, which holds secrets.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._idle: list[asyncio.subprocess.Process] = []
        # The timers that end idle processes.
        self._timers: dict[asyncio.subprocess.Process, asyncio.TimerHandle] = {}
        self._all: set[asyncio.subprocess.Process] = set()
        self._is_closed = False

    @property
    def processes(self) -> tuple[asyncio.subprocess.Process, ...]:
        """The processes that are running now."""
        return tuple(self._all)

    async def ask(self, *parts: bytes, within_s: float, most_bytes: int) -> bytes:
        """Send a frame made of `parts` to a process, and return its answer.

        Raise `ProcessEnded`, `NotAnswered`, `FrameTooLarge`, or `OSError` when no process can be started. In
        each case the process is ended.
        """
        try:
            return await self._ask(await self._take(), parts, within_s, most_bytes)
        except ProcessEnded as error:
            if error.crashed or error.used_its_time_up:
                raise
        # An idle process may have ended before it was asked: retry with a new one.
        return await self._ask(await self._start(), parts, within_s, most_bytes)

    async def close(self) -> None:
        """End all processes."""
        self._is_closed = True
        for timer in self._timers.values():
            timer.cancel()
        for process in list(self._all):
            await self._end(process)

    async def _ask(
        self, process: asyncio.subprocess.Process, parts: Sequence[bytes], within_s: float, most_bytes: int
    ) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        is_whole, cpu_before_s = False, _cpu_s(process)
        try:
            async with asyncio.timeout(within_s) as waiting:
                process.stdin.write(LENGTH.pack(sum(map(len, parts))))
                for piece in pieces(parts):
                    process.stdin.write(piece)
                    await process.stdin.drain()
                [length] = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                if length > most_bytes:
                    raise FrameTooLarge
                answer = await process.stdout.readexactly(length)
                is_whole = True
                return answer
        except TimeoutError:
            if not waiting.expired():
                raise
            raise NotAnswered(_cpu_s(process) - cpu_before_s) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            # Its output is closed: it has ended, or is about to.
            async with asyncio.timeout(_GONE_WITHIN_S):
                raise ProcessEnded(await process.wait()) from None
        finally:
            if is_whole and not self._is_closed:
                self._idle.append(process)
                self._timers[process] = asyncio.get_running_loop().call_later(IDLE_S, self._dismiss, process)
            else:
                await self._end(process)

    async def _take(self) -> asyncio.subprocess.Process:
        while self._idle:
            # The most recently used one, so that surplus processes become idle and end.
            process = self._idle.pop()
            self._timers.pop(process).cancel()
            if process.returncode is None:
                return process
            self._all.discard(process)
        return await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        async with asyncio.timeout(_STARTED_WITHIN_S):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                # Only what is needed to find the same code.
                env={name: value for name, value in os.environ.items() if name == "PYTHONPATH"},
            )
        self._all.add(process)
        return process

    def _dismiss(self, process: asyncio.subprocess.Process) -> None:
        self._idle.remove(process)
        del self._timers[process]
        self._all.discard(process)
        assert process.stdin is not None
        # It ends when its input does.
        process.stdin.close()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._all.discard(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GONE_WITHIN_S):
                await process.wait()


def _cpu_s(process: asyncio.subprocess.Process) -> float:
    """Return the processor time of a process in seconds; 0 where the system does not tell."""
    try:
        # The clock that clock_getcpuclockid(3) names on Linux.
        return time.clock_gettime(~process.pid << 3 | 2)
    except OSError:
        return 0.0

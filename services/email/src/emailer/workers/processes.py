"""Processes for work whose cost a tenant decides: each takes a frame, answers it, and takes the next one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from emailer.workers.frames import LENGTH, pieces

# How work itself can bring its process down, beside its CPU time: by memory that it does not get, or by a
# crash. Any other end comes from outside, such as from the kernel when the machine's memory is used up.
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP)
# A process that nobody has needed for so long gives its memory back.
_IDLE_S = 60.0


class ProcessEnded(Exception):
    """The process ended instead of answering."""

    def __init__(self, return_code: int) -> None:
        super().__init__(f"its process ended with {return_code}")
        self._signal = -return_code

    @property
    def used_its_time_up(self) -> bool:
        """Whether the kernel ended it, because of its CPU time."""
        return self._signal == signal.SIGXCPU

    @property
    def crashed(self) -> bool:
        """Whether the work itself brought it down in another way."""
        return self._signal in _CRASHES


class FrameTooLarge(Exception):
    """The answer is larger than anybody wants."""


class WorkerProcesses:
    """Processes that run `module`; each starts when it is needed, and ends when it is idle for a minute.

    How many there are at a time is up to the callers. They do not get the environment of the service, which
    holds secrets.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._idle: list[asyncio.subprocess.Process] = []
        # When those that are idle end.
        self._timers: dict[asyncio.subprocess.Process, asyncio.TimerHandle] = {}
        self._all: set[asyncio.subprocess.Process] = set()
        self._is_closed = False

    @property
    def processes(self) -> tuple[asyncio.subprocess.Process, ...]:
        """The processes that there are now."""
        return tuple(self._all)

    async def ask(self, *parts: bytes, within_s: float, most_bytes: int) -> bytes:
        """Return the answer of a process to a frame that is made of `parts`.

        Raise `ProcessEnded`, `TimeoutError`, `FrameTooLarge`, or `OSError` where none can be started. The
        process is ended then.
        """
        try:
            return await self._ask(await self._take(), parts, within_s, most_bytes)
        except ProcessEnded as error:
            if error.crashed or error.used_its_time_up:
                raise
        # One that was idle may have been ended long ago: the end of a new one counts.
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
        is_whole = False
        try:
            async with asyncio.timeout(within_s):
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
        except (asyncio.IncompleteReadError, ConnectionError):
            # Its output is closed: it has ended, or is about to.
            raise ProcessEnded(await process.wait()) from None
        finally:
            if is_whole and not self._is_closed:
                self._idle.append(process)
                self._timers[process] = asyncio.get_running_loop().call_later(_IDLE_S, self._dismiss, process)
            else:
                await self._end(process)

    async def _take(self) -> asyncio.subprocess.Process:
        while self._idle:
            # The one that was used last, so that those that are not needed end.
            process = self._idle.pop()
            self._timers.pop(process).cancel()
            if process.returncode is None:
                return process
            self._all.discard(process)
        return await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # The same code, wherever it is found, and nothing else.
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
        await process.wait()

"""Keeps programs running: start in parallel, restart with back-off, stop in the reverse order of stages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from native import leftovers
from native.errors import NotReadyError, ProcessFailedError
from native.process import Process, Program

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 10.0
_STABLE_AFTER_S = 30.0
_FIRST_START_ATTEMPTS = 3


@dataclass(frozen=True)
class ProgramEvent:
    """Something that happened to a program: `starting`, `ready`, `exited`, `stopping` or `stopped`."""

    name: str
    state: str
    detail: str = ""


Report = Callable[[ProgramEvent], None]


def ignore(_event: ProgramEvent) -> None:
    """Report nothing."""


class Keeper:
    """Keeps one program running until `stop` is called."""

    def __init__(self, program: Program, report: Report) -> None:
        self.program = program
        self.process = Process(program)
        self._report = report
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._ever_ready = False
        self._after: Sequence[Keeper] = ()

    async def start(self, *, after: Sequence[Keeper] = ()) -> None:
        """Start the program and return when it is ready; raise `ProcessFailedError` when it cannot be.

        The time that it may take does not end before the programs of `after`, which it may need, have been
        ready for as long.
        """
        self._ever_ready, self._after = False, after
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.program.name}")
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._task.done():
            self._task.result()

    @property
    def is_ready(self) -> bool:
        """Whether the program is ready now."""
        return self._ready.is_set()

    async def ready(self, *, timeout_s: float = 60.0) -> None:
        """Wait until the program is ready (again)."""
        async with asyncio.timeout(timeout_s):
            await self._ready.wait()

    async def stop(self, *, at_once: bool = False) -> None:
        """Stop the program, in order or at once, and keep it stopped."""
        if self._task is None:
            return
        self._report(ProgramEvent(self.program.name, "stopping"))
        # Restarts must end first, or the program would be started again.
        self._task.cancel()
        with suppress(asyncio.CancelledError, ProcessFailedError):
            await self._task
        self._task = None
        self._ready.clear()
        await self.process.stop(at_once=at_once)
        self._report(ProgramEvent(self.program.name, "stopped"))

    async def _keep(self) -> None:
        attempt = 0
        while True:
            lasted_s = await self._run_once()
            attempt = 1 if lasted_s > _STABLE_AFTER_S else attempt + 1
            if not self._ever_ready and attempt >= _FIRST_START_ATTEMPTS:
                raise self._failure(f"ended with {self.process.ending}")
            delay_s = min(_FIRST_DELAY_S * 2 ** (attempt - 1), _LONGEST_DELAY_S)
            self._report(
                ProgramEvent(self.program.name, "exited", f"{self.process.ending}, again in {delay_s:g} s")
            )
            await asyncio.sleep(delay_s)

    async def _run_once(self) -> float:
        """Run the program to its end; return how long it lasted."""
        clock = asyncio.get_running_loop().time
        began = clock()
        self._report(ProgramEvent(self.program.name, "starting", self.program.probe.what))
        await self.process.start()
        watcher = asyncio.create_task(self._announce_ready(began))
        ended = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait({watcher, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                watcher.result()
            await ended
        finally:
            watcher.cancel()
            ended.cancel()
            self._ready.clear()
        return clock() - began

    async def _announce_ready(self, began: float) -> None:
        # Only the first start has a deadline: later a process may have to wait until others are back.
        timeout_s = float("inf") if self._ever_ready else self.program.ready_timeout_s
        is_ready = False
        while not is_ready:
            is_its_turn = all(other.is_ready for other in self._after)
            try:
                await self.program.probe.passed(timeout_s=timeout_s)
                is_ready = True
            except NotReadyError as error:
                # What it waited for has a limit of its own, and is named when it exceeds that.
                if is_its_turn:
                    raise self._failure(f"was not ready after {timeout_s:.0f} s ({error})") from error
        self._ever_ready = True
        self._ready.set()
        took_s = asyncio.get_running_loop().time() - began
        self._report(ProgramEvent(self.program.name, "ready", f"{took_s:.1f} s"))

    def _failure(self, what: str) -> ProcessFailedError:
        lines = "\n".join(f"    {line}" for line in self.process.last_lines()) or "    (no output)"
        return ProcessFailedError(
            f"{self.program.name} {what}.\n"
            f"  check:  {self.program.probe.what}\n"
            f"  log:    {self.program.log}, its last lines:\n{lines}\n"
            f"  next:   less +G '{self.program.log}'"
        )


class Supervisor:
    """Runs programs in stages: all start at once, the last stage stops first."""

    def __init__(self, stages: Sequence[Sequence[Program]], *, report: Report = ignore) -> None:
        self._report = report
        self._stages = [[Keeper(program, report) for program in stage] for stage in stages]

    @property
    def keepers(self) -> dict[str, Keeper]:
        """The keepers by program name."""
        return {keeper.program.name: keeper for stage in self._stages for keeper in stage}

    def add(self, program: Program) -> Keeper:
        """Add a program to the last stage; the caller starts it."""
        keeper = Keeper(program, self._report)
        self._stages[-1].append(keeper)
        return keeper

    async def start(self) -> None:
        """Start everything, and return when all is ready; raise the first failure."""
        before: list[Keeper] = []
        tasks = []
        for stage in self._stages:
            tasks += [asyncio.create_task(keeper.start(after=tuple(before))) for keeper in stage]
            before += stage
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Stop the stages one after the other, the last first; the programs of a stage stop in parallel."""
        for stage in reversed(self._stages):
            await asyncio.gather(*(keeper.stop() for keeper in stage))

    async def kill(self) -> None:
        """End all programs at once, whose data nobody needs any more."""
        await asyncio.gather(*(keeper.stop(at_once=True) for keeper in self.keepers.values()))


@asynccontextmanager
async def running(
    root: Path, stages: Iterable[Sequence[Program]], *, report: Report = ignore, at_once: bool = False
) -> AsyncIterator[Supervisor]:
    """Run `stages` for the length of the block; afterwards no process with the marker of `root` is left.

    They stop in order, or end `at_once` where what they would save is thrown away.
    """
    supervisor = Supervisor(list(stages), report=report)
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await (supervisor.kill() if at_once else supervisor.stop())
        await leftovers.stop(root, patience_s=0.0)

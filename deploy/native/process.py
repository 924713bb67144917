"""One operating system process: its description, and its start and stop, which leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import psutil

from native.errors import MissingProgramError
from native.probes import Probe

_LOG_LIMIT_BYTES = 20_000_000


async def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to run, and the probe that detects when it is ready.

    `prepare` runs before every start. `kill_signal` ends the program at once.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    probe: Probe
    prepare: Callable[[], Awaitable[None]] = _nothing
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    kill_signal: signal.Signals = signal.SIGKILL
    stop_timeout_s: float = 15.0
    ready_timeout_s: float = 60.0


class Process:
    """A running program, in a session of its own so that Ctrl-C reaches only the runner."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._child: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process id of the running or last process; 0 before the first start."""
        return self._child.pid if self._child else 0

    @property
    def ending(self) -> str:
        """The exit code or the signal with which the process ended, in words; empty while it runs."""
        code = self._child.returncode if self._child else None
        if code is None:
            return ""
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    async def start(self) -> None:
        """Prepare and start the process; its output goes to the log file."""
        await self.program.prepare()
        with _open_log(self.program) as log:
            self._log_start = log.tell()
            self._child = await asyncio.create_subprocess_exec(
                *_guarded(self.program),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.program.directory,
                env=dict(self.program.environment),
                start_new_session=True,
            )

    async def wait(self) -> None:
        """Wait until the process has ended."""
        if self._child:
            await self._child.wait()

    async def stop(self, *, at_once: bool = False) -> None:
        """Ask the process to end, wait until its deadline, then kill what is left of its tree.

        With `at_once`, end it without giving it time for anything.
        """
        if self._child is None:
            return
        family: list[psutil.Process] = []
        is_running = self._child.returncode is None
        if is_running:
            with suppress(psutil.NoSuchProcess):
                family = psutil.Process(self._child.pid).children(recursive=True)
        if is_running:
            with suppress(TimeoutError, ProcessLookupError):
                self._child.send_signal(self.program.kill_signal if at_once else self.program.stop_signal)
                async with asyncio.timeout(self.program.stop_timeout_s):
                    await self.wait()
        with suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()
        await kill(family)

    def last_lines(self, count: int = 20) -> list[str]:
        """Return the last log lines since this start."""
        if not self.program.log.exists():
            return []
        with self.program.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace").splitlines()[-count:]


async def end_tree(pid: int) -> None:
    """Kill a process and all its descendants at once."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        await kill([process, *process.children(recursive=True)])


async def kill(processes: Iterable[psutil.Process], *, patience_s: float = 0.0) -> None:
    """End these processes: with `patience_s` by SIGTERM first, and in any case by SIGKILL."""
    alive = [process for process in processes if _is_alive(process)]
    if patience_s:
        _send(alive, signal.SIGTERM)
        alive = await _still_alive(alive, patience_s)
    _send(alive, signal.SIGKILL)
    await _still_alive(alive, 5.0)


async def _still_alive(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while alive := [process for process in processes if _is_alive(process)]:
        if asyncio.get_running_loop().time() > deadline:
            return alive
        await asyncio.sleep(0.02)
    return []


def _is_alive(process: psutil.Process) -> bool:
    # A zombie has ended; in a container without an init process it may never be reaped.
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _open_log(program: Program) -> BinaryIO:
    log = program.log
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    file = log.open("ab")
    file.write(f"--- {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} starting {program.name}\n".encode())
    file.flush()
    return file


def _guarded(program: Program) -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise MissingProgramError("setpriv is not installed: install the package util-linux")
    # The kernel stops the process if the runner dies without stopping it (kill -9).
    death = program.stop_signal.name.removeprefix("SIG")
    identity: tuple[str, ...] = ()
    if program.user is not None and os.geteuid() == 0:
        group = str(pwd.getpwnam(program.user).pw_gid)
        identity = ("--reuid", program.user, "--regid", group, "--init-groups")
    return (setpriv, "--pdeathsig", death, *identity, "--", *program.command)

"""`native run`: one runner owns the run directory, starts the stack, and stops it in order."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chassis import allocator
from native import backup_watch, card, checking, leftovers, stack
from native.directories import RunDirectory
from native.errors import AlreadyRunningError, MissingProgramError
from native.ports import Ports, check_free
from native.progress import Progress
from native.services import SERVICES
from native.settings import NativeSettings
from native.stack import Blueprint, Stack
from native.supervisor import ProgramEvent

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run(root: Path, settings: NativeSettings, progress: Progress) -> None:
    """Run the stack until a signal; a second signal ends it at once."""
    directory = RunDirectory.at(root)
    with ownership(directory):
        directory.ready.unlink(missing_ok=True)
        stopped = await leftovers.stop(directory.root, patience_s=leftovers.PATIENCE_S)
        if stopped:
            progress.say(f"  cleaned  left over from a runner that was killed: {', '.join(stopped)}")
        if not settings.problems:
            check_free(settings.ports)
        missing = [one.package for one in SERVICES if importlib.util.find_spec(one.package) is None]
        if missing:
            raise MissingProgramError(f"Not installed: {', '.join(missing)}. Run `make setup`.")
        blueprint = Blueprint(directory, settings.ports, variables=settings.variables)
        await checking.check(
            blueprint.backing,
            settings.ports,
            problems=settings.problems,
            say=lambda note: progress.say(f"  note     {note}"),
        )
        publish_ports(directory, settings.ports)
        with _signals(directory.root), suppress(asyncio.CancelledError):
            await _run(blueprint, progress)
        progress.say("  stopped; the data stays in " + str(directory.data))


@contextmanager
def ownership(run: RunDirectory) -> Iterator[None]:
    """Hold the run directory's lock; the kernel releases it when the process ends, however that happens."""
    with (run.root / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"Tickwire already runs from {run.root} (process {owner(run)}). "
                "See `make status`; stop it with `make stop` or Ctrl-C in its terminal."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def owner(run: RunDirectory) -> int | None:
    """Return the process id of the runner that owns the run directory, or None."""
    with suppress(FileNotFoundError, ValueError), (run.root / "lock").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(lock.read())
    return None


def state(run: RunDirectory) -> dict[str, dict[str, str]]:
    """Return each process's last state as the runner wrote it: `state`, `detail` and `pid`."""
    with suppress(FileNotFoundError):
        return dict(json.loads((run.root / "state.json").read_text()))
    return {}


def publish_ports(run: RunDirectory, ports: Ports) -> None:
    """Write the ports of the stack for the commands that are typed in other terminals."""
    run.ports.write_text(json.dumps(ports.numbered(), indent=2))


def ports(run: RunDirectory) -> Ports | None:
    """Return the ports of the stack that runs from `run`, or None when none runs."""
    if owner(run) is None or not run.ports.exists():
        return None
    return Ports(**json.loads(run.ports.read_text()))


async def _run(blueprint: Blueprint, progress: Progress) -> None:
    diary = _Diary(blueprint.run, progress)
    if aside := blueprint.postgres.settle():
        progress.say(f"  note     PostgreSQL's data of a run directory that was removed is now in {aside}")
    if blueprint.postgres.cluster.moved:
        home = blueprint.postgres.cluster.home
        progress.say(f"  note     PostgreSQL's user cannot enter {blueprint.run.root}: its data is in {home}")
    with progress.waiting():
        running = stack.running(blueprint, report=diary)
        started = await running.__aenter__()
    try:
        diary.follow(started)
        progress.say(await card.text(started))
        blueprint.run.ready.write_text(started.url + "\n")
        # From now on it only waits.
        allocator.give_back()
        await backup_watch.watch(blueprint)
    finally:
        blueprint.run.ready.unlink(missing_ok=True)
        await running.__aexit__(None, None, None)


class _Diary:
    """Forwards events, and writes the current state of each process to a file for `native status`."""

    def __init__(self, run: RunDirectory, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._states: dict[str, dict[str, str]] = {}
        self._stack: Stack | None = None

    def __call__(self, event: ProgramEvent) -> None:
        self._progress(event)
        self._states[event.name] = {"state": event.state, "detail": event.detail}
        self._write()

    def follow(self, started: Stack) -> None:
        """Add process ids from now on."""
        self._stack = started
        self._write()

    def _write(self) -> None:
        pids = self._stack.pids if self._stack else {}
        # While a program is restarting, its process id is still that of the ended process.
        states = {
            name: entry | {"pid": str(pids.get(name, "")) if entry["state"] == "ready" else ""}
            for name, entry in self._states.items()
        }
        draft = self._run.root / "state.json.new"
        draft.write_text(json.dumps(states, indent=2))
        draft.replace(self._run.root / "state.json")


@contextmanager
def _signals(root: Path) -> Iterator[None]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            task.cancel()
        else:
            for process in leftovers.find(root):
                process.kill()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

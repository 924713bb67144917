"""Background tasks of a service: named, restarted after errors, watched, and ended together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from chassis import logging, metrics, redaction

log = logging.get(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# A task that ran for this long begins with the short pause again.
_STABLE_AFTER_S = 60.0
# Long enough for what a task does at its end, rolling back for example.
CANCEL_AGAIN_AFTER_S = 2.0
_MOST_CANCELLATIONS = 5


class Tasks:
    """The long-lived tasks of one process.

    A supervised task is restarted after every error; any other task that dies fails the liveness of the
    process.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._died: dict[str, str] = {}
        self._closing = False

    def start(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run `coroutine` until it ends or `close` is called; an error ends it, and with it the process."""

        def ended(task: asyncio.Task[None]) -> None:
            if self._closing:
                return
            # A task that was cancelled by a library is dead, too, and nothing else would report it.
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                return
            self._died[task.get_name()] = redaction.safe_message(error)
            log.error("background task died", task=task.get_name(), exc_info=error)

        task = asyncio.create_task(coroutine, name=name)
        self._tasks[name] = task
        task.add_done_callback(ended)

    def supervise(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run `loop` until `close` is called, and restart it after errors."""
        self.start(name, keep_going(name, loop))

    @property
    def unfinished(self) -> list[str]:
        """The names of the tasks that have not ended."""
        return [name for name, task in self._tasks.items() if not task.done()]

    def check(self) -> str | None:
        """Return which task has died, and why, for liveness."""
        return "; ".join(f"{name} died: {why}" for name, why in self._died.items()) or None

    async def close(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        self._closing = True
        await end(self._tasks.values())


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` and wait until they have ended; a task that goes on is cancelled again.

    A cancellation can be lost: before Python 3.12 `asyncio.wait_for` drops one that comes together with its
    result. A task that outlives every cancellation is logged and left.
    """
    pending = set(tasks)
    for _ in range(_MOST_CANCELLATIONS):
        if not pending:
            return
        for task in pending:
            task.cancel()
        ended, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_AFTER_S)
        for task in ended:
            # An error that nothing retrieves would be logged when the task is collected.
            task.cancelled() or task.exception()
    for task in pending:
        log.error("task does not end when it is cancelled", task=task.get_name())


async def keep_going(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run `loop`, and restart it after an unexpected error or a return.

    Each restart is logged and counted, and follows a longer pause, up to 30 s. State that must survive a
    restart belongs outside of `loop`. A cancellation of the task ends it.
    """
    pause_s, failures = FIRST_PAUSE_S, metrics.TASK_FAILURES.labels(name)
    while True:
        began = time.monotonic()
        error = await failure_of(loop) or RuntimeError(
            "the loop has returned; it must run until it is cancelled"
        )
        if time.monotonic() - began > _STABLE_AFTER_S:
            pause_s = FIRST_PAUSE_S
        failures.inc()
        log.error("background task failed, restarting it", task=name, pause_s=pause_s, exc_info=error)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


async def failure_of(
    work: Callable[[], Awaitable[None]], *, timeout_s: float | None = None
) -> BaseException | None:
    """Run `work` in a task of its own and return why it failed; raise only when the caller is cancelled.

    A `CancelledError` without a cancellation of the caller is a failure of the work: a library has rejected a
    future with it, or the work has raised it. So is `SystemExit`.
    """

    async def caught() -> BaseException | None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit would leave the loop from a task, and with it everything
            return error
        return None

    try:
        async with asyncio.timeout(timeout_s):
            # Under the name of its caller, where a dump of all tasks shows it.
            caller = asyncio.current_task()
            return await asyncio.create_task(caught(), name=caller.get_name() if caller else None)
    except TimeoutError as error:
        return error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return error

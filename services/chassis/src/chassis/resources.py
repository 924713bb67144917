"""Background tasks that belong to a service: named, watched, and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from chassis import logging

log = logging.get(__name__)


class Tasks:
    """The long-lived tasks of one process. A task that dies unexpectedly shows in readiness and logs."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._died: dict[str, str] = {}
        self._closing = False

    def start(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run `coroutine` until it ends or `close` is called."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    def check(self) -> str | None:
        """The readiness check: which task has died, and why."""
        return "; ".join(f"{name} died: {why}" for name, why in self._died.items()) or None

    async def close(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        self._closing = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._closing:
            return
        # Cancelled by nobody of us is dead too, and would be so without a word.
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return
        self._died[task.get_name()] = repr(error)
        log.error("background task died", task=task.get_name(), exc_info=error)

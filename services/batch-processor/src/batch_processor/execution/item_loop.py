"""The event loop of an item process, which knows what items have left there for later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVarTuple
from weakref import WeakSet

import uvloop

Arguments = TypeVarTuple("Arguments")

# What has ended calls some of what waits for it, but not in so many consecutive turns.
_RESTLESS_TURNS = 5


@dataclass(frozen=True, slots=True)
class LoopState:
    """The tasks, timers, watched files and hooks of an event loop at a moment."""

    tasks: Set[asyncio.Task[Any]]
    timers: Set[asyncio.TimerHandle]
    watched: Set[tuple[str, int]]
    hooks: tuple[object, ...]


class ItemLoop(uvloop.Loop):
    """An event loop that knows its timers: it would call what items have set, beside those of the next chunk.

    It knows the files that it watches, too, but not those of its connections.
    """

    def __init__(self) -> None:
        super().__init__()
        self._timers: WeakSet[asyncio.TimerHandle] = WeakSet()
        self._watched: set[tuple[str, int]] = set()
        self._soon = 0

    def add_reader(self, fd: Any, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """Call `callback` whenever the file can be read."""
        super().add_reader(fd, callback, *args)
        self._watched.add(("read", _number_of(fd)))

    def remove_reader(self, fd: Any) -> Any:
        """Stop that."""
        self._watched.discard(("read", _number_of(fd)))
        return super().remove_reader(fd)

    def add_writer(self, fd: Any, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """Call `callback` whenever the file can be written."""
        super().add_writer(fd, callback, *args)
        self._watched.add(("write", _number_of(fd)))

    def remove_writer(self, fd: Any) -> Any:
        """Stop that."""
        self._watched.discard(("write", _number_of(fd)))
        return super().remove_writer(fd)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call `callback` in `delay` seconds, unless the returned timer is cancelled."""
        timer = super().call_later(delay, callback, *args, context=context)
        # What is due at once has no time.
        if hasattr(timer, "when"):
            self._timers.add(timer)
        else:
            self._soon += 1
        return timer

    async def is_restless(self) -> bool:
        """Return whether something is called for the next turn of the loop in each of a few turns.

        A caller that has kept `call_soon` itself, as a bound method, is not noticed.
        """
        call_soon = super().call_soon
        rested: asyncio.Future[bool] = self.create_future()
        turns = 0

        def count(
            callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
        ) -> asyncio.Handle:
            self._soon += 1
            return call_soon(callback, *args, context=context)

        def turn() -> None:
            nonlocal turns
            turns += 1
            calls, self._soon = self._soon, 0
            if calls and turns < _RESTLESS_TURNS:
                call_soon(turn)
            elif not rested.done():
                rested.set_result(calls > 0)

        # Only for now: it would make each step of each task slower.
        vars(self)["call_soon"] = count
        self._soon = 0
        call_soon(turn)
        try:
            return await rested
        finally:
            del vars(self)["call_soon"]

    def state(self) -> LoopState:
        """Return the state of this moment."""
        now = self.time()
        timers = {timer for timer in self._timers if not timer.cancelled() and timer.when() > now}
        hooks = self.get_exception_handler(), self.get_task_factory(), self.get_debug()
        return LoopState(asyncio.all_tasks(self), timers, frozenset(self._watched), hooks)

    def left_since(self, before: LoopState) -> list[str]:
        """Return what the code that ran since `before` has left here, in words."""
        now = self.state()
        found = {
            "tasks": bool(now.tasks - before.tasks),
            "timers of the event loop": bool(now.timers - before.timers),
            "files that the event loop watches": bool(now.watched - before.watched),
            "hooks of the event loop": now.hooks != before.hooks,
        }
        return [name for name, is_left in found.items() if is_left]


def _number_of(file: Any) -> int:
    return file if isinstance(file, int) else int(file.fileno())

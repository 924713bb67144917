"""Coalescing: equal requests in flight are made once, and requests close in time share one message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from chassis import metrics
from chassis.errors import DeadlineExceeded

V = TypeVar("V")


class Coalescer(Generic[V]):
    """Looks up keys through `fetch`, which takes many at once; a value may be an error to raise."""

    def __init__(
        self,
        name: str,
        fetch: Callable[[Sequence[str]], Awaitable[Mapping[str, V | Exception]]],
        *,
        window_s: float = 0.0005,
        most: int = 200,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._window_s = window_s
        self._most = most
        self._in_flight: dict[str, asyncio.Future[V]] = {}
        self._waiting: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, key: str, timeout_s: float) -> V:
        """Return the value of `key`. Raise the error that `fetch` has for it, or `DeadlineExceeded`."""
        future = self._in_flight.get(key)
        if future is not None:
            metrics.COALESCED.labels(self._name).inc()
        else:
            loop = asyncio.get_running_loop()
            future = self._in_flight[key] = loop.create_future()
            # The result is read even if every caller has given up, so that no error goes unretrieved.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._waiting.append(key)
            if len(self._waiting) >= self._most:
                self._flush()
            elif self._timer is None:
                self._timer = loop.call_later(self._window_s, self._flush)
        try:
            # Shielded: one caller that gives up must not take the answer from the others.
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise DeadlineExceeded(f"No answer for {key} in time.") from None
        finally:
            # The traceback of its error holds this frame: together they would stay until a collection.
            del future

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        keys, self._waiting = self._waiting, []
        if not keys:
            return
        task = asyncio.create_task(self._answer(keys))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, keys: list[str]) -> None:
        try:
            found = await self._fetch(keys)
        except Exception as error:  # it is raised in every caller
            found = dict.fromkeys(keys, error)
        except BaseException:
            # The task was cancelled: no caller may wait for it, and later ones must find the keys free.
            for key in keys:
                self._in_flight.pop(key).set_exception(RuntimeError(f"{self._name} was interrupted"))
            raise
        for key in keys:
            future = self._in_flight.pop(key)
            value = found[key] if key in found else RuntimeError(f"{self._name} has no answer for {key!r}")
            if isinstance(value, Exception):
                future.set_exception(value)
            else:
                future.set_result(value)

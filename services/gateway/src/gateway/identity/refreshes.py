"""Refreshing cached values: at most one query at a time for each, with a short wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class Refreshes(Generic[V]):
    """The running queries. A query continues even if its callers have stopped waiting."""

    def __init__(self) -> None:
        self._asking: dict[bytes, asyncio.Task[V]] = {}

    async def ask(
        self, name: bytes, question: Callable[[], Coroutine[Any, Any, V]], *, within_s: float
    ) -> V | None:
        """Return the result or raise its error; return None if it takes longer than `within_s` seconds."""
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.create_task(question())
            asking.add_done_callback(partial(self._ended, name))
        await asyncio.wait([asking], timeout=within_s)
        return asking.result() if asking.done() else None

    def _ended(self, name: bytes, asking: asyncio.Task[V]) -> None:
        del self._asking[name]
        if not asking.cancelled():
            # Retrieved here, so that asyncio does not report the error as never retrieved.
            asking.exception()

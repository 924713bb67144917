"""Since when each worker has been busy with the same thing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """What the workers of one consumer report; one that hangs does not hide behind the others."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Task[object] | None, float] = {}

    @property
    def is_idle(self) -> bool:
        """Whether no worker has anything in hand."""
        return not self._since

    def longest_s(self) -> float:
        """For how many seconds the slowest worker has not come any further; 0 when all are idle."""
        return time.monotonic() - min(self._since.values()) if self._since else 0.0

    def made(self) -> None:
        """The worker that calls this has come further."""
        self._since[asyncio.current_task()] = time.monotonic()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The worker that calls this has something in hand."""
        self.made()
        try:
            yield
        finally:
            del self._since[asyncio.current_task()]

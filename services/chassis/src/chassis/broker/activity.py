"""The activity of a consumer's workers, which shows a worker that hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Records since when each worker of a consumer has been busy, so that one that hangs is found."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Task[object] | None, float] = {}

    @property
    def is_idle(self) -> bool:
        """Return whether no worker is busy."""
        return not self._since

    def longest_s(self) -> float:
        """Return the seconds for which the slowest worker has made no progress; 0 when all are idle."""
        return time.monotonic() - min(self._since.values()) if self._since else 0.0

    def made(self) -> None:
        """Note progress of the calling worker."""
        self._since[asyncio.current_task()] = time.monotonic()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count the calling worker as busy for the length of the block."""
        self.made()
        try:
            yield
        finally:
            del self._since[asyncio.current_task()]

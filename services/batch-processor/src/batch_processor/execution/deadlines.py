"""The deadline of an item, which is suspended while the item waits for its turn behind others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class ItemDeadline:
    """Counts the seconds that an item has left."""

    def __init__(self, timeout_s: float) -> None:
        self._left_s = timeout_s
        self._since: float | None = time.monotonic()

    def left_s(self) -> float:
        """Return the seconds left; 0 or less when the item is late."""
        return self._left_s if self._since is None else self._left_s - (time.monotonic() - self._since)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not count the seconds of the block."""
        self._left_s, self._since = self.left_s(), None
        try:
            yield
        finally:
            self._since = time.monotonic()


CURRENT: ContextVar[ItemDeadline | None] = ContextVar("item_deadline", default=None)


@contextmanager
def stopped() -> Iterator[None]:
    """Do not count the seconds of the block against the running item, if there is one."""
    deadline = CURRENT.get()
    if deadline is None:
        yield
        return
    with deadline.stopped():
        yield

"""Coroutines started by hand: work that never waits needs no task, no watcher and no timer."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Finished(Exception, Generic[T]):
    """The work finished in its first step with `value`."""

    def __init__(self, value: T) -> None:
        super().__init__()
        self.value = value


def begin(work: Coroutine[Any, Any, T]) -> Rest[T]:
    """Run `work` up to its first wait and return the rest of it. Raise `Finished` if it never waits."""
    try:
        return Rest(work, work.send(None))
    except StopIteration as end:
        raise Finished(end.value) from None


class Rest(Generic[T]):
    """The rest of a coroutine, which waits for `waits_for`; to be awaited once, in the same task."""

    def __init__(self, work: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, T]:
        # A future holds its result: the first one must not be kept until the end.
        waits_for, self._waits_for = self._waits_for, None
        while True:
            value, error = None, None
            try:
                value = yield waits_for
            except BaseException as thrown:
                error = thrown
            try:
                waits_for = self._work.send(value) if error is None else self._work.throw(error)
            except StopIteration as end:
                found: T = end.value
                return found
            finally:
                # Its traceback holds this frame, and so all that the work holds: together they would
                # stay until the garbage is collected.
                del error

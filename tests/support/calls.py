"""The work of a function in Python, as the number of its calls: the same on every machine, busy or not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def counted_calls() -> Iterator[Callable[[], int]]:
    """Count calls of functions, also of built-in ones, in this thread; yield how many there were so far."""
    count = 0

    def note(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield lambda: count
    finally:
        sys.setprofile(before)


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions are called while `work` runs."""
    with counted_calls() as calls:
        work()
    return calls()

"""An error that cannot be reported as others are."""

from __future__ import annotations


class MuteError(Exception):
    """An error whose text cannot be made: to ask for it raises `failure`."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self._failure = failure or RecursionError()

    def __str__(self) -> str:
        raise self._failure

    __repr__ = __str__

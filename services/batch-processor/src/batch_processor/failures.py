"""Why an item failed, told from any exception."""

from __future__ import annotations

from dataclasses import dataclass

from chassis.errors import ServiceError

_MOST_CODE = 100
_MOST_DETAIL = 1000


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an item failed, in words that can be stored, and whether another attempt may help."""

    code: str
    detail: str
    retryable: bool = False


def cause_of(error: BaseException) -> Cause:
    """Return why an item failed. No exception, whatever its text and its attributes do, makes this raise."""
    name = type(error).__name__
    try:
        if isinstance(error, ServiceError):
            code, detail = str(error.code)[:_MOST_CODE], str(error.detail)
            return Cause(storable(code), storable(detail), bool(error.retryable))
        text = str(error)
        detail = storable(f"{name}: {text}" if text else name)
        if isinstance(error, TimeoutError):
            return Cause("timeout", detail, retryable=True)
        return Cause("operation-failed", detail)
    except BaseException:
        # The text of an exception is code of the operation, too: it may raise whatever it likes.
        return Cause("operation-failed", storable(f"{name}, which could not be described"))


def storable(text: str) -> str:
    """Return the beginning of `text` without what PostgreSQL and JSON refuse: lone surrogates and NUL."""
    short = str.encode(text[:_MOST_DETAIL], "utf-8", "replace").decode()
    return short.replace("\x00", "\ufffd")

"""The cause of an item's failure, read from any exception."""

from __future__ import annotations

from dataclasses import dataclass

from chassis import plain
from chassis.errors import ServiceError

_MOST_CODE = 100
_MOST_DETAIL = 1000


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause of an item's failure, as text that can be stored, and whether another attempt may help."""

    code: str
    detail: str
    retryable: bool = False


def cause_of(error: BaseException) -> Cause:
    """Return why an item failed. This never raises, whatever the text and attributes of `error` do."""
    name = type(error).__name__
    try:
        if isinstance(error, ServiceError):
            code, detail = (
                plain.text(error.code, most=_MOST_CODE),
                plain.text(error.detail, most=_MOST_DETAIL),
            )
            return Cause(code, detail, bool(error.retryable))
    except BaseException as worse:
        # Attributes may be code of the operation, too.
        return Cause("operation-failed", f"{name} without a detail: {type(worse).__name__}")
    text = plain.text(error, most=_MOST_DETAIL)
    code = "timeout" if isinstance(error, TimeoutError) else "operation-failed"
    if isinstance(error, MemoryError):
        return Cause("out-of-memory", "The item needs more memory than its process may use.")
    return Cause(code, f"{name}: {text}" if text else name, isinstance(error, TimeoutError))

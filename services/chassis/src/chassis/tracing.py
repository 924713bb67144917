"""The trace and request that the current work belongs to (W3C traceparent), carried by context variables."""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from random import getrandbits

_TRACEPARENT = re.compile(r"^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$")
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")


@dataclass(frozen=True, slots=True)
class Trace:
    """One hop of a trace: the whole's id, this hop's id and the sampling flags, all lower-case hex."""

    trace_id: str
    span_id: str
    flags: str
    request_id: str

    @property
    def traceparent(self) -> str:
        """The header that the next hop gets."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def begin(traceparent: str | None = None, request_id: str | None = None) -> Trace:
    """Continue the trace of `traceparent`, or start one, and make it the current one."""
    match = _TRACEPARENT.match(traceparent) if traceparent else None
    span_id = f"{getrandbits(64) or 1:016x}"
    trace_id, flags = (match[1], match[3]) if match else (f"{getrandbits(128) or 1:032x}", "00")
    if request_id is None or not _REQUEST_ID.match(request_id):
        request_id = trace_id
    trace = Trace(trace_id, span_id, flags, request_id)
    _current.set(trace)
    return trace


def current() -> Trace | None:
    """The trace of the work at hand, if it has one."""
    return _current.get()

"""The trace and request of the current work (W3C traceparent), carried by context variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from random import getrandbits, random
from typing import Any

# A later version than 00 is read like 00 and may be longer; ff is invalid (W3C Trace Context, 3.2.2).
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

SAMPLED = "01"
_NOT_SAMPLED = "00"
# How spans are begun: without the text of an error, which may hold what callers sent.
QUIET: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}


@dataclass(frozen=True, slots=True)
class Trace:
    """One hop of a trace: the trace's id, this hop's id and the sampling flags, all lower-case hex.

    `parent_id` is the hop before, None at the root. `is_span` is true when `span_id` is a recorded span's.
    """

    trace_id: str
    span_id: str
    flags: str
    request_id: str
    parent_id: str | None = None
    is_span: bool = False

    @property
    def traceparent(self) -> str:
        """Return the header that names this hop."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    @property
    def handed_on(self) -> str:
        """Return the header for the next hop: that of the last recorded span, since a parent must exist."""
        recorded = self.span_id if self.is_span or self.parent_id is None else self.parent_id
        return f"00-{self.trace_id}-{recorded}-{self.flags}"

    @property
    def is_sampled(self) -> bool:
        """Return whether spans of this trace are recorded, where recording is on."""
        return bool(int(self.flags, 16) & 1)


current_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)


class Sampling:
    """The share of the traces begun here that is recorded; 0 until recording is switched on."""

    ratio: float = 0.0


def begin(traceparent: str | None = None, request_id: str | None = None) -> Trace:
    """Continue the trace of `traceparent`, or start one, and make it the current one."""
    trace = read(traceparent, request_id) if traceparent else None
    if trace is None:
        trace_id = f"{getrandbits(128) or 1:032x}"
        is_sampled = Sampling.ratio > 0 and random() < Sampling.ratio  # noqa: S311 - not a secret
        flags = SAMPLED if is_sampled else _NOT_SAMPLED
        trace = Trace(trace_id, _new_span_id(), flags, _proper(request_id) or trace_id)
    current_trace.set(trace)
    return trace


@contextmanager
def during(traceparent: str | None = None, request_id: str | None = None) -> Iterator[Trace]:
    """Begin or continue a trace for the length of the block; restore the one before afterwards."""
    before = current_trace.get()
    try:
        yield begin(traceparent, request_id)
    finally:
        current_trace.set(before)


@contextmanager
def none() -> Iterator[None]:
    """Run the block outside of any trace: it works for several at once."""
    before = current_trace.get()
    current_trace.set(None)
    try:
        yield
    finally:
        current_trace.set(before)


def read(traceparent: str, request_id: str | None = None) -> Trace | None:
    """Return the next hop of the trace that `traceparent` names, or None when it is malformed."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    _, trace_id, parent_id, given, _ = match.groups()
    # Other flags may have another meaning in a later version, so they are not passed on.
    flags = SAMPLED if int(given, 16) & 1 else _NOT_SAMPLED
    return Trace(trace_id, _new_span_id(), flags, _proper(request_id) or trace_id, parent_id)


def current() -> Trace | None:
    """Return the trace of the current work, if it has one."""
    return current_trace.get()


def _new_span_id() -> str:
    # Ids need to be different, not secret: the fast generator is enough.
    return f"{getrandbits(64) or 1:016x}"


def _proper(request_id: str | None) -> str | None:
    return request_id if request_id is not None and _REQUEST_ID.fullmatch(request_id) else None

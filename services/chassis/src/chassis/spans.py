"""Spans of OpenTelemetry, sent by OTLP: nearly free until `OTEL_EXPORTER_OTLP_ENDPOINT` is set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from chassis import redaction, tracing
from chassis.tracing import Sampling, Trace, current_trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Kind = Literal["server", "client", "producer", "consumer", "internal"]
Attributes = Mapping[str, str | int | float | bool]

_KINDS = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}
_EXPORT_TIMEOUT_S = 5


class SpanRecorder:
    """The process's recorder of spans; without one nothing is recorded."""

    tracer: otel.Tracer | None = None
    provider: TracerProvider | None = None


def configure(*, service: str, endpoint: str | None, ratio: float) -> None:
    """Send spans to `endpoint` (a collector's base address), of `ratio` (0 to 1) of the traces begun here."""
    if not endpoint:
        return
    # Loaded only where spans are sent: it takes 5 MiB.
    from chassis import span_export

    SpanRecorder.provider = span_export.start(service=service, endpoint=endpoint, timeout_s=_EXPORT_TIMEOUT_S)
    SpanRecorder.tracer = SpanRecorder.provider.get_tracer("tickwire")
    Sampling.ratio = ratio


def close() -> None:
    """Send the recorded spans and stop; block for up to 5 seconds, so call it in a thread."""
    provider, SpanRecorder.provider, SpanRecorder.tracer = SpanRecorder.provider, None, None
    Sampling.ratio = 0.0
    if provider is not None:
        provider.force_flush(_EXPORT_TIMEOUT_S * 1000)
        provider.shutdown()


@contextlib.contextmanager
def span(name: str, kind: Kind, attributes: Attributes | None = None) -> Iterator[Span | None]:
    """Record the block as a child of the current trace; what happens inside belongs to it."""
    trace = current_trace.get()
    if SpanRecorder.tracer is None or trace is None or not trace.is_sampled:
        yield None
        return
    recorded = SpanRecorder.tracer.start_span(name, _parent(trace), _KINDS[kind], dict(attributes or {}))
    inner = replace(trace, span_id=format(recorded.get_span_context().span_id, "016x"), is_span=True)
    outer = current_trace.set(inner)
    try:
        with otel.use_span(recorded, end_on_exit=True, **tracing.QUIET):
            try:
                yield recorded
            except Exception as error:
                recorded.set_status(otel.StatusCode.ERROR, redaction.safe_message(error))
                raise
    finally:
        current_trace.reset(outer)


@contextlib.contextmanager
def following() -> Iterator[None]:
    """Attach the block to the current trace, without a span of its own around it."""
    trace = current_trace.get()
    if SpanRecorder.tracer is None or trace is None or not trace.is_sampled:
        yield
        return
    attached = otel_context.attach(_parent(trace))
    try:
        yield
    finally:
        otel_context.detach(attached)


def record(
    name: str,
    kind: Kind,
    traceparent: str | None,
    *,
    started_ns: int,
    ended_ns: int,
    attributes: Attributes | None = None,
    failed: str | None = None,
    is_linked: bool = False,
) -> None:
    """Record a finished span as a child of `traceparent`, or with a link to it where `is_linked`.

    Times are nanoseconds since 1970. For work that was done for several traces at once.
    """
    if SpanRecorder.tracer is None or traceparent is None:
        return
    trace = tracing.read(traceparent)
    if trace is None or not trace.is_sampled or trace.parent_id is None:
        return
    parent = _remote(trace.trace_id, trace.parent_id)
    recorded = SpanRecorder.tracer.start_span(
        name,
        otel.set_span_in_context(NonRecordingSpan(parent), Context()),
        _KINDS[kind],
        dict(attributes or {}),
        links=[Link(parent)] if is_linked else None,
        start_time=started_ns,
    )
    if failed is not None:
        recorded.set_status(otel.StatusCode.ERROR, failed)
    recorded.end(ended_ns)


def _parent(trace: Trace) -> Context:
    parent_id = trace.span_id if trace.is_span else trace.parent_id
    if parent_id is None:
        return Context()
    return otel.set_span_in_context(NonRecordingSpan(_remote(trace.trace_id, parent_id)), Context())


def _remote(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(1))

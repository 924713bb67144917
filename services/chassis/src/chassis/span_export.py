"""The export of spans by OTLP: the parts of OpenTelemetry that are loaded only with a collector."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Span
from opentelemetry.util.types import Attributes

from chassis import tracing


def start(*, service: str, endpoint: str, timeout_s: int) -> TracerProvider:
    """Record database statements too; return the provider that sends all spans to `endpoint`."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "service.namespace": "tickwire"}),
        id_generator=_OurIds(),
        sampler=ParentBased(_OursOnly()),
    )
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=timeout_s)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    AsyncPGInstrumentor().instrument(tracer_provider=_QuietProvider(provider))  # type: ignore[no-untyped-call]  # theirs
    return provider


class _OurIds(IdGenerator):
    """Assigns to a root span the trace id that its request already has in logs and answers."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        return self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        trace = tracing.current()
        return int(trace.trace_id, 16) if trace else self._random.generate_trace_id()


class _OursOnly(Sampler):
    """Samples roots: work that belongs to no request (a poll, a ping) is not recorded."""

    def should_sample(self, *_: object, attributes: Attributes = None, **__: object) -> SamplingResult:
        trace = tracing.current()
        is_ours = trace is not None and trace.is_sampled
        return SamplingResult(Decision.RECORD_AND_SAMPLE if is_ours else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "roots of requests only"


class _Quiet(otel.Tracer):
    """A tracer whose spans do not record the texts of exceptions: drivers quote rows in them."""

    def __init__(self, tracer: otel.Tracer) -> None:
        # Its signatures are long, and only passed through.
        self._tracer: Any = tracer

    def start_span(self, *arguments: Any, **options: Any) -> Span:
        started: Span = self._tracer.start_span(*arguments, **options, **tracing.QUIET)
        return started

    def start_as_current_span(self, *arguments: Any, **options: Any) -> Any:
        return self._tracer.start_as_current_span(*arguments, **options, **tracing.QUIET)


class _QuietProvider(otel.TracerProvider):
    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *arguments: Any, **options: Any) -> otel.Tracer:
        return _Quiet(self._provider.get_tracer(*arguments, **options))

"""An OpenTelemetry collector for tests: takes OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from native.ports import free_port
from support.waiting import until


@dataclass(frozen=True)
class SeenSpan:
    """A span as it was sent; ids in hex."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    attributes: dict[str, object]
    failed: bool
    started_ns: int


@dataclass
class Collector:
    """Receives the spans."""

    url: str
    spans: list[SeenSpan] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    def of(self, trace_id: str) -> list[SeenSpan]:
        """Return the spans of one trace in the order of their start, in whatever order they arrived."""
        found = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.started_ns)

    async def take(self, request: Request) -> Response:
        self.sent.append(await request.body())
        sent = ExportTraceServiceRequest.FromString(self.sent[-1])
        for resource in sent.resource_spans:
            service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                self.spans += [_seen(service, span) for span in scope.spans]
        return Response(b"", media_type="application/x-protobuf")


def _seen(service: str, span: Any) -> SeenSpan:
    return SeenSpan(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple(link.span_id.hex() for link in span.links),
        {a.key: a.value.string_value or a.value.int_value for a in span.attributes},
        span.status.code == 2,
        span.start_time_unix_nano,
    )


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector for the length of the block."""
    port = free_port()
    collector = Collector(f"http://127.0.0.1:{port}")
    app = Starlette(routes=[Route("/v1/traces", collector.take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off"))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        yield collector
    finally:
        server.should_exit = True
        await task

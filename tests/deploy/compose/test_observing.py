"""The profile `tracing` of the real containers: what is traced arrives in its back end."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.deployment.accepted import letter, post
from support.deployment.composed import SERVICES, Composed, until

# Cold, the first of them waits for images that are made from nothing.
pytestmark = [pytest.mark.docker, pytest.mark.timeout(480)]


def test_one_trace_of_all_services_reaches_the_backend_of_the_profile_tracing(stack: Composed) -> None:
    trace_id, caller = uuid4().hex, "00f067aa0ba902b7"
    url = f"http://{stack.address('tempo')}:3200/api/traces/{trace_id}"
    with stack.api as api:
        api.headers["traceparent"] = f"00-{trace_id}-{caller}-01"
        post(api, "/v1/emails", letter("traced"))
        post(api, "/v1/tasks", {"operation": "echo", "payload": 1})
        assert api.get("/v1/stocks/AAPL/bars?limit=1").status_code == 200

    def spans() -> set[tuple[str, str]]:
        found = httpx.get(url, headers={"accept": "application/protobuf"}, timeout=10, trust_env=False)
        # The answer of Tempo has the shape of what it is sent.
        sent = ExportTraceServiceRequest.FromString(found.content if found.is_success else b"")
        return {
            (attribute.value.string_value, span.name)
            for resource in sent.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
            for scope in resource.scope_spans
            for span in scope.spans
            if span.trace_id.hex() == trace_id
        }

    wanted = {
        ("gateway", "POST /v1/emails"),
        ("email", "deliver by SMTP"),
        ("stock-data", "answer stocks.get-bars.v1"),
        ("batch-processor", "run echo"),
    }
    with stack.telling(*SERVICES, "tempo"):
        until(lambda: True if wanted <= spans() else None)

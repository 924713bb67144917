"""The trace of a measurement, as the label of an exemplar, which Grafana links from a dot of a panel.

Only sampled traces can be opened: for others no label is made.
"""

from __future__ import annotations

from chassis import tracing
from chassis.tracing import Trace


def of_trace(trace: Trace | None) -> dict[str, str] | None:
    """Return the label of work that belongs to `trace`."""
    return None if trace is None or not trace.is_sampled else {"trace_id": trace.trace_id}


def of_messages(*traceparents: str | None) -> dict[str, str] | None:
    """Return the label of work for several messages: the first sampled trace among them."""
    for traceparent in traceparents:
        if traceparent is not None and not traceparent.endswith("-00"):
            found = of_trace(tracing.read(traceparent))
            if found is not None:
                return found
    return None

"""The golden signals: the charts of each service, their units, and their queries to Prometheus.

Every query covers all services, each series with its label `service`: the number of queries does not grow
with the number of services.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["per_second", "share", "seconds", "count"]
WindowName = Literal["5m", "15m", "1h", "6h", "24h"]

_SECONDS: dict[WindowName, int] = {"5m": 300, "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400}
_STEPS = 60
# Four times the scrape interval: a rate needs two samples, and a scrape may be missed.
_LEAST_RANGE_S = 120
_RANGE = "$range"
_NOT_STREAMS = 'route!~".*/events"'


@dataclass(frozen=True, slots=True)
class Period:
    """A period of time up to now, and its resolution."""

    name: WindowName

    @property
    def seconds(self) -> int:
        """The length of the window."""
        return _SECONDS[self.name]

    @property
    def step_s(self) -> int:
        """The seconds from one point to the next."""
        return self.seconds // _STEPS

    def times(self, now: float) -> list[int]:
        """Return the moments of the points, in seconds since 1970; the last one is now."""
        end = int(now)
        return list(range(end - self.seconds, end + 1, self.step_s))

    def expression(self, query: str) -> str:
        """Return `query` with the range of its rates, at least a step, so that no event is missed."""
        return query.replace(_RANGE, f"{max(self.step_s, _LEAST_RANGE_S)}s")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: its name, its query in PromQL, and the value above which it is a warning."""

    name: str
    query: str
    warn_above: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines of one unit that share a chart; `key` names the chart in the answer and in errors."""

    key: str
    signal: Literal["traffic", "errors", "latency", "saturation"]
    title: str
    unit: Unit
    lines: tuple[Line, ...]


def _rate(metric: str, where: str = "") -> str:
    return f"sum by (service) (rate({metric}{{{where}}}[{_RANGE}]))"


def _failed(metric: str, where: str) -> str:
    """Return the query of a counter's failed share: empty without events, 0 without failures."""
    some, whole = _rate(metric, where), _rate(metric)
    return f"({some} or {whole} * 0) / ({whole} > 0)"


def _buckets(histogram: str, where: str = "") -> str:
    return f"sum by (service, le) (rate({histogram}_bucket{{{where}}}[{_RANGE}]))"


def _quantile(q: float, buckets: str) -> str:
    return f"histogram_quantile({q:g}, {buckets})"


def _connections(state: str) -> str:
    return f'sum by (service) (tickwire_postgres_pool_connections{{state="{state}"}})'


_REQUESTS = " or ".join(
    (_buckets("tickwire_http_request_seconds", _NOT_STREAMS), _buckets("tickwire_rpc_server_seconds"))
)
_MESSAGES = _buckets("tickwire_message_handle_seconds")
# Not `provider-share`: one owner asks for more than its share.
_OUR_FAULT = (
    'outcome=~"internal|overloaded|deadline-exceeded|.*-unavailable'
    '|provider-(auth|quota|entitlement|refused|blocked|down|bad-data)"'
)

CHARTS = (
    Chart(
        "traffic",
        "traffic",
        "Traffic",
        "per_second",
        (
            Line("HTTP requests", _rate("tickwire_http_requests_total")),
            Line("requests by broker", _rate("tickwire_rpc_server_requests_total")),
            Line("messages", _rate("tickwire_messages_consumed_total")),
        ),
    ),
    Chart(
        "errors",
        "errors",
        "Errors",
        "share",
        (
            Line("HTTP 5xx", _failed("tickwire_http_requests_total", 'status=~"5.."'), 0.01),
            Line("requests failed", _failed("tickwire_rpc_server_requests_total", _OUR_FAULT), 0.01),
            Line("messages retried", _failed("tickwire_messages_consumed_total", 'outcome="retry"'), 0.05),
            Line("messages parked", _failed("tickwire_messages_consumed_total", 'outcome="park"'), 0.01),
        ),
    ),
    Chart(
        "latency",
        "latency",
        "Latency",
        "seconds",
        (
            Line("requests p50", _quantile(0.5, _REQUESTS)),
            Line("requests p99", _quantile(0.99, _REQUESTS), 2.0),
            Line("messages p50", _quantile(0.5, _MESSAGES)),
            Line("messages p99", _quantile(0.99, _MESSAGES)),
        ),
    ),
    Chart(
        "in-flight",
        "saturation",
        "In flight",
        "count",
        (
            Line(
                "in flight",
                'sum by (service) ({__name__=~"tickwire_(http_requests|batch_chunks)_in_flight"})',
            ),
        ),
    ),
    Chart(
        "loop-lag",
        "saturation",
        "Loop lag p99",
        "seconds",
        (Line("lag p99", _quantile(0.99, _buckets("tickwire_event_loop_lag_seconds")), 0.25),),
    ),
    Chart(
        "pool",
        "saturation",
        "Pool in use",
        "share",
        (Line("in use", f"({_connections('open')} - {_connections('idle')}) / {_connections('most')}", 0.9),),
    ),
    Chart(
        "outbox",
        "saturation",
        "Outbox oldest",
        "seconds",
        (Line("age", "max by (service) (tickwire_outbox_oldest_seconds)", 30.0),),
    ),
    Chart(
        "queues",
        "saturation",
        "Queues ready",
        "count",
        # Every process reports the same queues.
        (
            Line(
                "messages",
                "sum by (service) (max by (service, queue) (tickwire_queue_ready_messages))",
                10_000.0,
            ),
        ),
    ),
)

UP = "up"
READY = "max by (service) (tickwire_ready)"
# For each process: its version, its start, and its restarts within a day.
VERSION = "tickwire_build_info"
STARTED = "process_start_time_seconds"
RESTARTS = "changes(process_start_time_seconds[1d])"

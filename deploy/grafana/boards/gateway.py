"""The gateway: requests, keys, acceptance, calls to the services."""

from __future__ import annotations

from grafana.panels import Dashboard, panel, share, stack
from grafana.promql import highest, part, quantile, quantiles, rate, total

_STREAMS = 'route!~".*/events"'

BOARD = Dashboard(
    uid="gateway",
    title="Gateway",
    description="HTTP by route, authentication, acceptance, and the calls to the other services.",
    panels=(
        stack(
            "Requests by route",
            "HTTP requests per second, by route template.",
            "reqps",
            rate("tickwire_http_requests_total", "route", "method"),
        ),
        stack(
            "Requests by status",
            "HTTP requests per second, by status.",
            "reqps",
            rate("tickwire_http_requests_total", "status"),
        ),
        panel(
            "Requests in flight",
            "HTTP requests being answered now.",
            "short",
            total("tickwire_http_requests_in_flight", "instance"),
        ),
        panel(
            "Latency by route",
            "99 of 100 requests are answered within this time; dots are exemplars that link to a trace.",
            "s",
            quantile(0.99, "tickwire_http_request_seconds", "route", where=_STREAMS),
        ),
        panel(
            "Latency",
            "Median, 99th percentile, and 99.9th percentile.",
            "s",
            *quantiles("tickwire_http_request_seconds", where=_STREAMS),
            quantile(0.999, "tickwire_http_request_seconds", where=_STREAMS),
        ),
        panel(
            "Authentication failures",
            "Requests refused at authentication, by reason.",
            "ops",
            rate("tickwire_auth_failures_total", "reason"),
        ),
        stack(
            "Requests beyond a limit",
            "Requests refused with 429 `rate-limited`, by class (GATEWAY_RATE_LIMITS).",
            "ops",
            rate("tickwire_rate_limit_requests_total", "kind", where='outcome="refused"'),
        ),
        stack(
            "Requests refused for lack of room",
            "Requests refused with 503 at a limit of all (`overloaded`, `provider-quota`), by route.",
            "ops",
            rate("tickwire_http_requests_overloaded_total", "route"),
        ),
        stack(
            "Requests counted",
            "Requests counted in limits; alone: by each gateway for itself, as the database did not answer.",
            "ops",
            rate("tickwire_rate_limit_requests_total", "outcome"),
        ),
        panel(
            "Connections",
            "Open connections of the HTTP listeners, WebSockets included.",
            "short",
            total("tickwire_http_connections", "instance", where='service="gateway"'),
        ),
        stack(
            "Memory of requests and answers",
            "Estimated bytes of bodies, documents, answers, streams, uploads and tables that are under way.",
            "bytes",
            total("tickwire_http_held_bytes", "kind"),
        ),
        panel(
            "Shared memory",
            "What these hold beyond the parts of their kinds; at 28 MiB more waits, or gets 429 or 503.",
            "bytes",
            highest("tickwire_http_shared_bytes", "instance"),
        ),
        stack(
            "Refused by the server",
            "Connections and requests that the server refused or cut before the application, by reason.",
            "ops",
            rate("tickwire_http_refused_total", "reason", where='service="gateway"'),
        ),
        stack(
            "Accepted work",
            "Work accepted with 202, by kind.",
            "ops",
            rate("tickwire_accepted_total", "kind"),
        ),
        stack(
            "Removed after their retention",
            "Rows removed per second: recorded answers, acceptances, audit entries, keys, messages, others.",
            "ops",
            rate("tickwire_gateway_removed_total", "kind"),
        ),
        panel(
            "Repeated answers",
            "Requests that were answered with the stored answer of an earlier one.",
            "ops",
            rate("tickwire_idempotent_replays_total"),
        ),
        stack(
            "Quotes answered",
            "Quotes per second: from pushed quotes, or by a request to stock-data.",
            "ops",
            rate("tickwire_quotes_answered_total", "origin"),
        ),
        share(
            "Quotes answered from the push",
            "The higher the share, the fewer requests go to stock-data.",
            part('tickwire_quotes_answered_total{origin="push"}', "tickwire_quotes_answered_total"),
        ),
        panel(
            "Coalesced requests",
            "Requests that shared the call of another one instead of making their own.",
            "ops",
            rate("tickwire_coalesced_requests_total", "call"),
        ),
        stack(
            "Calls to services",
            "Requests to other services per second, by outcome.",
            "reqps",
            rate("tickwire_rpc_client_calls_total", "target", "outcome", where='service="gateway"'),
        ),
        panel(
            "Time of calls",
            "From request to reply, by kind of request.",
            "s",
            quantile(0.99, "tickwire_rpc_client_seconds", "type", where='service="gateway"'),
        ),
        panel(
            "Calls in flight",
            "Requests that wait for a reply; at 512 more are refused.",
            "short",
            total("tickwire_rpc_client_in_flight", "target", where='service="gateway"'),
        ),
        panel(
            "Open circuits",
            "1 while the circuit breaker is open for an owner, whose calls to the service fail at once.",
            "short",
            highest("tickwire_rpc_breaker_open", "target", where='service="gateway"'),
        ),
        stack(
            "Events for webhooks",
            "Events for webhooks: promised, forbidden, dropped as too many wait, or withdrawn later.",
            "ops",
            rate("tickwire_webhook_events_total", "outcome"),
        ),
        stack(
            "Requests to webhooks",
            "Attempts to deliver, by outcome; `gone` receivers have disabled their webhook.",
            "ops",
            rate("tickwire_webhook_attempts_total", "outcome"),
        ),
        panel(
            "Answers of webhooks",
            "From a request to the answer of the receiver, who has 15 s.",
            "s",
            *quantiles("tickwire_webhook_attempt_seconds"),
        ),
        panel(
            "Webhooks with something due",
            "Webhooks with a delivery that is due: many, while their receivers are slow.",
            "short",
            highest("tickwire_webhooks_due", "instance"),
        ),
    ),
)

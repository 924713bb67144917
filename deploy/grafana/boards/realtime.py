"""Realtime: connections, publications, conflation, recovery."""

from __future__ import annotations

from grafana.panels import Dashboard, panel, stack
from grafana.promql import highest, quantile, quantiles, rate, total

BOARD = Dashboard(
    uid="realtime",
    title="Realtime",
    description="WebSocket and SSE connections, what is pushed to them, and how late it is.",
    panels=(
        stack(
            "Connections",
            "Open connections, by transport.",
            "short",
            total("tickwire_realtime_sockets", "transport"),
        ),
        panel(
            "Closed by the gateway",
            "Connections per second that the gateway closed, by code (3008: too slow).",
            "ops",
            rate("tickwire_realtime_closed_total", "code"),
        ),
        panel(
            "Refused",
            "WebSockets refused per second, by the code of the problem.",
            "ops",
            rate("tickwire_realtime_refused_total", "code"),
        ),
        stack(
            "Subscriptions",
            "Subscriptions of all connections; GATEWAY_MOST_SUBSCRIPTIONS bounds them.",
            "short",
            total("tickwire_realtime_subscriptions"),
        ),
        panel(
            "Subscriptions refused",
            "Subscriptions refused per second, as their owner or the gateway has too many.",
            "ops",
            rate("tickwire_realtime_subscriptions_refused_total"),
        ),
        panel(
            "Commands refused",
            "Commands per second over the rate of their connection or of their owner.",
            "ops",
            rate("tickwire_realtime_commands_refused_total", "reason"),
        ),
        panel(
            "Publications",
            "Publications per second that reached connections, by kind.",
            "ops",
            rate("tickwire_realtime_publications_total", "kind"),
        ),
        panel(
            "Conflated",
            "Publications per second that were replaced by a newer one before they were sent.",
            "ops",
            rate("tickwire_realtime_conflated_total"),
        ),
        panel(
            "Unsubscribed for falling behind",
            "Subscriptions per second that ended, as too much waited for those of their owner in a channel; "
            "their clients recover.",
            "ops",
            rate("tickwire_realtime_fell_behind_total"),
        ),
        panel(
            "Work that waits for a turn",
            "Commands, frames and publications of owners that have too much for one pass of the event loop.",
            "short",
            total("tickwire_loop_turns_waiting", "instance"),
        ),
        panel(
            "Longest wait for a turn",
            "Of an owner at the event loop; others are served meanwhile.",
            "s",
            highest("tickwire_loop_turns_oldest_seconds", "instance"),
        ),
        panel(
            "Recoveries",
            "Subscriptions that asked for missed publications, by outcome.",
            "ops",
            rate("tickwire_realtime_recoveries_total", "outcome"),
        ),
        panel(
            "Publish to listener",
            "Age of live messages when the gateway has handed them to its listeners, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_live_message_age_seconds", "type"),
        ),
        panel(
            "Wait for the connection",
            "How long frames in order wait for their connection.",
            "s",
            *quantiles("tickwire_realtime_queue_seconds"),
        ),
        panel(
            "Bytes that wait",
            "Bytes that wait for slow connections.",
            "bytes",
            total("tickwire_realtime_queued_bytes", "instance"),
        ),
        panel(
            "Live messages",
            "Transient messages published per second, by service and outcome.",
            "ops",
            rate("tickwire_messages_published_total", "service", "outcome", where='exchange="live"'),
        ),
    ),
)

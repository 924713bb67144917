"""Is all well? Golden signals, objectives, firing alerts."""

from __future__ import annotations

from grafana.panels import Dashboard, Query, panel, share, stack
from grafana.promql import highest, part, quantiles, rate, total

BOARD = Dashboard(
    uid="overview",
    title="Tickwire overview",
    description="The first look: traffic, errors, latency, freshness, objectives and firing alerts.",
    panels=(
        panel(
            "Firing alerts",
            "Alerts that fire now, by name and severity. Each has a runbook in docs/runbooks.",
            "short",
            Query(
                'sum by (alertname, severity) (ALERTS{alertstate="firing", severity!="none"}) or vector(0)',
                "{{alertname}} {{severity}}",
            ),
        ),
        panel(
            "Error budget left",
            "Remaining error budget of 30 days, or of the time for which metrics are kept; at 0 it is spent.",
            "percentunit",
            Query(
                "slo:period_error_budget_remaining:ratio",
                "{{sloth_slo}} {{sloth_service}}",
            ),
        ),
        panel(
            "Burn rate",
            "How fast each budget burns: at 1 it lasts exactly 30 days, at 14.4 an alert pages.",
            "short",
            Query("slo:current_burn_rate:ratio", "{{sloth_slo}} {{sloth_service}}"),
        ),
        stack(
            "Requests",
            "HTTP requests per second at the gateway, by status.",
            "reqps",
            rate("tickwire_http_requests_total", "status"),
        ),
        share(
            "Failed requests",
            "Share of the HTTP requests that the gateway answered with 5xx.",
            Query(
                '(sum(rate(tickwire_http_requests_total{status=~"5.."}[$__rate_interval])) or vector(0))'
                " / sum(rate(tickwire_http_requests_total[$__rate_interval]))",
                "5xx",
            ),
        ),
        panel(
            "Latency",
            "Time to answer an HTTP request, without streams.",
            "s",
            *quantiles("tickwire_http_request_seconds", where='route!~".*/events"'),
        ),
        panel(
            "Age of messages when taken",
            "How long commands and events wait before a consumer takes them.",
            "s",
            *quantiles("tickwire_message_age_seconds", "queue"),
        ),
        panel(
            "Age of pushed quotes",
            "From the feed's tick to the gateway's listeners.",
            "s",
            *quantiles("tickwire_live_message_age_seconds", where='type="stocks.ticked.v1"'),
        ),
        panel(
            "Mail: accepted to delivered",
            "From the 202 to the relay's 250.",
            "s",
            *quantiles("tickwire_email_accept_to_delivered_seconds"),
        ),
        stack(
            "Accepted work",
            "Work accepted with 202, by kind.",
            "ops",
            rate("tickwire_accepted_total", "kind"),
        ),
        panel(
            "Outbox: oldest message",
            "Age of the oldest message that waits for the broker.",
            "s",
            highest("tickwire_outbox_oldest_seconds", "service"),
        ),
        panel(
            "Parked messages",
            "Messages that could not be handled and wait for a decision.",
            "short",
            highest("tickwire_parked_messages", "service", "queue"),
        ),
        panel(
            "Paused work",
            "Operations and owners that an administrator has paused; /v1/admin/pauses lists them.",
            "short",
            highest("tickwire_batch_paused", "kind"),
        ),
        panel(
            "Ready processes",
            "Processes that report that they are ready; a service without a value does not answer.",
            "short",
            total("tickwire_ready", "service"),
        ),
        panel(
            "Targets up",
            "Scrape targets that answer, by service.",
            "short",
            total("up", "service", where='job=~"services|rabbitmq|postgres|memcached"'),
        ),
        share(
            "Quotes answered from the push",
            "Share of the quotes that needed no request to stock-data.",
            part('tickwire_quotes_answered_total{origin="push"}', "tickwire_quotes_answered_total"),
        ),
        panel(
            "Versions",
            "Processes by the version that they run.",
            "short",
            total("tickwire_build_info", "service", "version", "python"),
        ),
    ),
)

"""Market data: the feed, providers, answers."""

from __future__ import annotations

from grafana.panels import Dashboard, Query, panel, share, stack
from grafana.promql import highest, lowest, part, quantile, quantiles, rate

_CALLS = "tickwire_provider_calls_total"
_MADE = 'outcome!="share"'
_ANSWERED = 'outcome=~"ok|not_found"'

BOARD = Dashboard(
    uid="stock-data",
    title="Stock data",
    description="The feed and its freshness, providers, and the requests that are answered.",
    panels=(
        panel(
            "Ticks published",
            "Quotes that the feed publishes per second.",
            "ops",
            rate("tickwire_ticks_published_total", "instance"),
        ),
        panel(
            "Bars published",
            "Bars of the current minute that the feed publishes per second.",
            "ops",
            rate("tickwire_live_bars_published_total", "instance"),
        ),
        panel(
            "Last tick",
            "Time since each gateway last received a pushed quote; empty until the first after its start.",
            "s",
            Query("time() - (tickwire_quotes_last_push_timestamp_seconds > 0)", "{{instance}}"),
        ),
        panel(
            "Feeds running",
            "Processes that run the feed (one, if history is replayed), and those that are configured to.",
            "short",
            Query('sum(tickwire_feed_running{service="stock-data"})', "running"),
            Query('sum(tickwire_feed_expected{service="stock-data"})', "set up to"),
        ),
        panel(
            "Age of pushed quotes",
            "From the tick to the gateway's listeners.",
            "s",
            *quantiles("tickwire_live_message_age_seconds", where='type="stocks.ticked.v1"'),
        ),
        panel(
            "Age of pushed bars",
            "From the publishing of a bar to the gateway's listeners.",
            "s",
            *quantiles("tickwire_live_message_age_seconds", where='type="stocks.bars-ticked.v1"'),
        ),
        panel(
            "Price alerts armed",
            "Alerts watched by the replica that runs the feed.",
            "short",
            highest("tickwire_alerts_armed", "service"),
        ),
        panel(
            "Price alerts fired",
            "Firings stored per second.",
            "ops",
            rate("tickwire_alerts_fired_total"),
        ),
        panel(
            "Price alerts given up",
            "Alerts per second that are watched no more, because what was to be stored of them was refused.",
            "ops",
            rate("tickwire_alerts_dropped_total"),
        ),
        panel(
            "Price alerts late",
            "From the tick that fires an alert to its stored firing, and the age of the oldest that waits.",
            "s",
            *quantiles("tickwire_alert_fire_seconds"),
            highest("tickwire_alerts_oldest_crossing_seconds", "service"),
        ),
        panel(
            "Mails of price alerts",
            "Mails of firings, by outcome: accepted, or forbidden because the owner may no longer send.",
            "ops",
            rate("tickwire_alert_mails_total", "outcome"),
        ),
        stack(
            "Provider calls",
            "Calls to providers per second, by outcome.",
            "ops",
            rate("tickwire_provider_calls_total", "provider", "outcome"),
        ),
        share(
            "Provider failures",
            "Share of the calls that failed; an unknown symbol is not a failure.",
            Query(
                f"1 - sum by (provider) (rate({_CALLS}{{{_ANSWERED}}}[$__rate_interval]))"
                f" / sum by (provider) (rate({_CALLS}{{{_MADE}}}[$__rate_interval]))",
                "{{provider}}",
            ),
        ),
        panel(
            "Quota left",
            "Calls that each provider still allows until its reset, according to its answers.",
            "short",
            lowest("tickwire_provider_quota_remaining", "provider"),
        ),
        panel(
            "Time of provider calls",
            "99 of 100 calls end within this time.",
            "s",
            quantile(0.99, "tickwire_provider_call_seconds", "provider", "call"),
        ),
        stack(
            "Requests answered",
            "Requests of other services, by kind and outcome.",
            "reqps",
            rate("tickwire_rpc_server_requests_total", "type", "outcome", where='service="stock-data"'),
        ),
        panel(
            "Time to answer",
            "99 of 100 requests are answered within this time.",
            "s",
            quantile(0.99, "tickwire_rpc_server_seconds", "type", where='service="stock-data"'),
        ),
        share(
            "Cache hits",
            "Share of the look-ups in memcached that found a value.",
            part('tickwire_cache_reads_total{outcome="hit"}', "tickwire_cache_reads_total", "cache"),
        ),
        panel(
            "Bars imported",
            "Bars written to the database, since the process started.",
            "short",
            highest("tickwire_bars_imported_total", "source"),
        ),
        panel(
            "Ticks that could not leave",
            "Live messages dropped because the broker did not accept them.",
            "ops",
            rate(
                "tickwire_messages_published_total", "outcome", where='service="stock-data", exchange="live"'
            ),
        ),
    ),
)

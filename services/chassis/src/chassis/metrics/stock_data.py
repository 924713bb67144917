"""Metrics of stock-data: providers, the feed, price alerts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from chassis.metrics.conventions import FAST, SLOW

PROVIDER_CALLS = Counter(
    "tickwire_provider_calls", "Calls to market data providers.", ("provider", "call", "outcome")
)
PROVIDER_SECONDS = Histogram(
    "tickwire_provider_call_seconds",
    "Time that a provider takes to answer.",
    ("provider", "call"),
    buckets=FAST,
)
PROVIDER_QUOTA = Gauge(
    "tickwire_provider_quota_remaining",
    "Calls that a provider still allows, according to its answers.",
    ("provider",),
)
FEED_EXPECTED = Gauge("tickwire_feed_expected", "1 in a process that is configured to push quotes.")
FEED_RUNNING = Gauge("tickwire_feed_running", "1 while this process plays the feed.")
TICKS = Counter("tickwire_ticks_published", "Quotes published by the feed.")
BARS_PUBLISHED = Counter("tickwire_live_bars_published", "Bars of the current minute published by the feed.")
ALERTS_ARMED = Gauge("tickwire_alerts_armed", "Price alerts that this process watches.")
ALERTS_FIRED = Counter("tickwire_alerts_fired", "Firings of price alerts that were stored.")
ALERT_FIRE_SECONDS = Histogram(
    "tickwire_alert_fire_seconds",
    "Time from the tick that fires an alert to its stored firing.",
    buckets=SLOW,
)
ALERTS_OLDEST_CROSSING = Gauge(
    "tickwire_alerts_oldest_crossing_seconds",
    "Age of the oldest crossing of an alert that is not stored yet.",
)
ALERTS_DROPPED = Counter("tickwire_alerts_dropped", "Alerts given up: their crossings could not be stored.")
ALERT_MAILS = Counter(
    "tickwire_alert_mails", "Mails of alerts that fired, by what became of them.", ("outcome",)
)
BARS_IMPORTED = Counter("tickwire_bars_imported", "Bars written to the database.", ("source",))

"""Metrics of the gateway: keys, acceptance, limits, sockets, webhooks."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from chassis.metrics.conventions import FAST

AUTH_FAILURES = Counter("tickwire_auth_failures", "Requests refused at authentication.", ("reason",))
BOOTSTRAP_KEY_REFUSED = Gauge(
    "tickwire_bootstrap_key_refused", "1 while the configured bootstrap key does not work."
)
LAST_BACKUP = Gauge(
    "tickwire_last_backup_timestamp_seconds", "When the last complete backup began; 0: never."
)
ACCEPTED = Counter("tickwire_accepted", "Requests accepted with 202.", ("kind",))
REMOVED = Counter(
    "tickwire_gateway_removed",
    "Rows removed after their retention: recorded answers, acceptances, windows of limits, audit entries, "
    "API keys, chat messages, deliveries of webhooks.",
    ("kind",),
)
REPEATED_ANSWERS = Counter(
    "tickwire_idempotent_replays", "Requests answered with the stored answer to an earlier request."
)
QUOTES_ANSWERED = Counter("tickwire_quotes_answered", "Quotes answered, by their origin.", ("origin",))
RATE_LIMITED = Counter("tickwire_rate_limit_requests", "Requests counted in limits.", ("kind", "outcome"))
SOCKETS = Gauge("tickwire_realtime_sockets", "Open WebSocket and SSE connections.", ("transport",))
SOCKETS_REFUSED = Counter("tickwire_realtime_refused", "WebSockets refused, by the error's code.", ("code",))
SUBSCRIPTIONS = Gauge("tickwire_realtime_subscriptions", "Subscriptions of all connections.")
SUBSCRIPTIONS_REFUSED = Counter("tickwire_realtime_subscriptions_refused", "Subscriptions over a limit.")
PUBLICATIONS = Counter(
    "tickwire_realtime_publications", "Publications handed to connections, by kind of channel.", ("kind",)
)
FELL_BEHIND = Counter(
    "tickwire_realtime_fell_behind", "Subscriptions ended because too much waited for those of their owner."
)
CONFLATED = Counter("tickwire_realtime_conflated", "Publications overwritten by a newer one.")
RECOVERIES = Counter(
    "tickwire_realtime_recoveries", "Subscriptions that asked for what they missed, by outcome.", ("outcome",)
)
QUEUED_BYTES = Gauge("tickwire_realtime_queued_bytes", "Bytes that wait for slow connections.")
QUEUE_SECONDS = Histogram(
    "tickwire_realtime_queue_seconds", "Time that frames in order wait for their connection.", buckets=FAST
)
COMMANDS_REFUSED = Counter("tickwire_realtime_commands_refused", "Commands over a rate.", ("reason",))
SOCKETS_CLOSED = Counter("tickwire_realtime_closed", "Connections closed by the gateway.", ("code",))
LIVE_AGE = Histogram(
    "tickwire_live_message_age_seconds",
    "Age of a live message when the gateway has handed it to its listeners.",
    ("type",),
    buckets=FAST,
)
LAST_PUSH = Gauge(
    "tickwire_quotes_last_push_timestamp_seconds",
    "When the gateway last received a pushed quote; 0 before the first.",
)

WEBHOOK_EVENTS = Counter(
    "tickwire_webhook_events",
    "Events for webhooks: promised, forbidden to the maker of the webhook or alert, dropped because too many "
    "wait, or withdrawn because the maker of the webhook has lost the right before they were sent.",
    ("outcome",),
)
WEBHOOK_ATTEMPTS = Counter(
    "tickwire_webhook_attempts", "Requests to webhooks: succeeded, failed, or gone (410).", ("outcome",)
)
WEBHOOK_ATTEMPT_SECONDS = Histogram(
    "tickwire_webhook_attempt_seconds", "Time from a request to a webhook to its answer.", buckets=FAST
)
WEBHOOKS_DUE = Gauge("tickwire_webhooks_due", "Webhooks with a delivery that is due.")

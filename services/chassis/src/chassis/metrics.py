"""The registry: every metric of every service, by one naming convention (base units, bounded labels)."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# They would add a series to each counter that says no more than `up` and resets do.
disable_created_metrics()  # type: ignore[no-untyped-call]  # their stub

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 86_400)

BUILD_INFO = Gauge("tickwire_build_info", "Always 1; the labels say what runs.", ("version", "python"))
READY = Gauge("tickwire_ready", "1 while the process reports that it can work.")

HTTP_REQUESTS = Counter(
    "tickwire_http_requests", "HTTP requests answered, by route template.", ("method", "route", "status")
)
HTTP_SECONDS = Histogram(
    "tickwire_http_request_seconds", "Time to answer an HTTP request.", ("method", "route"), buckets=_FAST
)
HTTP_IN_FLIGHT = Gauge("tickwire_http_requests_in_flight", "HTTP requests being answered now.")

HTTP_CONNECTIONS = Gauge("tickwire_http_connections", "Open connections of the HTTP listeners.")
HTTP_HELD_BYTES = Gauge("tickwire_http_held_bytes", "Memory that requests and answers hold.", ("kind",))
HTTP_SHARED_BYTES = Gauge("tickwire_http_shared_bytes", "What all kinds hold of it beyond their parts.")
HTTP_REFUSED = Counter(
    "tickwire_http_refused",
    "Connections and requests that the server refused or cut before the application, by reason.",
    ("reason",),
)

RPC_CALLS = Counter(
    "tickwire_rpc_client_calls", "Requests sent to other services.", ("target", "type", "outcome")
)
RPC_CALL_SECONDS = Histogram(
    "tickwire_rpc_client_seconds", "Time from request to reply.", ("target", "type"), buckets=_FAST
)
RPC_IN_FLIGHT = Gauge("tickwire_rpc_client_in_flight", "Requests waiting for a reply.", ("target",))
RPC_BREAKER_OPEN = Gauge(
    "tickwire_rpc_breaker_open",
    "1 while the circuit breaker is open for an owner, whose calls to the service fail at once.",
    ("target",),
)
RPC_SERVED = Counter("tickwire_rpc_server_requests", "Requests answered.", ("type", "outcome"))
RPC_SERVED_SECONDS = Histogram(
    "tickwire_rpc_server_seconds", "Time to answer a request.", ("type",), buckets=_FAST
)
RPC_WAITING = Gauge(
    "tickwire_rpc_server_waiting", "Requests that wait while others of the same owner are being answered."
)
COALESCED = Counter("tickwire_coalesced_requests", "Requests that shared another's call.", ("call",))

PUBLISHED = Counter(
    "tickwire_messages_published", "Messages published, by confirm outcome.", ("exchange", "outcome")
)
PUBLISH_SECONDS = Histogram(
    "tickwire_publish_confirm_seconds", "Time from publish to confirm.", ("exchange",), buckets=_FAST
)
UNCONFIRMED = Gauge("tickwire_messages_unconfirmed", "Publishes waiting for their confirm.")
BROKER_CONNECTED = Gauge("tickwire_broker_connected", "1 while the connection is up.", ("link",))
BROKER_BLOCKED = Gauge(
    "tickwire_broker_blocked",
    "1 while the broker accepts no messages over the connection, because of an alarm of memory or disk.",
    ("link",),
)

CONSUMED = Counter(
    "tickwire_messages_consumed", "Messages settled, by outcome.", ("queue", "type", "outcome")
)
HANDLE_SECONDS = Histogram(
    "tickwire_message_handle_seconds", "Time to handle a group of messages.", ("queue", "type"), buckets=_FAST
)
MESSAGE_AGE = Histogram(
    "tickwire_message_age_seconds", "Age of a message when it is first consumed.", ("queue",), buckets=_SLOW
)
MESSAGE_ATTEMPTS = Histogram(
    "tickwire_message_attempts",
    "Attempts that a message needed until it was settled.",
    ("queue",),
    buckets=range(1, 7),
)
CONSUMER_PAUSED = Gauge("tickwire_consumer_paused", "1 while waiting for the database.", ("queue",))
INBOX_DUPLICATES = Counter(
    "tickwire_inbox_duplicates", "Messages skipped because they had been handled before.", ("queue",)
)

OUTBOX_OLDEST = Gauge("tickwire_outbox_oldest_seconds", "Age of the oldest message not yet published.")
OUTBOX_DEPTH = Gauge("tickwire_outbox_messages", "Messages waiting in the outbox.")

POOL_SIZE = Gauge("tickwire_postgres_pool_connections", "Connections of the pool.", ("state",))
POOL_WAIT_SECONDS = Histogram(
    "tickwire_postgres_acquire_seconds", "Time to get a connection from the pool.", buckets=_FAST
)
POOL_TIMEOUTS = Counter(
    "tickwire_postgres_acquire_timeouts",
    "Times that no connection was free in time for an owner that had none, or for the service itself.",
)
THREAD_WAIT_SECONDS = Histogram("tickwire_thread_wait_seconds", "Waits for a thread.", buckets=_FAST)
CACHE_READS = Counter("tickwire_cache_reads", "Cache look-ups.", ("cache", "outcome"))

PARKED = Gauge("tickwire_parked_messages", "Messages that wait for a decision.", ("queue",))
QUEUE_CONSUMERS = Gauge(
    "tickwire_queue_consumers", "Consumers of a queue, over all processes, by the broker's count.", ("queue",)
)
QUEUE_CONSUMERS_EXPECTED = Gauge(
    "tickwire_queue_consumers_expected", "1 where this process should be a consumer of the queue.", ("queue",)
)
QUEUE_MESSAGES = Gauge("tickwire_queue_ready_messages", "Messages ready in a queue.", ("queue",))

TASK_FAILURES = Counter(
    "tickwire_background_task_failures",
    "Restarts of a background task, and work that it set aside after a failure.",
    ("task",),
)
LOOP_STALLS = Counter(
    "tickwire_event_loop_stalls", "Times that the event loop was blocked for a second or more."
)
LOOP_LAG = Histogram(
    "tickwire_event_loop_lag_seconds", "How late the event loop runs a timer.", buckets=_FAST
)

LOOP_TURNS_WAITING = Gauge(
    "tickwire_loop_turns_waiting", "Parts of owners' work that wait for a turn at the event loop."
)
LOOP_TURNS_OLDEST = Gauge("tickwire_loop_turns_oldest_seconds", "Wait of the oldest of these parts so far.")

AUTH_FAILURES = Counter("tickwire_auth_failures", "Requests refused at authentication.", ("reason",))
BOOTSTRAP_KEY_REFUSED = Gauge(
    "tickwire_bootstrap_key_refused", "1 while the configured bootstrap key does not work."
)
LAST_BACKUP = Gauge(
    "tickwire_last_backup_timestamp_seconds", "When the last complete backup began; 0: never."
)
ACCEPTED = Counter("tickwire_accepted", "Requests accepted with 202.", ("kind",))
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
    "tickwire_realtime_queue_seconds", "Time that frames in order wait for their connection.", buckets=_FAST
)
COMMANDS_REFUSED = Counter("tickwire_realtime_commands_refused", "Commands over a rate.", ("reason",))
SOCKETS_CLOSED = Counter("tickwire_realtime_closed", "Connections closed by the gateway.", ("code",))
LIVE_AGE = Histogram(
    "tickwire_live_message_age_seconds",
    "Age of a live message when the gateway has handed it to its listeners.",
    ("type",),
    buckets=_FAST,
)
LAST_PUSH = Gauge(
    "tickwire_quotes_last_push_timestamp_seconds",
    "When the gateway last received a pushed quote; 0 before the first.",
)

PROVIDER_CALLS = Counter(
    "tickwire_provider_calls", "Calls to market data providers.", ("provider", "call", "outcome")
)
PROVIDER_SECONDS = Histogram(
    "tickwire_provider_call_seconds",
    "Time that a provider takes to answer.",
    ("provider", "call"),
    buckets=_FAST,
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
    buckets=_SLOW,
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

EMAIL_ATTEMPTS = Counter("tickwire_email_attempts", "Attempts to deliver to a recipient.", ("outcome",))
EMAIL_DELIVERY_SECONDS = Histogram(
    "tickwire_email_accept_to_delivered_seconds", "Time from acceptance to delivery.", buckets=_SLOW
)
EMAIL_DUE = Gauge("tickwire_email_due_recipients", "Recipients whose next attempt is due.")
EMAIL_OLDEST_DUE = Gauge(
    "tickwire_email_oldest_due_seconds",
    "For how long the first of the due recipients has been due, by stream; not for domains at their rate.",
    ("stream",),
)
EMAIL_LIMITED_DOMAINS = Gauge(
    "tickwire_email_limited_domains",
    "Destination domains whose rate (EMAIL_DOMAIN_LIMITS) is used up at the moment.",
)
EMAIL_HELD = Gauge(
    "tickwire_email_held_recipients", "Recipients held until an operator decides whether to send again."
)
EMAIL_REMOVED = Counter(
    "tickwire_email_removed",
    "Rows removed after their retention: parts and records of mails, suppressions, failures, versions.",
    ("kind",),
)
EMAIL_BOUNCES = Counter(
    "tickwire_email_bounces",
    "Bounces, by what they say; unsigned, late: the return path names no known mail.",
    ("kind",),
)
EMAIL_DOMAIN_DELIVERIES = Counter(
    "tickwire_email_domain_deliveries", "Mails that the relay accepted, by busy destination.", ("domain",)
)
EMAIL_DOMAIN_BOUNCES = Counter(
    "tickwire_email_domain_bounces",
    "Bounces after the relay had accepted the mail, by busy destination domain.",
    ("domain",),
)
EMAIL_SUPPRESSIONS = Counter(
    "tickwire_email_suppressions",
    "Suppressions added (bounce, reply, manual, import), not added for want of room (no-room), and ended "
    "(success, lifted).",
    ("kind",),
)
EMAIL_REMOVAL_LATE = Gauge(
    "tickwire_email_removal_late_seconds",
    "For how long the next content to be removed has been past its retention.",
)
EMAIL_TEMPLATES = Counter(
    "tickwire_email_templates",
    "Templates that were checked or rendered, by what became of them: rendered, the code of the failure, or "
    "interrupted, because their process was ended from outside or got no CPU time.",
    ("outcome",),
)
EMAIL_WRITTEN = Counter(
    "tickwire_email_written",
    "Mails that were written, by where: light ones in the service (light), others in a process (heavy); and "
    "work that was put off, because its process did not finish it (interrupted).",
    ("kind",),
)
PARCELS = Counter(
    "tickwire_parcels",
    "Attachments that email did not take ahead of their mails: kept here, sent, tried in vain (failed), or "
    "refused for good.",
    ("outcome",),
)
PARCELS_MOST_BYTES = Gauge(
    "tickwire_parcels_most_bytes", "Bytes that mails may take whose attachments wait at the gateway."
)
PARCELS_BYTES = Gauge(
    "tickwire_parcels_bytes", "Bytes that mails take whose attachments wait at the gateway."
)
PARCELS_OLDEST = Gauge(
    "tickwire_parcels_oldest_seconds", "Age of the oldest mail whose attachments wait at the gateway."
)
EMAIL_UPLOADS = Counter(
    "tickwire_email_uploads", "Uploads for mails, by what became of them: stored or broken-off.", ("outcome",)
)
EMAIL_UPLOADS_MOST_BYTES = Gauge(
    "tickwire_email_uploads_most_bytes", "Bytes that the uploads of all owners may take."
)
EMAIL_UPLOADS_BYTES = Gauge("tickwire_email_uploads_bytes", "Bytes that the uploads of all owners take.")
EMAIL_UPLOADS_REMOVED = Counter(
    "tickwire_email_uploads_removed",
    "Uploads removed because their time was over, by what they were: used, unused or incomplete.",
    ("kind",),
)
EMAIL_DOMAINS = Gauge(
    "tickwire_email_domains",
    "Sender domains by state; losing: verified, and a record is gone that was there.",
    ("state",),
)
EMAIL_DOMAIN_CHECKS = Counter(
    "tickwire_email_domain_checks", "Checks of the DNS records of a sender domain, by outcome.", ("outcome",)
)
EMAIL_DOMAIN_CHECK_LATE = Gauge(
    "tickwire_email_domain_check_late_seconds",
    "For how long the next check of the records of a sender domain has been due.",
)
EMAIL_SENDERS_REFUSED = Counter(
    "tickwire_email_senders_refused",
    "Mails refused because their owner may not send from that domain, by who refused them.",
    ("source",),
)
EMAIL_SIGNED = Counter(
    "tickwire_email_signed", "Mails written for the relay, with or without a DKIM signature.", ("outcome",)
)
EMAIL_ROUTE_PAUSED = Gauge(
    "tickwire_email_route_paused", "1 while deliveries to the relay are paused, by reason.", ("reason",)
)
EMAIL_PAUSED_OWNERS = Gauge(
    "tickwire_email_paused_owners", "Owners whose mails the relay refuses or limits, by reason.", ("reason",)
)
EMAIL_OWNER_PAUSES = Counter(
    "tickwire_email_owner_pauses", "Pauses of owners the relay refuses or limits, by reason.", ("reason",)
)
EMAIL_RELAYS_AWAY = Gauge(
    "tickwire_email_relays_away",
    "Relays that are passed over for the next one, as they turned us away; none where there is only one.",
)
SMTP_CONNECTIONS = Gauge("tickwire_smtp_connections", "Open connections to the relay.")

BATCH_ITEMS = Counter("tickwire_batch_items", "Items finished, by outcome.", ("operation", "outcome"))
BATCH_CHUNK_SECONDS = Histogram(
    "tickwire_batch_chunk_seconds", "Time to run a chunk.", ("operation",), buckets=_SLOW
)
BATCHES_FINISHED = Counter("tickwire_batches_finished", "Batches finished, by status.", ("status",))
BATCH_SECONDS = Histogram(
    "tickwire_batch_completion_seconds",
    "Time from acceptance to the end of the last item.",
    ("kind",),
    buckets=_SLOW,
)
BATCH_OWNER_WAIT = Histogram(
    "tickwire_batch_owner_wait_seconds",
    "Time for which the first chunk of an owner without running chunks was ready before it was claimed.",
    buckets=_SLOW,
)
BATCHES_OVERDUE = Gauge(
    "tickwire_batches_overdue", "Batches and tasks that are past the time of their next step."
)
BATCHES_VALIDATING = Gauge(
    "tickwire_batches_validating", "Uploads whose custom ids are being compared or wait to be."
)
BATCH_OLDEST_VALIDATING = Gauge(
    "tickwire_batch_oldest_validating_seconds", "For how long the oldest validating upload has been complete."
)
BATCH_READY_CHUNKS = Gauge(
    "tickwire_batch_ready_chunks", "Chunks that wait for a worker, counted up to 10,000."
)
BATCH_OLDEST_READY = Gauge(
    "tickwire_batch_oldest_ready_chunk_seconds", "Time for which the oldest ready chunk has been ready."
)
BATCH_LIMITED_CHUNKS = Gauge(
    "tickwire_batch_limited_chunks", "Chunks waiting until their limits let them begin, counted up to 10,000."
)
BATCH_PAUSED = Gauge(
    "tickwire_batch_paused", "Operations and owners that an administrator has paused.", ("kind",)
)
BATCH_LONGEST_PAUSE = Gauge("tickwire_batch_longest_pause_seconds", "Age of the oldest of these pauses.")
BATCHES_REMOVED = Counter("tickwire_batches_removed", "Batches and tasks past retention, removed.", ("kind",))
BATCH_REMOVAL_LATE = Gauge("tickwire_batch_removal_late_seconds", "Time since the next removal was due.")
BATCH_IN_FLIGHT = Gauge("tickwire_batch_chunks_in_flight", "Chunks that workers have claimed.")
BATCH_NOT_BEGUN = Gauge(
    "tickwire_batch_not_begun_seconds",
    "For how long the first of the claimed chunks has waited for a process to run in.",
)
BATCH_PROCESSES = Gauge("tickwire_batch_processes", "Processes in which operations run.")
BATCH_PROCESS_DEATHS = Counter(
    "tickwire_batch_process_deaths",
    "Processes that ended while an operation was at work, or were killed at its deadline.",
    ("operation", "reason"),
)
SCHEDULE_RUNS = Counter("tickwire_schedule_runs", "Runs of schedules, by what became of them.", ("outcome",))
SCHEDULE_LATENESS = Histogram(
    "tickwire_schedule_fire_seconds",
    "Time from the due time of a schedule, with its jitter, to its run; missed runs are left out.",
    buckets=_SLOW,
)
SCHEDULES_LATE = Gauge(
    "tickwire_schedules_late", "Schedules and their runs that are past the time of their next step."
)

# Metrics with exemplars: their panels show dots that lead to traces.
TRACED = (HTTP_SECONDS, RPC_CALL_SECONDS, RPC_SERVED_SECONDS, HANDLE_SECONDS, MESSAGE_AGE)


def describe_build(distribution: str) -> None:
    """Set `tickwire_build_info` to the running version of `distribution`."""
    try:
        found = version(distribution)
    except PackageNotFoundError:
        found = "unknown"
    BUILD_INFO.labels(found, platform.python_version()).set(1)

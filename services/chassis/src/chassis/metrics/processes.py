"""Metrics of every process: HTTP, messages, databases, tasks, the event loop."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from chassis.metrics.conventions import FAST, SLOW

BUILD_INFO = Gauge("tickwire_build_info", "Always 1; the labels say what runs.", ("version", "python"))
READY = Gauge("tickwire_ready", "1 while the process reports that it can work.")

HTTP_REQUESTS = Counter(
    "tickwire_http_requests", "HTTP requests answered, by route template.", ("method", "route", "status")
)
HTTP_OVERLOADED = Counter(
    "tickwire_http_requests_overloaded",
    "HTTP requests refused with 503 by a limit; they are no failures, and are not logged one by one.",
    ("route",),
)
HTTP_SECONDS = Histogram(
    "tickwire_http_request_seconds", "Time to answer an HTTP request.", ("method", "route"), buckets=FAST
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
    "tickwire_rpc_client_seconds", "Time from request to reply.", ("target", "type"), buckets=FAST
)
RPC_IN_FLIGHT = Gauge("tickwire_rpc_client_in_flight", "Requests waiting for a reply.", ("target",))
RPC_BREAKER_OPEN = Gauge(
    "tickwire_rpc_breaker_open",
    "1 while the circuit breaker is open for an owner, whose calls to the service fail at once.",
    ("target",),
)
RPC_SERVED = Counter("tickwire_rpc_server_requests", "Requests answered.", ("type", "outcome"))
RPC_SERVED_SECONDS = Histogram(
    "tickwire_rpc_server_seconds", "Time to answer a request.", ("type",), buckets=FAST
)
RPC_WAITING = Gauge(
    "tickwire_rpc_server_waiting", "Requests that wait while others of the same owner are being answered."
)
COALESCED = Counter("tickwire_coalesced_requests", "Requests that shared another's call.", ("call",))

PUBLISHED = Counter(
    "tickwire_messages_published", "Messages published, by confirm outcome.", ("exchange", "outcome")
)
PUBLISH_SECONDS = Histogram(
    "tickwire_publish_confirm_seconds", "Time from publish to confirm.", ("exchange",), buckets=FAST
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
    "tickwire_message_handle_seconds", "Time to handle a group of messages.", ("queue", "type"), buckets=FAST
)
MESSAGE_AGE = Histogram(
    "tickwire_message_age_seconds", "Age of a message when it is first consumed.", ("queue",), buckets=SLOW
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
    "tickwire_postgres_acquire_seconds", "Time to get a connection from the pool.", buckets=FAST
)
POOL_TIMEOUTS = Counter(
    "tickwire_postgres_acquire_timeouts",
    "Times that no connection was free in time for an owner that had none, or for the service itself.",
)
THREAD_WAIT_SECONDS = Histogram("tickwire_thread_wait_seconds", "Waits for a thread.", buckets=FAST)
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
LOOP_LAG = Histogram("tickwire_event_loop_lag_seconds", "How late the event loop runs a timer.", buckets=FAST)

LOOP_TURNS_WAITING = Gauge(
    "tickwire_loop_turns_waiting", "Parts of owners' work that wait for a turn at the event loop."
)
LOOP_TURNS_OLDEST = Gauge("tickwire_loop_turns_oldest_seconds", "Wait of the oldest of these parts so far.")

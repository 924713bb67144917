"""Messages between the services: publishing, consuming, queues, outbox, parking, the broker itself."""

from __future__ import annotations

from grafana.panels import Dashboard, Query, panel, stack
from grafana.promql import highest, quantile, rate, total

_OWN = 'queue=~"(gateway|stock-data|email|batch-processor)[.].+"'

BOARD = Dashboard(
    uid="messaging",
    title="Messaging",
    description="Every message from outbox to acknowledgement, and RabbitMQ's own view of it.",
    panels=(
        panel(
            "Broker connected",
            "1 while the connection is up, by process and link.",
            "short",
            highest("tickwire_broker_connected", "service", "link"),
        ),
        panel(
            "Broker blocked",
            "1 while the broker accepts no messages from a process because of a memory or disk alarm.",
            "short",
            highest("tickwire_broker_blocked", "service", "link"),
        ),
        stack(
            "Published",
            "Messages per second, by exchange and outcome of the confirm.",
            "ops",
            rate("tickwire_messages_published_total", "exchange", "outcome"),
        ),
        panel(
            "Publish to confirm",
            "Time until the broker has confirmed a message, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_publish_confirm_seconds", "exchange"),
        ),
        panel(
            "Unconfirmed",
            "Publishes that wait for their confirm; at 512 others wait for them.",
            "short",
            total("tickwire_messages_unconfirmed", "service"),
        ),
        panel(
            "Outbox: oldest message",
            "Age of the oldest message that waits for the broker.",
            "s",
            highest("tickwire_outbox_oldest_seconds", "service"),
        ),
        panel(
            "Outbox: messages",
            "Messages that wait in the outbox; at 100,000 the gateway accepts no more.",
            "short",
            highest("tickwire_outbox_messages", "service"),
        ),
        stack(
            "Settled",
            "Messages per second, by queue and outcome.",
            "ops",
            rate("tickwire_messages_consumed_total", "queue", "outcome"),
        ),
        stack(
            "Unknown types",
            "Messages per second of types that the replica does not know; they wait, then they are parked."
            " There should be none except during a rolling upgrade.",
            "ops",
            rate("tickwire_messages_consumed_total", "queue", "outcome", where='type="unknown"'),
        ),
        panel(
            "Age when taken",
            "How long messages wait until they are first taken, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_message_age_seconds", "queue"),
        ),
        panel(
            "Attempts",
            "Attempts per finished message, 99th percentile.",
            "none",
            quantile(0.99, "tickwire_message_attempts", "queue"),
        ),
        panel(
            "Time to handle",
            "Time to handle a group of messages, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_message_handle_seconds", "queue", "type"),
        ),
        panel(
            "Duplicates dropped",
            "Messages skipped because they had been handled before.",
            "ops",
            rate("tickwire_inbox_duplicates_total", "queue"),
        ),
        panel(
            "Paused consumers",
            "1 while a consumer waits for its database.",
            "short",
            highest("tickwire_consumer_paused", "queue"),
        ),
        panel(
            "Parked",
            "Messages that wait for a decision.",
            "short",
            highest("tickwire_parked_messages", "service", "queue"),
        ),
        panel(
            "Ready in queues",
            "Ready messages, as RabbitMQ counts them.",
            "short",
            highest("rabbitmq_detailed_queue_messages_ready", "queue", where=_OWN),
        ),
        panel(
            "Bytes ready in queues",
            "Size of the ready messages, as RabbitMQ counts it; at 2 GiB it refuses more.",
            "bytes",
            highest("rabbitmq_detailed_queue_messages_ready_bytes", "queue", where=_OWN),
        ),
        panel(
            "Consumers of queues",
            "Consumers, as RabbitMQ counts them; 0 is a queue without a consumer.",
            "short",
            highest("rabbitmq_detailed_queue_consumers", "queue", where=_OWN),
        ),
        panel(
            "Consumers as seen by the services",
            "Consumers and ready messages by the services' own statistics, and the expected consumers.",
            "short",
            highest("tickwire_queue_consumers", "queue"),
            Query("sum by (queue) (tickwire_queue_consumers_expected)", "{{queue}} expected"),
            Query("max by (queue) (tickwire_queue_ready_messages)", "{{queue}} ready"),
        ),
        panel(
            "Retry ladder",
            "Messages that wait on each rung of the retry ladder.",
            "short",
            highest("rabbitmq_detailed_queue_messages_ready", "queue", where='queue=~"retry[.].+"'),
        ),
        panel(
            "Requests answered",
            "Requests between services, by kind and outcome.",
            "reqps",
            rate("tickwire_rpc_server_requests_total", "type", "outcome"),
        ),
        panel(
            "Requests that wait their turn",
            "Each process answers a few requests of an owner at a time; the owner's other requests wait.",
            "short",
            total("tickwire_rpc_server_waiting", "service"),
        ),
        panel(
            "Time to answer",
            "Time to answer a request, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_rpc_server_seconds", "type"),
        ),
        panel(
            "RabbitMQ: messages",
            "Messages per second, in and out.",
            "ops",
            Query(rate("rabbitmq_global_messages_received_total").expr, "received"),
            Query(rate("rabbitmq_global_messages_delivered_total").expr, "delivered"),
            Query(rate("rabbitmq_global_messages_redelivered_total").expr, "redelivered"),
        ),
        panel(
            "RabbitMQ: dead letters",
            "Messages dead-lettered per second; expired ones are retries at the end of their delay.",
            "ops",
            Query(rate("rabbitmq_global_messages_dead_lettered_expired_total").expr, "expired"),
            Query(rate("rabbitmq_global_messages_dead_lettered_delivery_limit_total").expr, "delivery limit"),
            Query(rate("rabbitmq_global_messages_dead_lettered_rejected_total").expr, "rejected"),
        ),
        panel(
            "RabbitMQ: connections",
            "Open connections and channels.",
            "short",
            Query("sum(rabbitmq_connections)", "connections"),
            Query("sum(rabbitmq_channels)", "channels"),
        ),
        panel(
            "RabbitMQ: memory",
            "Resident memory and the limit at which publishers are stopped.",
            "bytes",
            Query("sum by (instance) (rabbitmq_process_resident_memory_bytes)", "used {{instance}}"),
            Query("max by (instance) (rabbitmq_resident_memory_limit_bytes)", "limit {{instance}}"),
        ),
        panel(
            "RabbitMQ: disk",
            "Free disk space and the limit at which publishers are stopped.",
            "bytes",
            Query("min by (instance) (rabbitmq_disk_space_available_bytes)", "free {{instance}}"),
            Query("max by (instance) (rabbitmq_disk_space_available_limit_bytes)", "limit {{instance}}"),
        ),
        panel(
            "RabbitMQ: alarms",
            "1 while the broker stops all publishers.",
            "short",
            Query("max by (instance) (rabbitmq_alarms_memory_used_watermark)", "memory {{instance}}"),
            Query("max by (instance) (rabbitmq_alarms_free_disk_space_watermark)", "disk {{instance}}"),
            Query(
                "max by (instance) (rabbitmq_alarms_file_descriptor_limit)", "file descriptors {{instance}}"
            ),
        ),
    ),
)

"""Batches: items, chunks, backlog, completion."""

from __future__ import annotations

from grafana.panels import Dashboard, panel, stack
from grafana.promql import highest, quantile, quantiles, rate

BOARD = Dashboard(
    uid="batch-processor",
    title="Batch processor",
    description="Items by outcome, chunks and their backlog, how long batches take, and runs of schedules.",
    panels=(
        stack(
            "Items",
            "Items finished per second, by operation and outcome.",
            "ops",
            rate("tickwire_batch_items_total", "operation", "outcome"),
        ),
        panel(
            "Batches finished",
            "Batches and tasks that ended, by status.",
            "ops",
            rate("tickwire_batches_finished_total", "status"),
        ),
        panel(
            "Completion",
            "From acceptance (or the requested time) to the last item.",
            "s",
            *quantiles("tickwire_batch_completion_seconds", "kind"),
        ),
        panel(
            "Chunk duration",
            "Time to run a chunk, by operation.",
            "s",
            *quantiles("tickwire_batch_chunk_seconds", "operation"),
        ),
        panel(
            "Wait of owners",
            "How long the first chunk of an owner with no chunk running waited; the objective is 1 s.",
            "s",
            *quantiles("tickwire_batch_owner_wait_seconds"),
        ),
        panel(
            "Overdue",
            "Batches and tasks that are past the time of their next step.",
            "short",
            highest("tickwire_batches_overdue", "service"),
        ),
        panel(
            "Uploads in validation",
            "Uploads whose custom ids are being compared, or wait for that.",
            "short",
            highest("tickwire_batches_validating", "service"),
        ),
        panel(
            "Oldest upload in validation",
            "For how long the first of these uploads has been complete; 10 minutes are promised.",
            "s",
            highest("tickwire_batch_oldest_validating_seconds", "service"),
        ),
        panel(
            "Ready chunks",
            "Chunks that wait for a worker.",
            "short",
            highest("tickwire_batch_ready_chunks", "service"),
        ),
        panel(
            "Chunks behind limits",
            "Chunks that wait until their limits allow them to begin; they delay no others.",
            "short",
            highest("tickwire_batch_limited_chunks", "service"),
        ),
        panel(
            "Paused",
            "Operations and owners that an administrator has paused.",
            "short",
            highest("tickwire_batch_paused", "kind"),
        ),
        panel(
            "Longest pause",
            "Age of the oldest of these pauses.",
            "s",
            highest("tickwire_batch_longest_pause_seconds", "service"),
        ),
        panel(
            "Removed",
            "Batches and tasks removed after their retention, by kind.",
            "ops",
            rate("tickwire_batches_removed_total", "kind"),
        ),
        panel(
            "Removal behind",
            "How long the batch that is removed next has been past its retention, or gone but for its rows.",
            "s",
            highest("tickwire_batch_removal_late_seconds", "service"),
        ),
        panel(
            "Oldest ready chunk",
            "For how long the first of the ready chunks has waited; large batches may take hours.",
            "s",
            highest("tickwire_batch_oldest_ready_chunk_seconds", "service"),
        ),
        panel(
            "Chunks in flight",
            "Chunks that workers have claimed.",
            "short",
            highest("tickwire_batch_chunks_in_flight", "service"),
        ),
        panel(
            "Processes of items",
            "Processes that run operations; one is kept when all are idle.",
            "short",
            highest("tickwire_batch_processes", "service"),
        ),
        panel(
            "Deaths of processes",
            "Processes per second that ended while an operation was running, or were killed at its deadline.",
            "ops",
            rate("tickwire_batch_process_deaths_total", "operation", "reason"),
        ),
        panel(
            "Dispatched, not begun",
            "For how long the first of the claimed chunks has waited for a process.",
            "s",
            highest("tickwire_batch_not_begun_seconds", "service"),
        ),
        panel(
            "Runs of schedules",
            "Runs per second by outcome; a run that fired is then accepted or refused.",
            "ops",
            rate("tickwire_schedule_runs_total", "outcome"),
        ),
        panel(
            "Lateness of schedules",
            "From a due time, with its jitter, to its run; within a minute it is on time.",
            "s",
            *quantiles("tickwire_schedule_fire_seconds"),
        ),
        panel(
            "Schedules late",
            "Schedules and their runs that are past the time of their next step.",
            "short",
            highest("tickwire_schedules_late", "service"),
        ),
        panel(
            "Messages settled",
            "Commands by queue and outcome.",
            "ops",
            rate("tickwire_messages_consumed_total", "queue", "outcome", where='service="batch-processor"'),
        ),
        panel(
            "Age when taken",
            "How long commands wait in their queues.",
            "s",
            quantile(0.99, "tickwire_message_age_seconds", "queue", where='service="batch-processor"'),
        ),
        panel(
            "Time to handle",
            "Time to handle a group of messages, 99th percentile.",
            "s",
            quantile(
                0.99, "tickwire_message_handle_seconds", "queue", "type", where='service="batch-processor"'
            ),
        ),
        panel(
            "Questions of operations",
            "Requests that operations send to other services.",
            "reqps",
            rate("tickwire_rpc_client_calls_total", "target", "outcome", where='service="batch-processor"'),
        ),
        panel(
            "Time to answer",
            "Requests for states and results, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_rpc_server_seconds", "type", where='service="batch-processor"'),
        ),
    ),
)

"""Metrics of batch-processor: items, batches, workers, schedules."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from chassis.metrics.conventions import SLOW

BATCH_ITEMS = Counter("tickwire_batch_items", "Items finished, by outcome.", ("operation", "outcome"))
BATCH_CHUNK_SECONDS = Histogram(
    "tickwire_batch_chunk_seconds", "Time to run a chunk.", ("operation",), buckets=SLOW
)
BATCHES_FINISHED = Counter("tickwire_batches_finished", "Batches finished, by status.", ("status",))
BATCH_SECONDS = Histogram(
    "tickwire_batch_completion_seconds",
    "Time from acceptance to the end of the last item.",
    ("kind",),
    buckets=SLOW,
)
BATCH_OWNER_WAIT = Histogram(
    "tickwire_batch_owner_wait_seconds",
    "Time for which the first chunk of an owner without running chunks was ready before it was claimed.",
    buckets=SLOW,
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
    buckets=SLOW,
)
SCHEDULES_LATE = Gauge(
    "tickwire_schedules_late", "Schedules and their runs that are past the time of their next step."
)

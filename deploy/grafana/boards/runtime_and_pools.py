"""Processes: event loop, memory, processor, garbage collection, connection pools."""

from __future__ import annotations

from grafana.panels import Dashboard, Query, panel
from grafana.promql import highest, quantile, rate, total

_SERVICE = 'service=~"$service"'
_OURS = 'job="services", service=~"$service"'

BOARD = Dashboard(
    uid="runtime-and-pools",
    title="Runtime and pools",
    description="The processes themselves: event loop, memory, CPU, files, pools.",
    per_service=True,
    panels=(
        panel(
            "Event loop lag",
            "How late the event loop runs a timer, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_event_loop_lag_seconds", "service", where=_SERVICE),
        ),
        panel(
            "Event loop stalls",
            "How often an event loop was blocked for a second or more; the log has the stack.",
            "ops",
            rate("tickwire_event_loop_stalls_total", "service", where=_SERVICE),
        ),
        panel(
            "Background tasks begun again",
            "Restarts of background tasks, or skipped items, after unexpected errors; the log has them.",
            "ops",
            rate("tickwire_background_task_failures_total", "service", "task", where=_SERVICE),
        ),
        panel(
            "Ready",
            "1 while the process reports that it is ready.",
            "short",
            total("tickwire_ready", "service", "instance", where=_SERVICE),
        ),
        panel(
            "Processor",
            "CPU seconds per second.",
            "percentunit",
            rate("process_cpu_seconds_total", "service", "instance", where=_OURS),
        ),
        panel(
            "Memory",
            "Resident memory.",
            "bytes",
            total("process_resident_memory_bytes", "service", "instance", where=_OURS),
        ),
        panel(
            "Open files",
            "Open file descriptors, sockets included.",
            "short",
            total("process_open_fds", "service", "instance", where=_OURS),
        ),
        panel(
            "Uptime",
            "How long the process has been running.",
            "s",
            Query(f"time() - process_start_time_seconds{{{_OURS}}}", "{{service}} {{instance}}"),
        ),
        panel(
            "Garbage collections",
            "Collections per second, by generation.",
            "ops",
            rate("python_gc_collections_total", "service", "generation", where=_OURS),
        ),
        panel(
            "Objects that cannot be collected",
            "Since the start; should stay 0.",
            "short",
            total("python_gc_objects_uncollectable_total", "service", where=_OURS),
        ),
        panel(
            "PostgreSQL pool",
            "Open connections, idle connections, and the limit.",
            "short",
            total("tickwire_postgres_pool_connections", "service", "state", where=_SERVICE),
        ),
        panel(
            "Wait for a connection",
            "Time to get a connection from the pool, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_postgres_acquire_seconds", "service", where=_SERVICE),
        ),
        panel(
            "Pool time-outs",
            "How often per second no connection was free in time.",
            "ops",
            rate("tickwire_postgres_acquire_timeouts_total", "service", where=_SERVICE),
        ),
        panel(
            "Wait for a thread",
            "Time until a thread was free for a computation of an owner, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_thread_wait_seconds", "service", where=_SERVICE),
        ),
        panel(
            "Versions",
            "Processes by the version that they run.",
            "short",
            highest("tickwire_build_info", "service", "instance", "version", "python", where=_SERVICE),
        ),
    ),
)

"""Conventions of all metrics: the buckets of durations, and no series about their creation."""

from __future__ import annotations

from prometheus_client import disable_created_metrics

# These would double the series of counters, and `up` and counter resets tell the same.
disable_created_metrics()  # type: ignore[no-untyped-call]  # their stub

# In seconds: FAST for what somebody waits for, SLOW for work that may take hours.
FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SLOW = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 86_400)

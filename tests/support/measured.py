"""The current values of metrics."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase


def value_of(metric: MetricWrapperBase) -> float:
    """Return the value of a gauge or counter without labels, or of a child with labels."""
    samples = (sample for family in metric.collect() for sample in family.samples)
    return next(float(sample.value) for sample in samples if not sample.name.endswith("_created"))

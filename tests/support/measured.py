"""The present values of metrics."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase


def value_of(metric: MetricWrapperBase) -> float:
    """Return the value of a gauge or counter: one without labels, or the child of some."""
    samples = (sample for family in metric.collect() for sample in family.samples)
    return next(float(sample.value) for sample in samples if not sample.name.endswith("_created"))

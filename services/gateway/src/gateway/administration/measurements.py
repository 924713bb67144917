"""The responses of Prometheus: series, samples, alerts. A value can be NaN or infinite."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Sample(BaseModel):
    """One series at one moment: labels, and (seconds since 1970, value)."""

    metric: dict[str, str]
    value: tuple[float, float]


class Series(BaseModel):
    """One series over time: labels, and pairs of (seconds since 1970, value)."""

    metric: dict[str, str]
    values: list[tuple[float, float]]


class PrometheusAlert(BaseModel):
    """One alert that Prometheus reports."""

    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    state: str
    since: str = Field(default="", alias="activeAt")

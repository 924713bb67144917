"""`docs/metrics.md`: every metric of the services, as the registry declares it, and where it is used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from chassis import metrics
from grafana.boards import BOARDS

RULES = Path(__file__).resolve().parents[1] / "prometheus" / "rules"

_KINDS: dict[type[MetricWrapperBase], str] = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
_HEAD = """# Metrics

Every service serves `/metrics` on its ops port: OpenMetrics (with exemplars) for a scraper that accepts
it, else Prometheus' text format. All names begin with `tickwire_`; times are in seconds, sizes in bytes. The
label `service` comes from the scrape. RabbitMQ, PostgreSQL and memcached are scraped from their own plugins
and exporters under their own names. The Prometheus client adds its own `process_*` and `python_*` metrics.

This page is generated (`PYTHONPATH=deploy .venv/bin/python -m grafana.build`); a test compares it with the
registry in `services/chassis/src/chassis/metrics/`. Counters carry `_total`, histograms `_bucket`, `_sum`
and `_count`.

| metric | kind | labels | meaning | used in |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric in the registry. `attribute` is its name in `chassis.metrics`; `traced`: it has exemplars."""

    attribute: str
    name: str
    kind: str
    labels: Sequence[str]
    meaning: str
    traced: bool

    @property
    def pattern(self) -> re.Pattern[str]:
        """The pattern that matches the metric's series in a query."""
        return re.compile(rf"\b{self.name}(_bucket|_sum|_count)?\b")


def declared() -> list[Declared]:
    """Return the metrics in the registry, by name."""
    found = []
    for attribute, metric in vars(metrics).items():
        if not isinstance(metric, MetricWrapperBase):
            continue
        (described,) = metric.describe()
        kind = _KINDS[type(metric)]
        name = f"{described.name}_total" if kind == "counter" else described.name
        labels = metric._labelnames  # noqa: SLF001 - the library has no public attribute for them
        traced = metric in metrics.TRACED
        found.append(Declared(attribute, name, kind, labels, described.documentation, traced))
    return sorted(found, key=lambda metric: metric.name)


def traced() -> set[str]:
    """Return the series that may have exemplars."""
    return {f"{metric.name}_bucket" for metric in declared() if metric.traced}


def text() -> str:
    """Return the text of the page."""
    rows = []
    for metric in declared():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        boards = [
            board.uid
            for board in BOARDS
            if any(metric.pattern.search(query.expr) for panel in board.panels for query in panel.queries)
        ]
        rules = [file.name for file in sorted(RULES.glob("*.yml")) if metric.pattern.search(file.read_text())]
        where = ", ".join([*boards, *rules]) or "no dashboard or alert"
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} | {where} |\n")
    return _HEAD + "".join(rows)

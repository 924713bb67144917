"""Every metric that is measured is used, and every metric that is used is measured."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from grafana import reference
from grafana.build import REFERENCE
from grafana.reference import Declared
from support import monitored

SERVICES = monitored.REPOSITORY / "services"
FOREIGN = Path(__file__).with_name("foreign_metrics.txt")
# Labels whose values are written in the code, come from the topology, or from what is deployed; of domains
# there are as many as `emailer.bounces.domains` gives labels to.
BOUNDED = {
    "cache", "call", "code", "domain", "exchange", "kind", "link", "method", "operation", "origin", "outcome",
    "provider", "python", "queue", "reason", "route", "source", "state", "status", "stream", "target", "task",
    "transport", "type", "version",
}  # fmt: skip

DECLARED = reference.declared()


def asked_for() -> dict[str, str]:
    """Return every query, by its place."""
    return monitored.panel_queries() | {
        f"{rule.kind} {rule.name} {number}": rule.expr for number, rule in enumerate(monitored.rules())
    }


def known() -> set[str]:
    series = {"histogram": ("_bucket", "_sum", "_count")}
    ours = {metric.name + end for metric in DECLARED for end in series.get(metric.kind, ("",))}
    recorded = {rule.name for rule in monitored.rules() if rule.kind == "record"}
    return ours | recorded | set(FOREIGN.read_text().split())


@cache
def used() -> frozenset[str]:
    """Return the names that some module uses as those of metrics."""
    uses = re.compile(r"\bmetrics\.(\w+)|^    (\w+)\.labels", re.MULTILINE)
    found = (uses.findall(file.read_text()) for file in SERVICES.glob("*/src/**/*.py"))
    return frozenset(name for names in found for pair in names for name in pair)


@pytest.mark.parametrize("metric", DECLARED, ids=lambda metric: metric.name)
def test_a_metric_is_set_somewhere(metric: Declared) -> None:
    assert metric.attribute in used()


@pytest.mark.parametrize("metric", DECLARED, ids=lambda metric: metric.name)
def test_a_metric_has_a_name_by_the_convention_and_bounded_labels(metric: Declared) -> None:
    assert re.fullmatch(r"tickwire_[a-z0-9_]+", metric.name)
    assert metric.meaning.endswith(".")
    assert set(metric.labels) <= BOUNDED
    if metric.kind == "histogram":
        assert metric.name.endswith(("_seconds", "_attempts"))


def test_every_metric_is_used_in_a_dashboard_or_an_alert() -> None:
    queries = " ".join(asked_for().values())
    assert [metric.name for metric in DECLARED if not metric.pattern.search(queries)] == []


def test_the_reference_lists_the_metrics_of_the_registry() -> None:
    assert REFERENCE.read_text() == reference.text(), "run PYTHONPATH=deploy python -m grafana.build"


def test_every_metric_in_a_query_is_measured() -> None:
    exist = known()
    missing = {place: monitored.names(expr) - exist for place, expr in asked_for().items()}
    assert {place: names for place, names in missing.items() if names} == {}


def test_no_foreign_metric_is_listed_without_being_asked_for() -> None:
    asked = set().union(*(monitored.names(expr) for expr in asked_for().values()))
    assert set(FOREIGN.read_text().split()) - asked == set()


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ('sum by (le, x) (rate(a_bucket{b="c{d}"}[5m])) or vector(0)', {"a_bucket"}),
        ("a / on (x, y) group_left b:c offset 10m > 0.5", {"a", "b:c"}),
        ("max(a > (14.4 * (1 - 0.999))) without (w) and on () time() - b", {"a", "b"}),
    ],
)
def test_names_are_found_in_a_query(expr: str, expected: set[str]) -> None:
    assert monitored.names(expr) == expected

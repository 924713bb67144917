"""The monitoring of the system, read from its files: rules, tests of rules, and the queries of the panels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from grafana.boards import BOARDS

REPOSITORY = Path(__file__).resolve().parents[2]
RULES = REPOSITORY / "deploy" / "prometheus" / "rules"
RULE_TESTS = REPOSITORY / "deploy" / "prometheus" / "tests"

_NOT_NAMES = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]'
    r"|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)|\boffset\s+\w+|\b\d\S*"
)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w*\s*\()")
_WORDS = {"and", "or", "unless", "bool", "group_left", "group_right", "by", "without", "on", "ignoring"}


@dataclass(frozen=True)
class PrometheusRule:
    """An alert, or a recorded series."""

    kind: str
    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleTest:
    """One test of promtool: the alert it looks at and whether it should fire."""

    name: str
    alert: str
    fires: bool


def load(path: Path) -> Any:
    """Return a YAML file."""
    return yaml.safe_load(path.read_text())


def rules() -> list[PrometheusRule]:
    """Return every rule of every file."""
    return [rule for file in sorted(RULES.glob("*.yml")) for rule in _rules(load(file))]


def alerts() -> list[PrometheusRule]:
    """Return every alert; one name may have several."""
    return [rule for rule in rules() if rule.kind == "alert"]


def rule_tests() -> list[RuleTest]:
    """Return every test of an alert."""
    return [test for file in sorted(RULE_TESTS.glob("*.yml")) for test in _tests(load(file))]


def panel_queries() -> dict[str, str]:
    """Return every query of every panel, by its place."""
    return {
        f"{board.uid} / {panel.title} / {index}": query.expr
        for board in BOARDS
        for panel in board.panels
        for index, query in enumerate(panel.queries)
    }


def names(expr: str) -> set[str]:
    """Return the metrics that `expr` queries."""
    bare = _NOT_NAMES.sub(" ", expr)
    return {name for name in _NAME.findall(bare) if name not in _WORDS}


def _rules(document: Any) -> Iterator[PrometheusRule]:
    for group in document["groups"]:
        for entry in group["rules"]:
            kind = "alert" if "alert" in entry else "record"
            yield PrometheusRule(
                kind, entry[kind], entry["expr"], entry.get("labels", {}), entry.get("annotations", {})
            )


def _tests(document: Any) -> Iterator[RuleTest]:
    for test in document["tests"]:
        for case in test.get("alert_rule_test", ()):
            yield RuleTest(test["name"], case["alertname"], bool(case["exp_alerts"]))
        for case in test.get("promql_expr_test", ()):
            alert = re.search(r'alertname="(\w+)"', case["expr"])
            assert alert is not None, test["name"]
            yield RuleTest(test["name"], alert[1], bool(case["exp_samples"]))

"""The parts of a dashboard: queries in panels, panels on a board. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal[
    "short", "reqps", "ops", "cps", "s", "percentunit", "bytes", "binBps", "none", "dateTimeFromNow"
]


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the legend of its series, for example `{{service}}`."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph over time. `stacked` stacks the series; `most` is the upper end of the axis."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    stacked: bool = False
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard; `uid` is its address and its file name. `per_service` adds the variable `$service`."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    per_service: bool = False


def panel(title: str, description: str, unit: Unit, *queries: Query) -> Panel:
    """Return a panel of lines."""
    return Panel(title, description, unit, queries)


def stack(title: str, description: str, unit: Unit, *queries: Query) -> Panel:
    """Return a panel whose series are stacked, because their sum is meaningful."""
    return Panel(title, description, unit, queries, stacked=True)


def share(title: str, description: str, *queries: Query) -> Panel:
    """Return a panel of ratios, from 0 to 100 %."""
    return Panel(title, description, "percentunit", queries, most=1)

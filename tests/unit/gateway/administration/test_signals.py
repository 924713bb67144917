"""The charts of a service, and the queries behind them."""

from __future__ import annotations

import itertools
import re
from typing import get_args

import pytest
from prometheus_client import REGISTRY

from chassis import metrics
from gateway.administration.signals import CHARTS, READY, Period, WindowName

QUERIES = [line.query for chart in CHARTS for line in chart.lines] + [READY]
WINDOWS = [Period(name) for name in get_args(WindowName)]
NOW = 1_700_000_000.7


def known() -> set[str]:
    """Return the names under which the registry's metrics are scraped."""
    assert metrics.READY
    names = set()
    for family in REGISTRY.collect():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + ending for ending in endings}
    return names


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_of_a_query_is_in_the_registry(query: str) -> None:
    named = set(re.findall(r"\btickwire_\w+", re.sub(r'=~"[^"]*"', "", query)))
    assert named <= known()
    if pattern := re.search(r'__name__=~"([^"]*)"', query):
        found = [name for name in known() if re.fullmatch(pattern[1], name)]
        assert len(found) == pattern[1].count("|") + 1
    else:
        assert named


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_distinguishes_the_services(query: str) -> None:
    assert "by (service" in query


def test_the_four_golden_signals_are_there_and_no_name_twice() -> None:
    assert {chart.signal for chart in CHARTS} == {"traffic", "errors", "latency", "saturation"}
    names = [(chart.key, line.name) for chart in CHARTS for line in chart.lines]
    assert len(names) == len(set(names))


def test_a_chart_has_no_more_lines_than_the_page_has_colours() -> None:
    assert all(1 <= len(chart.lines) <= 4 for chart in CHARTS)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_is_drawn_by_sixty_steps_up_to_now(window: Period) -> None:
    times = window.times(NOW)
    assert len(times) == 61
    assert times[-1] == 1_700_000_000
    assert times[-1] - times[0] == window.seconds
    assert {after - before for before, after in itertools.pairwise(times)} == {window.step_s}


@pytest.mark.parametrize("window", WINDOWS)
def test_a_rate_covers_all_the_time_between_two_points(window: Period) -> None:
    seconds = re.fullmatch(r"rate\(x\[(\d+)s\]\)", window.expression("rate(x[$range])"))
    assert seconds is not None
    assert int(seconds[1]) >= max(window.step_s, 120)


def test_no_query_keeps_its_placeholder() -> None:
    assert not [query for query in QUERIES if "$" in Period("15m").expression(query)]

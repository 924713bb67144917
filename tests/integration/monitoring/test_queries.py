"""Every query of every panel and rule shows something on a live stack under traffic, or has a reason."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import httpx
import pytest

from grafana import reference
from native import runner
from native.services import NAMES
from native.stack import Stack
from prometheus import objectives
from support import monitored, promtool, touring, traffic
from support.waiting import until
from support.watching import Watcher

EXPLAINED: dict[str, str] = monitored.load(Path(__file__).with_name("unfilled.yml"))["places"]
_OF_SLOWNESS = {"TickwireEventLoopStalled"} | {
    objective.alert for objective in objectives.OBJECTIVES if "_bucket{" in objective.bad
}
_ROUNDS = 4
# Of the rules of an objective, evaluated every minute, some read what others have recorded in a pass before.
_PATIENCE_S = 150


@pytest.fixture(scope="module")
async def busy(stack: Stack, watcher: Watcher) -> Watcher:
    """Return the watcher of a stack that has seen the demo, and a little of everything else several times."""
    async with traffic.client(stack) as api:
        for _ in range(_ROUNDS):
            await traffic.everything(stack, api)
    run = stack.blueprint.run
    with runner.ownership(run):
        runner.publish_ports(run, stack.ports)
        await asyncio.to_thread(touring.check, environment={"NATIVE_RUN_DIR": str(run.root)})
    return watcher


def queries() -> dict[str, str]:
    """Return the queries that must have a result, by place: of panels, recorded series and alerts."""
    panels = {
        place: query.replace("$__rate_interval", "15s").replace("$service", ".*")
        for place, query in monitored.panel_queries().items()
    }
    recorded = {
        f"record {rule.name} {rule.labels['sloth_id']}": _recorded(rule)
        for rule in monitored.rules()
        if rule.kind == "record"
    }
    return panels | recorded | dict(pair for alert in monitored.alerts() for pair in _selectors(alert))


def _recorded(rule: monitored.PrometheusRule) -> str:
    labels = ", ".join(f'{name}="{value}"' for name, value in rule.labels.items())
    return f"{rule.name}{{{labels}}}"


def _selectors(alert: monitored.PrometheusRule) -> list[tuple[str, str]]:
    # An alert is silent when all is well: what counts is that there is something to be told of.
    return [
        (f"alert {alert.name} / {name}", found[0])
        for name in sorted(monitored.names(alert.expr))
        if (found := re.search(rf"\b{name}(?:\{{[^}}]*\}})?", alert.expr))
    ]


async def _silent(watcher: Watcher, places: dict[str, str]) -> dict[str, str]:
    found = await asyncio.gather(*(watcher.has_data(query) for query in places.values()))
    return {place: query for (place, query), filled in zip(places.items(), found, strict=True) if not filled}


@pytest.mark.timeout(300)
async def test_every_query_shows_something_or_has_a_reason(busy: Watcher) -> None:
    missing = queries()

    async def all_filled() -> bool:
        nonlocal missing
        missing = await _silent(busy, missing)
        return missing.keys() <= EXPLAINED.keys()

    await until(
        all_filled,
        timeout_s=_PATIENCE_S,
        what=lambda: str({place: missing[place] for place in missing.keys() - EXPLAINED.keys()}),
    )
    assert EXPLAINED.keys() <= queries().keys(), "explained, but not asked any more"


async def test_every_rule_is_evaluated_without_an_error(busy: Watcher) -> None:
    rules = await busy.rules()
    assert len(rules) == len(monitored.rules())
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] == "err"] == []


async def test_every_target_answers(busy: Watcher) -> None:
    targets = await busy.targets()
    assert {f"services/{name}" for name in NAMES} <= targets.keys()
    assert set(targets.values()) == {"up"}


async def test_a_healthy_stack_fires_no_alert_but_those_of_its_traffic(busy: Watcher) -> None:
    async def settled() -> bool:
        return ("TickwireDeadMan", "") in await busy.firing()

    await until(settled)
    # The traffic has a message in it that nobody can decode.
    expected = {("TickwireDeadMan", ""), ("TickwireMessagesParked", "email")}
    # A machine that has more to do than it has cores is slow, and rightly told of.
    is_overloaded = os.getloadavg()[1] > (os.cpu_count() or 1)
    true_anyway = _OF_SLOWNESS if is_overloaded else set()
    assert {alert for alert in await busy.firing() if alert[0] not in true_anyway} <= expected


@pytest.mark.parametrize("series", sorted(reference.traced()))
async def test_a_slow_request_leads_to_its_trace(busy: Watcher, series: str) -> None:
    wanted = traffic.TRACEPARENT.split("-")[1]

    async def found() -> bool:
        exemplars = await busy.exemplars(series)
        return wanted in {labels["trace_id"] for labels in exemplars}

    await until(found)


@pytest.mark.parametrize("service", NAMES)
async def test_promtool_finds_nothing_wrong_with_what_a_service_exposes(
    busy: Watcher, stack: Stack, service: str
) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{stack.ops_url(service)}/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert promtool.run("check", "metrics", text=response.text) == ""

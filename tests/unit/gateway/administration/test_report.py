"""From answers of Prometheus to the state of each service."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import ServiceError
from contracts.pauses import Pause
from contracts.topology import SERVICES
from gateway.administration import report
from gateway.administration.measurements import PrometheusAlert, Sample, Series
from gateway.administration.report import Findings
from gateway.administration.signals import CHARTS, Period
from gateway.errors import MonitoringUnavailable

WINDOW = Period("5m")
TIMES = WINDOW.times(1_700_000_000)
KEYS = [(chart.key, line.name) for chart in CHARTS for line in chart.lines]
AWAY = MonitoringUnavailable("Prometheus cannot be reached.")


def up(service: str, value: float = 1, *, instance: str = "a:1", job: str = "services") -> Sample:
    labels = {"service": service, "instance": instance, "job": job}
    return Sample(metric=labels, value=(TIMES[-1], value))


def ready(service: str, value: float = 1) -> Sample:
    return Sample(metric={"service": service}, value=(TIMES[-1], value))


def series(service: str, *pairs: tuple[float, float]) -> Series:
    return Series(metric={"service": service}, values=list(pairs))


def alert(
    name: str, service: str = "email", severity: str = "page", state: str = "firing"
) -> PrometheusAlert:
    labels = {"alertname": name, "service": service, "severity": severity}
    return PrometheusAlert(
        labels=labels, annotations={"summary": "It is so."}, state=state, activeAt="2026-01-01T00:00:00Z"
    )


def findings(**changes: Any) -> Findings:
    lines: dict[Any, Any] = {key: [] for key in KEYS} | changes.pop("lines", {})
    parts: dict[str, Any] = {
        "up": [up(service) for service in SERVICES],
        "ready": [ready(service) for service in SERVICES],
        "alerts": [],
    }
    return Findings(window=WINDOW, times=TIMES, lines=lines, **{**parts, **changes})


def of(service: str, found: Findings) -> dict[str, Any]:
    document = report.document(found)
    named: dict[str, Any] = next(one for one in document["services"] if one["service"] == service)
    return named


def line(chart_key: str, name: str, service: str, found: Findings) -> list[float | None] | None:
    chart = next(chart for chart in of(service, found)["charts"] if chart["key"] == chart_key)
    return next((one["values"] for one in chart["lines"] if one["name"] == name), None)


def test_services_that_answer_and_are_ready_are_ok() -> None:
    document = report.document(findings())
    assert [(one["service"], one["state"]) for one in document["services"]] == [(s, "ok") for s in SERVICES]
    assert document["errors"] == []
    assert document["as_of"] == "2023-11-14T22:13:20Z"


def test_a_pause_is_a_reason_why_batch_processor_is_not_ok() -> None:
    about: dict[str, Any] = {"paused_by": "key", "paused_at": "2026-11-27T10:30:12Z"}
    found = findings(
        pauses=[
            Pause(kind="operation", name="stock.backfill", reason="the provider is down", **about),
            Pause(kind="owner", name="7", **about),
        ]
    )
    service = of("batch-processor", found)
    assert (service["state"], service["reasons"]) == (
        "warn",
        [
            "paused since 2026-11-27T10:30Z: the operation stock.backfill (the provider is down)",
            "paused since 2026-11-27T10:30Z: the batches and tasks of user 7",
        ],
    )
    assert of("gateway", found)["state"] == "ok"
    reported = report.document(found)["pauses"]
    assert [(one["kind"], one["name"], one["paused_by"]) for one in reported] == [
        ("operation", "stock.backfill", "key"),
        ("owner", "7", "key"),
    ]


def test_a_process_says_its_version_its_start_and_its_restarts() -> None:
    labels = {"service": "email", "instance": "a:1"}
    found = findings(
        versions=[Sample(metric={**labels, "version": "0.2.0"}, value=(TIMES[-1], 1))],
        started=[Sample(metric=labels, value=(TIMES[-1], 1_700_000_000.5))],
        restarts=[
            Sample(metric={**labels, "instance": "b:1"}, value=(TIMES[-1], 7)),
            Sample(metric=labels, value=(TIMES[-1], 2)),
        ],
    )
    (target,) = of("email", found)["targets"]
    assert (target["version"], target["started_at"], target["restarts"]) == (
        "0.2.0",
        "2023-11-14T22:13:20Z",
        2,
    )
    assert of("email", found)["processes"] == "version 0.2.0, up for 0 min, 2 restarts within a day"
    assert of("email", findings(versions=AWAY))["processes"] == ""
    (target,) = of("email", findings(versions=AWAY))["targets"]
    assert (target["version"], target["started_at"], target["restarts"]) == (None, None, None)


def test_a_value_stands_at_its_moment_and_gaps_are_null() -> None:
    found = findings(lines={("traffic", "messages"): [series("email", (TIMES[3], 1.5), (TIMES[60], 2))]})
    values = line("traffic", "messages", "email", found)
    assert values is not None
    assert (values[3], values[60]) == (1.5, 2)
    assert sum(value is None for value in values) == 59
    assert line("traffic", "messages", "gateway", found) is None


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_a_gap(odd: float) -> None:
    found = findings(lines={("latency", "requests p99"): [series("gateway", (TIMES[-1], odd))]})
    assert line("latency", "requests p99", "gateway", found) is None
    json.dumps(report.document(found), allow_nan=False)


def test_a_service_without_a_target_is_unknown() -> None:
    assert of("email", findings(up=[]))["state"] == "unknown"


def test_a_service_of_which_no_process_answers_is_down() -> None:
    found = of("email", findings(up=[up("email", 0), up("email", 0, instance="b:1")]))
    assert found["state"] == "down"
    assert "b:1 does not answer Prometheus" in found["reasons"]


def test_a_service_of_which_one_process_is_away_needs_attention() -> None:
    found = of("email", findings(up=[up("email"), up("email", 0, instance="b:1")]))
    assert (found["state"], len(found["targets"])) == ("warn", 2)


def test_a_service_that_is_not_ready_is_down_and_says_where_to_look() -> None:
    found = of("email", findings(ready=[ready("email", 0)]))
    assert found["state"] == "down"
    assert "/readyz" in found["reasons"][0]


def test_an_alert_is_a_reason_of_the_service_that_it_names() -> None:
    found = findings(alerts=[alert("TickwireMailRoutePaused")])
    assert of("email", found)["state"] == "warn"
    assert of("email", found)["reasons"] == ["TickwireMailRoutePaused: It is so."]
    assert of("gateway", found)["state"] == "ok"


def test_alerts_that_only_wait_or_are_for_machines_are_left_out() -> None:
    alerts = [alert("Waits", state="pending"), alert("DeadMan", severity="none"), alert("Fires")]
    document = report.document(findings(alerts=alerts))
    assert [one["name"] for one in document["alerts"]] == ["Fires"]


def test_a_line_above_its_limit_is_a_reason_and_only_at_this_moment() -> None:
    key = ("outbox", "age")
    over = findings(lines={key: [series("email", (TIMES[-1], 31))]})
    assert of("email", over)["reasons"] == ["Outbox oldest: age is above 30 s"]
    before = findings(lines={key: [series("email", (TIMES[-2], 31), (TIMES[-1], 1))]})
    assert of("email", before)["state"] == "ok"


def test_targets_that_are_no_services_are_listed_as_neighbours() -> None:
    targets = [up("rabbitmq", job="rabbitmq"), up("rabbitmq", 0, job="rabbitmq-detailed"), up("prometheus")]
    neighbours = report.document(findings(up=targets))["neighbours"]
    assert {one["service"]: one["state"] for one in neighbours} == {"rabbitmq": "warn", "prometheus": "ok"}


def test_a_part_that_is_missing_is_named_once_and_the_rest_arrives() -> None:
    lines = {("latency", "requests p50"): AWAY, ("latency", "messages p50"): AWAY}
    document = report.document(findings(lines=lines, alerts=AWAY))
    assert [error["part"] for error in document["errors"]] == ["alerts", "latency"]
    assert document["errors"][0]["code"] == "monitoring-unavailable"
    assert document["services"][0]["state"] == "ok"


def test_when_nothing_arrives_everything_is_unknown_and_every_part_named() -> None:
    everything: dict[Any, ServiceError] = dict.fromkeys(KEYS, AWAY)
    away = dict.fromkeys(("up", "ready", "alerts", "versions", "started", "restarts"), AWAY)
    document = report.document(findings(lines=everything, **away))
    assert {one["state"] for one in document["services"]} == {"unknown"}
    parts = {"targets", "ready", "alerts", "versions", "started", "restarts"} | {
        chart.key for chart in CHARTS
    }
    assert {error["part"] for error in document["errors"]} == parts


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.builds(
            Series,
            metric=st.dictionaries(st.sampled_from(["service", "x"]), st.sampled_from([*SERVICES, "other"])),
            values=st.lists(st.tuples(st.floats(0, 2e9), st.floats()), max_size=80),
        ),
        max_size=8,
    )
)
def test_whatever_series_come_the_document_is_json_of_bounded_size(found: list[Series]) -> None:
    document = report.document(findings(lines=dict.fromkeys(KEYS, found)))
    assert len(json.dumps(document, allow_nan=False)) < 300_000

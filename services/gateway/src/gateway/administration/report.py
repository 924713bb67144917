"""From Prometheus' answers to the status of each service: lines over time, a state and its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chassis.errors import ServiceError
from contracts.topology import SERVICES
from gateway.administration.measurements import Alert, Sample, Series
from gateway.administration.signals import CHARTS, Chart, Line, Window

Values = list[float | None]

_MOST_ALERTS = 50
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Findings:
    """The answers of Prometheus; each part may be the error that came in its place.

    `lines` has the series of every line of every chart, by (chart, line).
    """

    window: Window
    times: list[int]
    lines: Mapping[tuple[str, str], list[Series] | ServiceError]
    up: list[Sample] | ServiceError
    ready: list[Sample] | ServiceError
    alerts: list[Alert] | ServiceError
    index: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {moment: at for at, moment in enumerate(self.times)})


def document(found: Findings) -> dict[str, Any]:
    """Return the answer of `GET /v1/admin/status`."""
    firing = _firing(_good(found.alerts))
    targets = _targets(_good(found.up))
    others = [name for name in targets if name not in SERVICES]
    return {
        "as_of": datetime.fromtimestamp(found.times[-1], UTC).isoformat().replace("+00:00", "Z"),
        "window": found.window.name,
        "step_s": found.window.step_s,
        "times": found.times,
        "services": [_service(name, found, targets.get(name, []), firing) for name in SERVICES],
        "neighbours": [_neighbour(name, targets[name]) for name in others],
        "alerts": firing,
        "errors": _errors(found),
    }


def _service(
    name: str, found: Findings, targets: list[dict[str, Any]], firing: list[dict[str, Any]]
) -> dict[str, Any]:
    charts = [_chart(chart, name, found) for chart in CHARTS]
    is_ready = all(sample.value[1] > 0 for sample in _good(found.ready) if _is_of(sample, name))
    reasons = [
        *(f"{target['instance']} does not answer Prometheus" for target in targets if not target["up"]),
        *([] if is_ready else ["not ready: /readyz on its ops port says why"]),
        *(f"{alert['name']}: {alert['summary']}" for alert in firing if alert["service"] == name),
        *(reason for chart in CHARTS for reason in _crossed(chart, name, found)),
    ]
    return {
        "service": name,
        "state": _state(targets, is_ready=is_ready, reasons=reasons),
        "reasons": reasons,
        "targets": targets,
        "charts": charts,
    }


def _neighbour(name: str, targets: list[dict[str, Any]]) -> dict[str, Any]:
    reasons = [f"{target['job']} does not answer" for target in targets if not target["up"]]
    state = _state(targets, is_ready=True, reasons=reasons)
    return {"service": name, "state": state, "reasons": reasons, "targets": targets}


def _state(targets: list[dict[str, Any]], *, is_ready: bool, reasons: list[str]) -> str:
    if not targets:
        return "unknown"
    if not is_ready or not any(target["up"] for target in targets):
        return "down"
    return "warn" if reasons else "ok"


def _chart(chart: Chart, service: str, found: Findings) -> dict[str, Any]:
    lines = [
        {"name": line.name, "values": values}
        for line in chart.lines
        if (values := _values(chart, line, service, found)) is not None
    ]
    return {
        "key": chart.key,
        "signal": chart.signal,
        "title": chart.title,
        "unit": chart.unit,
        "lines": lines,
    }


def _crossed(chart: Chart, service: str, found: Findings) -> list[str]:
    """Return the lines that are above their limit at this moment."""
    reasons = []
    for line in chart.lines:
        values = _values(chart, line, service, found)
        last = values[-1] if values else None
        if line.warn_above is not None and last is not None and last > line.warn_above:
            reasons.append(f"{chart.title}: {line.name} is above {_amount(line.warn_above, chart.unit)}")
    return reasons


def _values(chart: Chart, line: Line, service: str, found: Findings) -> Values | None:
    """Return the line's value at each moment; None for a moment without one, and None for no value at all."""
    series = next((s for s in _good(found.lines[chart.key, line.name]) if _is_of(s, service)), None)
    if series is None:
        return None
    values: Values = [None] * len(found.times)
    for moment, value in series.values:
        at = found.index.get(int(moment))
        if at is not None and math.isfinite(value):
            values[at] = _short(value)
    return values if any(value is not None for value in values) else None


def _short(value: float) -> float:
    """Return `value` with the digits that a chart can show: a third of the bytes."""
    return float(f"{value:.{_DIGITS}g}")


def _amount(value: float, unit: str) -> str:
    forms = {"share": f"{value:.0%}", "seconds": f"{value:g} s", "per_second": f"{value:g}/s"}
    return forms.get(unit, f"{value:g}")


def _targets(samples: Sequence[Sample]) -> dict[str, list[dict[str, Any]]]:
    targets: dict[str, list[dict[str, Any]]] = {}
    for sample in sorted(samples, key=lambda s: (s.metric.get("job", ""), s.metric.get("instance", ""))):
        labels = sample.metric
        job, instance = labels.get("job", ""), labels.get("instance", "")
        target = {"job": job, "instance": instance, "up": sample.value[1] > 0}
        targets.setdefault(labels.get("service") or job, []).append(target)
    return targets


def _firing(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """Return the alerts that fire, without those that are only for machines (severity `none`)."""
    return [
        {
            "name": alert.labels.get("alertname", ""),
            "severity": alert.labels.get("severity", ""),
            "service": alert.labels.get("service"),
            "summary": alert.annotations.get("summary", ""),
            "runbook": alert.annotations.get("runbook_url"),
            "since": alert.since,
        }
        for alert in alerts
        if alert.state == "firing" and alert.labels.get("severity") != "none"
    ][:_MOST_ALERTS]


def _errors(found: Findings) -> list[dict[str, str]]:
    """Return each part that is missing, once; a chart counts as one part."""
    parts: dict[str, list[Any] | ServiceError] = {"targets": found.up, "ready": found.ready}
    parts["alerts"] = found.alerts
    for (chart, _), answer in found.lines.items():
        parts[chart] = answer if chart not in parts or isinstance(answer, ServiceError) else parts[chart]
    return [
        {"part": part, "code": error.code, "detail": error.detail}
        for part, error in parts.items()
        if isinstance(error, ServiceError)
    ]


def _good(answer: list[Any] | ServiceError) -> list[Any]:
    return [] if isinstance(answer, ServiceError) else answer


def _is_of(one: Sample | Series, service: str) -> bool:
    return one.metric.get("service") == service

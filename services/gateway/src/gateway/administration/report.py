"""The status of each service from the responses of Prometheus: lines over time, a state and its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chassis.errors import ServiceError
from contracts.pauses import Pause
from contracts.topology import BATCH_PROCESSOR, SERVICES
from gateway.administration.measurements import PrometheusAlert, Sample, Series
from gateway.administration.signals import CHARTS, Chart, Line, Period

Values = list[float | None]

_MOST_ALERTS = 50
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Findings:
    """The responses of Prometheus, and the pauses; a part that failed is replaced by its error.

    `lines` has the series of every line of every chart, by (chart, line).
    """

    window: Period
    times: list[int]
    lines: Mapping[tuple[str, str], list[Series] | ServiceError]
    up: list[Sample] | ServiceError
    ready: list[Sample] | ServiceError
    alerts: list[PrometheusAlert] | ServiceError
    versions: list[Sample] | ServiceError = field(default_factory=list)
    started: list[Sample] | ServiceError = field(default_factory=list)
    restarts: list[Sample] | ServiceError = field(default_factory=list)
    pauses: Sequence[Pause] | ServiceError = ()
    index: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {moment: at for at, moment in enumerate(self.times)})


def document(found: Findings) -> dict[str, Any]:
    """Return the answer of `GET /v1/admin/status`."""
    firing = _firing(_good(found.alerts))
    targets: dict[str, list[dict[str, Any]]] = {}
    for sample in sorted(
        _good(found.up), key=lambda s: (s.metric.get("job", ""), s.metric.get("instance", ""))
    ):
        job, instance = sample.metric.get("job", ""), sample.metric.get("instance", "")
        target = {"job": job, "instance": instance, "up": sample.value[1] > 0} | _process(found, instance)
        targets.setdefault(sample.metric.get("service") or job, []).append(target)
    neighbours = []
    for name in (name for name in targets if name not in SERVICES):
        reasons = [f"{target['job']} does not answer" for target in targets[name] if not target["up"]]
        state = _state(targets[name], is_ready=True, reasons=reasons)
        neighbours.append({"service": name, "state": state, "reasons": reasons, "targets": targets[name]})
    return {
        "as_of": _moment(found.times[-1]),
        "window": found.window.name,
        "step_s": found.window.step_s,
        "times": found.times,
        "services": [_service(name, found, targets.get(name, []), firing) for name in SERVICES],
        "neighbours": neighbours,
        "alerts": firing,
        "pauses": [pause.model_dump(mode="json") for pause in _good(found.pauses)],
        "errors": _errors(found),
    }


def _process(found: Findings, instance: str) -> dict[str, Any]:
    """Return the facts of the process behind a target: version, start, restarts within a day."""
    version = _of_instance(found.versions, instance)
    started, restarts = (_of_instance(part, instance) for part in (found.started, found.restarts))
    return {
        "version": version.metric.get("version") if version else None,
        "started_at": _moment(started.value[1]) if started else None,
        "restarts": int(restarts.value[1]) if restarts else None,
    }


def _processes(targets: list[dict[str, Any]], now: float) -> str:
    """Return a summary of the processes: versions, the age of the youngest, and all restarts within a day."""
    known = [target for target in targets if target["started_at"]]
    if not known:
        return ""
    versions = ", ".join(sorted({target["version"] for target in known if target["version"]}))
    youngest = max(datetime.fromisoformat(target["started_at"]).timestamp() for target in known)
    minutes = max(0, int(now - youngest) // 60)
    restarts = sum(target["restarts"] or 0 for target in known)
    return ", ".join(
        [
            *([f"version {versions}"] if versions else []),
            f"up for {minutes} min" if minutes < 120 else f"up for {minutes // 60} h",
            *([f"{restarts} restart{'s' * (restarts > 1)} within a day"] if restarts else []),
        ]
    )


def _of_instance(answer: list[Sample] | ServiceError, instance: str) -> Sample | None:
    found = (one for one in _good(answer) if one.metric.get("instance") == instance)
    return next((one for one in found if math.isfinite(one.value[1])), None)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _service(
    name: str, found: Findings, targets: list[dict[str, Any]], firing: list[dict[str, Any]]
) -> dict[str, Any]:
    charts = []
    crossed = []
    for chart in CHARTS:
        lines = []
        for line in chart.lines:
            values = _values(chart, line, name, found)
            if values is None:
                continue
            lines.append({"name": line.name, "values": values})
            if line.warn_above is not None and values[-1] is not None and values[-1] > line.warn_above:
                limit = line.warn_above
                forms = {"share": f"{limit:.0%}", "seconds": f"{limit:g} s", "per_second": f"{limit:g}/s"}
                above = forms.get(chart.unit, f"{limit:g}")
                crossed.append(f"{chart.title}: {line.name} is above {above}")
        about = {"key": chart.key, "signal": chart.signal, "title": chart.title, "unit": chart.unit}
        charts.append({**about, "lines": lines})
    is_ready = all(sample.value[1] > 0 for sample in _good(found.ready) if _is_of(sample, name))
    reasons = [
        *(f"{target['instance']} does not answer Prometheus" for target in targets if not target["up"]),
        *([] if is_ready else ["not ready: /readyz on its ops port says why"]),
        *(f"{alert['name']}: {alert['summary']}" for alert in firing if alert["service"] == name),
        *crossed,
        *(_line_of(pause) for pause in _good(found.pauses) if name == BATCH_PROCESSOR),
    ]
    return {
        "service": name,
        "state": _state(targets, is_ready=is_ready, reasons=reasons),
        "reasons": reasons,
        "targets": targets,
        "processes": _processes(targets, found.times[-1]),
        "charts": charts,
    }


def _line_of(pause: Pause) -> str:
    """Return a sentence about a pause: its object, its start and its reason."""
    name = f"user {pause.name}" if pause.kind == "owner" else pause.name
    what = "the batches and tasks of" if pause.kind == "owner" else "the operation"
    since = pause.paused_at.isoformat(timespec="minutes").replace("+00:00", "Z")
    return f"paused since {since}: {what} {name}" + (f" ({pause.reason})" if pause.reason else "")


def _state(targets: list[dict[str, Any]], *, is_ready: bool, reasons: list[str]) -> str:
    if not targets:
        return "unknown"
    if not is_ready or not any(target["up"] for target in targets):
        return "down"
    return "warn" if reasons else "ok"


def _values(chart: Chart, line: Line, service: str, found: Findings) -> Values | None:
    """Return the line's value (or None) at each moment; return None if the line has no value at all."""
    series = next((s for s in _good(found.lines[chart.key, line.name]) if _is_of(s, service)), None)
    if series is None:
        return None
    values: Values = [None] * len(found.times)
    for moment, value in series.values:
        at = found.index.get(int(moment))
        if at is not None and math.isfinite(value):
            # Rounded to the digits that a chart can show, which takes a third of the bytes.
            values[at] = float(f"{value:.{_DIGITS}g}")
    return values if any(value is not None for value in values) else None


def _firing(alerts: Sequence[PrometheusAlert]) -> list[dict[str, Any]]:
    """Return the alerts that are firing, without those that are only for machines (severity `none`)."""
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
    """Return each missing part once; a chart counts as one part."""
    parts: dict[str, Sequence[Any] | ServiceError] = {"targets": found.up, "ready": found.ready}
    parts |= {"alerts": found.alerts, "versions": found.versions, "pauses": found.pauses}
    parts |= {"started": found.started, "restarts": found.restarts}
    for (chart, _), answer in found.lines.items():
        parts[chart] = answer if chart not in parts or isinstance(answer, ServiceError) else parts[chart]
    return [
        {"part": part, "code": error.code, "detail": error.detail}
        for part, error in parts.items()
        if isinstance(error, ServiceError)
    ]


def _good(answer: Sequence[Any] | ServiceError) -> Sequence[Any]:
    return () if isinstance(answer, ServiceError) else answer


def _is_of(one: Sample | Series, service: str) -> bool:
    return one.metric.get("service") == service

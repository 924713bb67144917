"""The service level objectives, as shares of good events, and the rules that monitor each objective.

The recorded series have the names that Sloth uses, so its dashboards and tools work with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_BUILT = "Built by `PYTHONPATH=deploy python -m prometheus.build` from objectives.py; do not edit."

PERIOD_DAYS = 30
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class Burn:
    """An error budget that burns `factor` times too fast, over a short and a long window."""

    short: str
    long: str
    factor: float


@dataclass(frozen=True, slots=True)
class Urgency:
    """An alert severity, the burn rates that fire it, and the window that must have enough events."""

    severity: str
    burns: tuple[Burn, Burn]
    events_window: str


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective. `bad` and `all` are rates of events; `{window}` stands for the window of the rate.

    An alert needs at least `fewest` events within the hour (for a ticket: six hours): at low traffic a single
    failure would be a large share.
    """

    service: str
    name: str
    target: float
    alert: str
    summary: str
    description: str
    bad: str
    all: str
    fewest: int

    @property
    def id(self) -> str:
        """The identity of the objective."""
        return f"{self.service}-{self.name}"


URGENCIES = (
    Urgency("page", (Burn("5m", "1h", 14.4), Burn("30m", "6h", 6)), "1h"),
    Urgency("ticket", (Burn("2h", "1d", 3), Burn("6h", "3d", 1)), "6h"),
)


def _within(metric: str, seconds: str, where: str = "") -> tuple[str, str]:
    """Return the rates of a histogram's events that took longer than a bucket's bound, and of all events."""
    joined = f"{where}, " if where else ""
    all_events = f"sum(rate({metric}_count{{{where}}}[{{window}}]))"
    in_time = f'sum(rate({metric}_bucket{{{joined}le="{seconds}"}}[{{window}}]))'
    return f"{all_events} - {in_time}", all_events


# The duration of streams and transfers depends on the client.
_ANSWERS = 'route!~".*/(events|results)|/v1/batches"'
_SLOW_REQUESTS, _REQUESTS = _within("tickwire_http_request_seconds", "0.25", _ANSWERS)
_LATE_MAILS, _MAILS = _within("tickwire_email_accept_to_delivered_seconds", "60.0")
_LATE_QUOTES, _QUOTES = _within("tickwire_live_message_age_seconds", "1.0", 'type="stocks.ticked.v1"')
# Masses of mails may wait.
_LATE_MESSAGES, _MESSAGES = _within("tickwire_message_age_seconds", "5.0", 'queue!~"email[.](bulk|excess)"')
_LATE_OWNERS, _OWNERS = _within("tickwire_batch_owner_wait_seconds", "1.0")

OBJECTIVES = (
    Objective(
        service="gateway",
        name="availability",
        target=0.999,
        alert="TickwireRequestsFailing",
        summary="Too many requests fail",
        description="The gateway answers more requests with 5xx than the objective of 99.9 % allows.",
        bad='sum(rate(tickwire_http_requests_total{status=~"5.."}[{window}]))',
        all="sum(rate(tickwire_http_requests_total[{window}]))",
        fewest=100,
    ),
    Objective(
        service="gateway",
        name="latency",
        target=0.99,
        alert="TickwireRequestsSlow",
        summary="Too many requests are slow",
        description="More than 1 % of the requests take longer than 250 ms.",
        bad=_SLOW_REQUESTS,
        all=_REQUESTS,
        fewest=100,
    ),
    Objective(
        service="email",
        name="freshness",
        target=0.99,
        alert="TickwireMailLate",
        summary="Mails are delivered late",
        description="More than 1 % of the delivered mails took longer than a minute from acceptance.",
        bad=_LATE_MAILS,
        all=_MAILS,
        fewest=20,
    ),
    Objective(
        service="stock-data",
        name="freshness",
        target=0.999,
        alert="TickwireQuotesLate",
        summary="Pushed quotes arrive late",
        description="Too many pushed quotes reach the gateway more than a second after their tick.",
        bad=_LATE_QUOTES,
        all=_QUOTES,
        fewest=100,
    ),
    Objective(
        service="messaging",
        name="freshness",
        target=0.99,
        alert="TickwireMessagesLate",
        summary="Messages wait too long",
        description="More than 1 % of the commands and events wait longer than 5 seconds for a consumer.",
        bad=_LATE_MESSAGES,
        all=_MESSAGES,
        fewest=50,
    ),
    Objective(
        service="batch-processor",
        name="fairness",
        target=0.99,
        alert="TickwireBatchOwnersWait",
        summary="Owners wait for their first chunk",
        description="More than 1 % of the owners with nothing at work waited more than 1 s for a worker.",
        bad=_LATE_OWNERS,
        all=_OWNERS,
        fewest=20,
    ),
)


def rules() -> str:
    """Return the text of the rules file."""
    text = f"# {_BUILT}\ngroups:\n"
    for objective in OBJECTIVES:
        text += _group(f"sloth-slo-sli-recordings-{objective.id}", _indicators(objective))
        text += _group(f"sloth-slo-meta-recordings-{objective.id}", _meta(objective))
        text += _group(f"sloth-slo-alerts-{objective.id}", _alerts(objective))
    return text


def _group(name: str, entries: Iterator[str]) -> str:
    return f"  - name: {name}\n    interval: 60s\n    rules:\n" + "".join(entries)


def _indicators(objective: Objective) -> Iterator[str]:
    for window in WINDOWS:
        bad, whole = _over(objective.bad, window), _over(objective.all, window)
        # Without events there is no ratio.
        expr = f"(({bad}) or vector(0)) / ({whole} > 0)"
        yield _record(f"slo:sli_error:ratio_rate{window}", expr, objective, window)
    five = f"slo:sli_error:ratio_rate5m{_selector(objective)}[{PERIOD_DAYS}d]"
    long_expr = f"sum_over_time({five}) / ignoring (sloth_window) count_over_time({five})"
    yield _record(f"slo:sli_error:ratio_rate{PERIOD_DAYS}d", long_expr, objective, f"{PERIOD_DAYS}d")
    for urgency in URGENCIES:
        events = _over(objective.all, urgency.events_window).replace("sum(rate(", "sum(increase(")
        yield _record(f"slo:sli_events:increase{urgency.events_window}", events, objective)


def _meta(objective: Objective) -> Iterator[str]:
    selector = _selector(objective)
    join = "on (sloth_id, sloth_slo, sloth_service) group_left"
    yield _record("slo:objective:ratio", f"vector({objective.target:g})", objective)
    yield _record("slo:error_budget:ratio", f"vector(1 - {objective.target:g})", objective)
    yield _record("slo:time_period:days", f"vector({PERIOD_DAYS})", objective)
    for name, window in (("current", "5m"), ("period", f"{PERIOD_DAYS}d")):
        ratio = f"slo:sli_error:ratio_rate{window}{selector}"
        expr = f"{ratio} / {join} slo:error_budget:ratio{selector}"
        yield _record(f"slo:{name}_burn_rate:ratio", expr, objective)
    yield _record(
        "slo:period_error_budget_remaining:ratio", f"1 - slo:period_burn_rate:ratio{selector}", objective
    )
    yield _record("sloth_slo_info", "vector(1)", objective)


def _alerts(objective: Objective) -> Iterator[str]:
    for urgency in URGENCIES:
        most = f"(1 - {objective.target:g})"
        burning = " or ".join(
            "("
            + " and ".join(
                f"max(slo:sli_error:ratio_rate{window}{_selector(objective)} > ({burn.factor:g} * {most}))"
                " without (sloth_window)"
                for window in (burn.short, burn.long)
            )
            + ")"
            for burn in urgency.burns
        )
        events = f"slo:sli_events:increase{urgency.events_window}{_selector(objective)}"
        yield (
            f"      - alert: {objective.alert}\n"
            f"        expr: ({burning}) and on (sloth_id) {events} >= {objective.fewest}\n"
            f"        labels: {{severity: {urgency.severity}, sloth_severity: {urgency.severity}, "
            f"service: {objective.service}}}\n"
            "        annotations:\n"
            f"          summary: {objective.summary}\n"
            f'          description: "{objective.description} {{{{ $value | humanizePercentage }}}} now."\n'
            "          runbook_url: "
            f'"{{{{ $externalLabels.gateway_url }}}}/docs/runbooks/{objective.alert}"\n'
        )


def _record(name: str, expr: str, objective: Objective, window: str | None = None) -> str:
    labels = {"sloth_id": objective.id, "sloth_service": objective.service, "sloth_slo": objective.name}
    if window is not None:
        labels["sloth_window"] = window
    text = ", ".join(f"{key}: {value}" for key, value in labels.items())
    return f"      - record: {name}\n        expr: {expr}\n        labels: {{{text}}}\n"


def _selector(objective: Objective) -> str:
    return f'{{sloth_id="{objective.id}", sloth_service="{objective.service}", sloth_slo="{objective.name}"}}'


def _over(expr: str, window: str) -> str:
    return expr.replace("{window}", window)

"""`/v1/admin/status`: the golden signals of every service, gathered from Prometheus, and the pauses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from chassis import supervision
from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded, ServiceError
from contracts.pauses import Pause
from gateway.administration import report
from gateway.administration.inputs import StatusQuery
from gateway.administration.measurements import Series
from gateway.administration.prometheus import Prometheus
from gateway.administration.report import Findings
from gateway.administration.signals import CHARTS, READY, RESTARTS, STARTED, UP, VERSION, Period, WindowName
from gateway.errors import MonitoringNotConfigured
from gateway.http.calls import Call
from gateway.http.replies import HttpReply, document

T = TypeVar("T")

EVERY_S = 5.0
USABLE_S = 15.0
# Below the default deadline of a request: with a slow Prometheus the report has gaps, but there is one.
GATHER_S = 4.0
# Only batch-processor knows the pauses. Its time-out is shorter, so that the rest does not wait for it.
_PAUSES_S = 1.0

# Returns all pauses.
AskPauses: TypeAlias = Callable[[Deadline], Awaitable[Sequence[Pause]]]


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A report as JSON, and the time of its creation in seconds of the monotonic clock."""

    body: bytes
    made_at: float

    @property
    def age_s(self) -> float:
        """The age of the report."""
        return time.monotonic() - self.made_at


class StatusService:
    """Keeps one report for each window, shared by all callers.

    A request that finds it older than 5 seconds starts a new one and does not wait for it: the page that
    monitors the gateway must not slow it down. Only a request that finds no report, or one that has not been
    requested for a while, waits.
    """

    def __init__(self, prometheus: Prometheus | None, *, pauses: AskPauses) -> None:
        self._prometheus = prometheus
        self._pauses = pauses
        self._makings: dict[WindowName, _Making] = {}
        self._reports: dict[WindowName, StatusReport] = {}

    async def get(self, call: Call, query: StatusQuery) -> HttpReply:
        """Return the golden signals of every service over a window."""
        found = await self.report(Period(query.window), call.deadline)
        return HttpReply(found.body, headers={"age": str(int(found.age_s))})

    async def report(self, window: Period, deadline: Deadline) -> StatusReport:
        """Return the report over `window`. Raise `MonitoringNotConfigured`, `DeadlineExceeded`."""
        if self._prometheus is None:
            raise MonitoringNotConfigured(
                "No Prometheus is configured: set GATEWAY_PROMETHEUS_URL to its address, "
                "for example http://127.0.0.1:9090, and restart the gateway."
            )
        making = self._makings.get(window.name)
        if making is None or making.is_due():
            making = _Making(asyncio.create_task(self._make(self._prometheus, window)), time.monotonic())
            self._makings[window.name] = making
        kept = self._reports.get(window.name)
        if kept is not None and kept.age_s <= USABLE_S:
            return kept
        try:
            # Shielded: a reader that disconnects must not cancel the report of the others.
            async with asyncio.timeout(deadline.remaining_s()):
                return await asyncio.shield(making.task)
        except TimeoutError:
            raise DeadlineExceeded("The status report was not ready in time; repeat the request.") from None

    async def close(self) -> None:
        """Cancel the reports in progress and close the connections."""
        await supervision.end(making.task for making in self._makings.values())
        if self._prometheus is not None:
            await self._prometheus.close()

    async def _make(self, prometheus: Prometheus, window: Period) -> StatusReport:
        """Run all queries at once and store the report, which names the parts that failed."""
        deadline = Deadline.after(GATHER_S)
        times = window.times(time.time())

        def over(query: str) -> Awaitable[list[Series]]:
            return prometheus.over(
                window.expression(query),
                start=times[0],
                end=times[-1],
                step_s=window.step_s,
                deadline=deadline,
            )

        now = [prometheus.now(query, deadline) for query in (UP, READY, VERSION, STARTED, RESTARTS)]
        samples, alerts, pauses, series = await asyncio.gather(
            asyncio.gather(*map(_or_error, now)),
            _or_error(prometheus.alerts(deadline)),
            _or_error(self._pauses(Deadline.after(_PAUSES_S))),
            asyncio.gather(*(_or_error(over(line.query)) for chart in CHARTS for line in chart.lines)),
        )
        keys = [(chart.key, line.name) for chart in CHARTS for line in chart.lines]
        lines = dict(zip(keys, series, strict=True))
        up, ready, versions, started, restarts = samples
        found = Findings(
            window=window,
            times=times,
            lines=lines,
            up=up,
            ready=ready,
            alerts=alerts,
            versions=versions,
            started=started,
            restarts=restarts,
            pauses=pauses,
        )
        made = self._reports[window.name] = StatusReport(document(report.document(found)), time.monotonic())
        return made


@dataclass(frozen=True, slots=True)
class _Making:
    task: asyncio.Task[StatusReport]
    started_at: float

    def is_due(self) -> bool:
        """Return whether the next report is due."""
        return self.task.done() and time.monotonic() - self.started_at > EVERY_S


async def _or_error(question: Awaitable[T]) -> T | ServiceError:
    try:
        return await question
    except ServiceError as error:
        return error

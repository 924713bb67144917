"""`/v1/admin/status`: the golden signals of every service, gathered from Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import orjson
from pydantic import BaseModel, ConfigDict
from quart import Response

from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded, ServiceError
from gateway.administration import report
from gateway.administration.measurements import Series
from gateway.administration.prometheus import Prometheus
from gateway.administration.report import Findings
from gateway.administration.signals import CHARTS, READY, UP, Window, WindowName
from gateway.endpoint import Api, answer, read_query
from gateway.errors import MonitoringNotConfigured
from gateway.identity.keys import Principal

T = TypeVar("T")

_FRESH_S = 5.0
# Below the default deadline of a request: a slow Prometheus gives a report with gaps, not none.
_GATHER_S = 4.0


class StatusQuery(BaseModel):
    """The query of `GET /v1/admin/status`."""

    model_config = ConfigDict(extra="forbid")
    window: WindowName = "15m"


@dataclass(frozen=True, slots=True)
class Report:
    """A report as JSON, and when it was made on the monotonic clock, in seconds."""

    body: bytes
    made_at: float

    @property
    def age_s(self) -> float:
        """How long ago it was made."""
        return time.monotonic() - self.made_at


class StatusDesk:
    """Gathers reports; one of the last 5 seconds, or one in the making, is shared by all who ask."""

    def __init__(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus
        self._reports: dict[WindowName, asyncio.Task[Report]] = {}

    async def report(self, window: Window, deadline: Deadline) -> Report:
        """The report over `window`. Raises `MonitoringNotConfigured`, `DeadlineExceeded`."""
        if self._prometheus is None:
            raise MonitoringNotConfigured(
                "No Prometheus is configured: set GATEWAY_PROMETHEUS_URL to its address, "
                "for example http://127.0.0.1:9090, and start the gateway again."
            )
        task = self._reports.get(window.name)
        if task is None or _is_old(task):
            task = asyncio.create_task(self._make(self._prometheus, window))
            self._reports[window.name] = task
        try:
            # Shielded: one reader that goes away must not take the report from the others.
            return await asyncio.wait_for(asyncio.shield(task), deadline.remaining_s())
        except TimeoutError:
            raise DeadlineExceeded("The report was not ready in time.") from None

    async def close(self) -> None:
        """Give up what is in the making and close the connections."""
        for task in self._reports.values():
            task.cancel()
        await asyncio.gather(*self._reports.values(), return_exceptions=True)
        if self._prometheus is not None:
            await self._prometheus.close()

    async def _make(self, prometheus: Prometheus, window: Window) -> Report:
        found = await _gather(prometheus, window)
        return Report(orjson.dumps(report.document(found)), time.monotonic())


async def _gather(prometheus: Prometheus, window: Window) -> Findings:
    deadline = Deadline.after(_GATHER_S)
    times = window.times(time.time())

    def over(query: str) -> Awaitable[list[Series]]:
        return prometheus.over(
            window.expression(query), start=times[0], end=times[-1], step_s=window.step_s, deadline=deadline
        )

    up, ready, alerts, series = await asyncio.gather(
        _or_error(prometheus.now(UP, deadline)),
        _or_error(prometheus.now(READY, deadline)),
        _or_error(prometheus.alerts(deadline)),
        asyncio.gather(*(_or_error(over(line.query)) for chart in CHARTS for line in chart.lines)),
    )
    keys = [(chart.key, line.name) for chart in CHARTS for line in chart.lines]
    lines = dict(zip(keys, series, strict=True))
    return Findings(window=window, times=times, lines=lines, up=up, ready=ready, alerts=alerts)


async def _or_error(question: Awaitable[T]) -> T | ServiceError:
    try:
        return await question
    except ServiceError as error:
        return error


def _is_old(task: asyncio.Task[Report]) -> bool:
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or task.result().age_s > _FRESH_S


def register(api: Api, desk: StatusDesk) -> None:
    """Serve the route."""

    @api.route("/v1/admin/status", scope="admin")
    async def status(_: Principal) -> Response:
        query = read_query(StatusQuery)
        found = await desk.report(Window(query.window), api.deadline())
        headers = {"age": str(int(found.age_s)), "cache-control": "no-store"}
        return answer(found.body, headers=headers)

"""The service of reports: many viewers at the same time cost one set of queries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded, Unavailable
from contracts.pauses import Pause
from gateway.administration import status_service
from gateway.administration.prometheus import Prometheus
from gateway.administration.signals import CHARTS, Period
from gateway.administration.status_service import StatusService
from gateway.errors import MonitoringNotConfigured
from support.doubles.prometheus import Double
from support.waiting import until

WINDOW = Period("15m")
QUESTIONS = 6 + sum(len(chart.lines) for chart in CHARTS)


def soon() -> Deadline:
    return Deadline.after(10)


async def nothing_is_paused(_: Deadline) -> list[Pause]:
    return []


@pytest.fixture
async def service(double: Double) -> AsyncIterator[StatusService]:
    made = StatusService(Prometheus(double.url), pauses=nothing_is_paused)
    yield made
    await made.close()


async def test_many_viewers_at_the_same_time_share_one_report(service: StatusService, double: Double) -> None:
    found = await asyncio.gather(*(service.report(WINDOW, soon()) for _ in range(30)))
    assert len({report.made_at for report in found}) == 1
    assert len(double.asked) == QUESTIONS


async def test_a_report_is_good_for_a_while(service: StatusService, double: Double) -> None:
    first = await service.report(WINDOW, soon())
    assert await service.report(WINDOW, soon()) is first
    assert len(double.asked) == QUESTIONS


async def test_no_request_waits_while_a_report_is_made_anew(
    service: StatusService, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await service.report(WINDOW, soon())
    monkeypatch.setattr(status_service, "EVERY_S", 0.0)
    double.go.clear()
    assert await service.report(WINDOW, soon()) is first
    double.go.set()

    async def is_renewed() -> bool:
        return await service.report(WINDOW, soon()) is not first

    await until(is_renewed)


async def test_a_report_that_nobody_asked_for_in_a_while_is_not_shown_any_more(
    service: StatusService, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await service.report(WINDOW, soon())
    monkeypatch.setattr(status_service, "EVERY_S", 0.0)
    monkeypatch.setattr(status_service, "USABLE_S", 0.0)
    assert await service.report(WINDOW, soon()) is not first


async def test_each_window_has_a_report_of_its_own(service: StatusService) -> None:
    found = [orjson.loads((await service.report(Period(name), soon())).body) for name in ("5m", "1h")]
    assert [report["step_s"] for report in found] == [5, 60]


async def test_a_caller_that_goes_away_does_not_take_the_report_from_the_others(
    service: StatusService, double: Double
) -> None:
    double.go.clear()
    with pytest.raises(DeadlineExceeded):
        await service.report(WINDOW, Deadline.after(0.05))
    waiting = asyncio.create_task(service.report(WINDOW, soon()))
    double.go.set()
    assert orjson.loads((await waiting).body)["errors"] == []
    assert len(double.asked) == QUESTIONS


async def test_a_prometheus_that_is_slow_gives_a_report_that_names_what_is_missing(
    service: StatusService, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_service, "GATHER_S", 0.1)
    double.go.clear()
    found = orjson.loads((await service.report(WINDOW, soon())).body)
    assert {error["detail"] for error in found["errors"]} == {"Prometheus did not answer in time."}
    assert {service["state"] for service in found["services"]} == {"unknown"}


async def test_without_an_address_the_answer_says_how_to_set_it() -> None:
    service = StatusService(None, pauses=nothing_is_paused)
    with pytest.raises(MonitoringNotConfigured, match="set GATEWAY_PROMETHEUS_URL"):
        await service.report(WINDOW, soon())
    await service.close()


async def test_closing_does_not_wait_for_prometheus(double: Double) -> None:
    service = StatusService(Prometheus(double.url), pauses=nothing_is_paused)
    double.go.clear()
    waiting = asyncio.create_task(service.report(WINDOW, soon()))
    await until(lambda: double.busy)
    async with asyncio.timeout(1):
        await service.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_batch_processor_that_does_not_answer_leaves_only_a_gap(double: Double) -> None:
    async def nobody_answers(_: Deadline) -> list[Pause]:
        raise Unavailable("batch-processor does not answer.")

    service = StatusService(Prometheus(double.url), pauses=nobody_answers)
    found = orjson.loads((await service.report(WINDOW, soon())).body)
    assert found["pauses"] == []
    assert found["errors"] == [
        {"part": "pauses", "code": "service-unavailable", "detail": "batch-processor does not answer."}
    ]
    await service.close()

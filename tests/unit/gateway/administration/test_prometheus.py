"""Queries to Prometheus: how they are sent, and every way in which no valid answer comes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from chassis.deadlines import Deadline
from gateway.administration.prometheus import Prometheus
from gateway.errors import MonitoringUnavailable
from native.ports import free_port
from support.doubles.prometheus import Double


@pytest.fixture
async def prometheus(double: Double) -> AsyncIterator[Prometheus]:
    client = Prometheus(double.url)
    yield client
    await client.close()


def soon() -> Deadline:
    return Deadline.after(10)


async def test_a_range_is_asked_for_by_its_ends_and_its_step(prometheus: Prometheus, double: Double) -> None:
    values = [[100, "1.5"], [115, "NaN"], [130, "+Inf"]]
    double.data = {"resultType": "matrix", "result": [{"metric": {"service": "email"}, "values": values}]}
    [series] = await prometheus.over("up + 1", start=100, end=130, step_s=15, deadline=soon())
    assert double.asked == [
        {"path": "/api/v1/query_range", "query": "up + 1", "start": "100", "end": "130", "step": "15"}
    ]
    assert series.metric == {"service": "email"}
    moments, (number, nothing, endless) = zip(*series.values, strict=True)
    assert moments == (100, 115, 130)
    assert number == 1.5
    assert math.isnan(nothing)
    assert math.isinf(endless)


async def test_alerts_have_their_labels_and_when_they_began(prometheus: Prometheus, double: Double) -> None:
    labels = {"alertname": "TickwireServiceDown"}
    double.data = {"alerts": [{"labels": labels, "state": "firing", "activeAt": "2026-01-01T00:00:00Z"}]}
    [alert] = await prometheus.alerts(soon())
    assert (alert.labels, alert.state, alert.since) == (labels, "firing", "2026-01-01T00:00:00Z")


async def test_an_address_may_have_a_path(double: Double) -> None:
    prometheus = Prometheus(f"{double.url}/metrics-store/")
    assert await prometheus.now("up", soon()) == []
    await prometheus.close()
    assert double.asked[0]["path"] == "/metrics-store/api/v1/query"


async def test_an_unreachable_prometheus_is_named() -> None:
    prometheus = Prometheus(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(MonitoringUnavailable, match="cannot be reached"):
        await prometheus.now("up", soon())
    await prometheus.close()


async def test_an_answer_that_does_not_come_ends_with_the_deadline(
    prometheus: Prometheus, double: Double
) -> None:
    double.go.clear()
    with pytest.raises(MonitoringUnavailable, match="in time"):
        await prometheus.now("up", Deadline.after(0.05))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome</html>",
        b"[]",
        b'{"status":"success"}',
        b'{"status":"error","data":{"result":[]}}',
        b'{"status":"success","data":{"result":[{"metric":{},"value":[1,"much"]}]}}',
        b"\xff\xfe",
    ],
)
async def test_a_server_that_is_not_prometheus_is_named(
    prometheus: Prometheus, double: Double, body: bytes
) -> None:
    double.body = body
    with pytest.raises(MonitoringUnavailable, match="GATEWAY_PROMETHEUS_URL"):
        await prometheus.now("up", soon())


async def test_a_refusal_is_repeated_shortly(prometheus: Prometheus, double: Double) -> None:
    double.status, double.body = 422, b'{"status":"error","error":"too many samples' + b"!" * 9999 + b'"}'
    with pytest.raises(MonitoringUnavailable, match="status 422: too many samples") as refused:
        await prometheus.now("up", soon())
    assert len(refused.value.detail) < 300


async def test_an_error_page_is_not_repeated(prometheus: Prometheus, double: Double) -> None:
    double.status, double.body = 502, b"<html>secret</html>"
    with pytest.raises(MonitoringUnavailable, match="status 502") as refused:
        await prometheus.now("up", soon())
    assert "secret" not in refused.value.detail


async def test_a_redirect_is_not_followed(prometheus: Prometheus, double: Double) -> None:
    double.status = 302
    with pytest.raises(MonitoringUnavailable, match="status 302"):
        await prometheus.now("up", soon())


async def test_an_endless_answer_is_broken_off(prometheus: Prometheus, double: Double) -> None:
    double.body = b" " * (2 << 20)
    with pytest.raises(MonitoringUnavailable, match="more than 1048576 bytes"):
        await prometheus.now("up", soon())


async def test_at_most_four_queries_run_at_once(prometheus: Prometheus, double: Double) -> None:
    await asyncio.gather(*(prometheus.now("up", soon()) for _ in range(20)))
    assert len(double.asked) == 20
    assert double.most_busy <= 4


async def test_a_proxy_of_the_environment_is_not_used(
    double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    prometheus = Prometheus(double.url)
    assert await prometheus.now("up", soon()) == []
    await prometheus.close()

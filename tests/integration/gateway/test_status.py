"""The status of the services, from a real Prometheus that scrapes this very gateway."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY, start_http_server

from chassis.deadlines import Deadline
from contracts.pauses import ListPauses, Pause, Pauses
from contracts.topology import BATCH_PROCESSOR
from gateway.administration.signals import CHARTS, READY, STARTED, VERSION
from native import prometheus
from native.ports import Ports, free_port
from native.prometheus import PrometheusServer
from support.doubles import prometheus as doubles
from support.gateway_stack import House, RunningGateway, answering
from support.problems import assert_problem
from support.waiting import until

# Their query names them by a pattern.
IN_FLIGHT = ("tickwire_http_requests_in_flight", "tickwire_batch_chunks_in_flight")
STATUS = "/v1/admin/status"
PAGE = "/console/status"


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    """Serve the metrics of this process as the gateway's; yield the ports of the stack.

    Only those that a report is made of: the gateways and services of all tests before have left theirs here,
    and to write them all takes this process longer than the report waits for its parts.
    """
    ports = Ports.free()
    queries = [READY, STARTED, VERSION, *(line.query for chart in CHARTS for line in chart.lines)]
    read = {name for query in queries for name in re.findall(r"tickwire_\w+|process_\w+", query)}
    registry = REGISTRY.restricted_registry({*read, *IN_FLIGHT})
    server, thread = start_http_server(ports.gateway_ops, addr="127.0.0.1", registry=registry)
    yield ports
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> AsyncIterator[PrometheusServer]:
    async with prometheus.start(tmp_path_factory.mktemp("prometheus"), ports) as running:
        yield running


PAUSED = Pause(
    kind="operation", name="echo", reason="for repair", paused_by="key", paused_at=datetime.now(UTC)
)


async def tell_what_is_paused(_: ListPauses, __: Deadline) -> Pauses:
    """Play batch-processor, of which one operation is paused."""
    return Pauses(data=[PAUSED])


@pytest.fixture(scope="module")
async def watched(shared_house: House, store: PrometheusServer) -> AsyncIterator[RunningGateway]:
    """Yield a gateway with the address of Prometheus; batch-processor reports a pause."""
    async with answering(shared_house.rabbitmq_url, BATCH_PROCESSOR, {ListPauses: tell_what_is_paused}):
        yield await shared_house.open(prometheus_url=store.url)


async def report(listener: RunningGateway, window: str = "15m") -> dict[str, Any]:
    answer = await listener.api.get(STATUS, params={"window": window})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def chart(found: dict[str, Any], service: str, key: str) -> dict[str, Any]:
    named = next(one for one in found["services"] if one["service"] == service)
    charts: dict[str, Any] = {one["key"]: one for one in named["charts"]}
    return dict(charts[key])


async def test_every_query_is_understood_by_a_real_prometheus(watched: RunningGateway) -> None:
    for window in ("5m", "15m", "1h", "6h", "24h"):

        async def is_whole(window: str = window) -> bool:
            # On a busy machine a part may be missing because its answer was late, and the next report has it.
            return bool((await report(watched, window))["errors"] == [])

        await until(is_whole, timeout_s=60)


async def test_requests_to_the_gateway_become_a_line_with_its_latency(watched: RunningGateway) -> None:
    async def drawn() -> Any:
        await watched.api.get("/healthz")
        found = await report(watched, "5m")
        lines = chart(found, "gateway", "latency")["lines"]
        return found if [line for line in lines if line["name"] == "requests p99"] else None

    # A rate needs two scrapes, and a report is kept for five seconds.
    found = await until(drawn, timeout_s=60)
    [requests] = [
        one for one in chart(found, "gateway", "traffic")["lines"] if one["name"] == "HTTP requests"
    ]
    assert requests["values"][-1] > 0
    assert len(requests["values"]) == len(found["times"]) == 61
    assert [one["key"] for one in found["services"][0]["charts"]] == [one.key for one in CHARTS]


async def test_a_service_that_does_not_answer_prometheus_is_down(watched: RunningGateway) -> None:
    async def states() -> Any:
        found = {one["service"]: one for one in (await report(watched))["services"]}
        is_up = [target["up"] for target in found["gateway"]["targets"]] == [True]
        return found if is_up and found["email"]["state"] == "down" else None

    found = await until(states, timeout_s=60)
    assert "does not answer Prometheus" in found["email"]["reasons"][0]


async def test_a_pause_is_reported_with_its_reason(watched: RunningGateway) -> None:
    async def with_pauses() -> Any:
        found = await report(watched)
        return found if found["pauses"] else None

    found = await until(with_pauses, timeout_s=60)
    assert [(one["kind"], one["name"], one["reason"]) for one in found["pauses"]] == [
        ("operation", "echo", "for repair")
    ]
    [service] = [one for one in found["services"] if one["service"] == BATCH_PROCESSOR]
    assert any("the operation echo (for repair)" in reason for reason in service["reasons"])


async def test_the_report_is_for_administrators(watched: RunningGateway) -> None:
    async with watched.client(await watched.new_key("quotes:read")) as member:
        assert_problem(await member.get(STATUS), 403, "forbidden")
    async with httpx.AsyncClient(base_url=watched.url) as nobody:
        assert_problem(await nobody.get(STATUS), 401, "unauthenticated")


@pytest.mark.parametrize(("name", "value"), [("window", "2h"), ("window", ""), ("windw", "1h")])
async def test_a_window_that_is_not_offered_is_refused(
    watched: RunningGateway, name: str, value: str
) -> None:
    answer = await watched.api.get(STATUS, params={name: value})
    assert_problem(answer, 422, "invalid-input", f"/{name}")


async def test_a_report_says_its_age_and_is_not_cached(watched: RunningGateway) -> None:
    answer = await watched.api.get(STATUS)
    assert int(answer.headers["age"]) <= 15
    assert answer.headers["cache-control"] == "no-store"


async def test_without_prometheus_everything_is_unknown_and_the_reason_named(house: House) -> None:
    await house.double(BATCH_PROCESSOR, {ListPauses: tell_what_is_paused})
    listener = await house.open(prometheus_url=f"http://127.0.0.1:{free_port()}")
    found = await report(listener)
    assert {one["state"] for one in found["services"]} == {"unknown"}
    assert {error["detail"] for error in found["errors"]} == {"Prometheus cannot be reached."}


async def test_a_server_that_is_not_prometheus_is_recognised(house: House) -> None:
    async with doubles.start() as double:
        double.body = b"<html>Welcome to nginx!</html>"
        await house.double(BATCH_PROCESSOR, {ListPauses: tell_what_is_paused})
        listener = await house.open(prometheus_url=double.url)
        details = {error["detail"] for error in (await report(listener))["errors"]}
    assert details == {"The server at GATEWAY_PROMETHEUS_URL does not answer as Prometheus does."}


async def test_a_gateway_without_a_prometheus_says_how_to_configure_one(
    shared_listener: RunningGateway,
) -> None:
    problem = assert_problem(await shared_listener.api.get(STATUS), 404, "monitoring-not-configured")
    assert "GATEWAY_PROMETHEUS_URL" in problem["detail"]


@pytest.mark.parametrize("path", [PAGE, f"{PAGE}.css", f"{PAGE}.js", f"{PAGE}.svg"])
async def test_the_page_needs_no_key_and_has_a_policy_of_its_own(
    shared_listener: RunningGateway, path: str
) -> None:
    async with httpx.AsyncClient(base_url=shared_listener.url) as nobody:
        answer = await nobody.get(path)
        head = await nobody.head(path)
    assert (answer.status_code, head.status_code, head.content) == (200, 200, b"")
    [policy] = answer.headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert head.headers["content-length"] == str(len(answer.content))


async def test_other_answers_keep_the_strict_policy(shared_listener: RunningGateway) -> None:
    answer = await shared_listener.api.get("/healthz")
    assert answer.headers.get_list("content-security-policy") == [
        "default-src 'none'; frame-ancestors 'none'"
    ]


async def test_the_page_is_counted_under_its_route(watched: RunningGateway, ports: Ports) -> None:
    async with httpx.AsyncClient() as client:
        await client.get(watched.url + PAGE)
        scraped = (await client.get(f"http://127.0.0.1:{ports.gateway_ops}/metrics")).text
    assert f'tickwire_http_requests_total{{method="GET",route="{PAGE}",status="200"}}' in scraped

"""The exposition for a scraper: in the format that it takes, with the version, without needless series."""

from __future__ import annotations

import platform
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from chassis import metrics
from chassis.broker.consumer import Consumer
from chassis.health import Health
from chassis.ops import ops_app
from chassis.parked import Parked

OPENMETRICS = "application/openmetrics-text"


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def scrape(accept: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=ops_app(Health()))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return await client.get("/metrics", headers={"accept": accept})


async def test_a_scraper_that_takes_openmetrics_gets_exemplars() -> None:
    metrics.HTTP_SECONDS.labels("GET", "/sampled").observe(0.2, {"trace_id": "abc"})
    response = await scrape(f"{OPENMETRICS};version=1.0.0,text/plain;q=0.5")
    assert response.headers["content-type"].startswith(OPENMETRICS)
    assert '# {trace_id="abc"}' in response.text
    assert response.text.endswith("# EOF\n")


async def test_any_other_scraper_gets_plain_text() -> None:
    response = await scrape("*/*")
    assert response.headers["content-type"].startswith("text/plain")
    assert "# EOF" not in response.text
    assert "# TYPE tickwire_http_requests_total counter" in response.text


async def test_a_counter_is_described_once() -> None:
    metrics.ACCEPTED.labels("email").inc()
    assert "_created" not in (await scrape(OPENMETRICS)).text


def test_the_build_says_which_version_runs() -> None:
    metrics.describe_build("tickwire-chassis")
    metrics.describe_build("not-installed")
    python = platform.python_version()
    assert value("tickwire_build_info", version="unknown", python=python) == 1
    versions = [s.labels["version"] for m in metrics.BUILD_INFO.collect() for s in m.samples]
    assert any(version[0].isdigit() for version in versions)


class _Rows:
    """A database that knows how many messages of which queue are parked."""

    def __init__(self, **counts: int) -> None:
        self.counts = counts

    def connection(self) -> _Rows:
        return self

    async def __aenter__(self) -> _Rows:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def fetch(self, _: str) -> list[dict[str, Any]]:
        return [{"queue": queue, "count": count} for queue, count in self.counts.items()]


async def test_a_queue_of_which_nothing_is_parked_counts_as_none_and_not_as_unknown() -> None:
    rows = _Rows(surprise=2)
    parked = Parked(rows)  # type: ignore[arg-type]  # one statement is all it needs
    parked.expect("expected")
    await parked.measure()
    assert value("tickwire_parked_messages", queue="expected") == 0
    assert value("tickwire_parked_messages", queue="surprise") == 2
    rows.counts = {}
    await parked.measure()
    assert value("tickwire_parked_messages", queue="surprise") == 0


@pytest.mark.parametrize("queue", ["a.b", "c.d"])
def test_a_consumer_that_was_never_paused_is_measured_as_running(queue: str) -> None:
    Consumer(queue, {}, service="a", postgres=None, publisher=None)  # type: ignore[arg-type]  # not opened
    assert value("tickwire_consumer_paused", queue=queue) == 0

"""The status page in a real browser, against the whole stack and a Prometheus that watches it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from native import card, prometheus
from native.prometheus import PrometheusServer
from native.services import NAMES
from native.stack import Stack
from support import browser
from support.browser import BrowserTab

pytestmark = browser.needed

CARD = "document.querySelector('[data-service=%s]')"
CALLS = "performance.getEntriesByType('resource').filter(e => e.name.includes('/v1/admin/status')).length"

WITH_ALERT = """{
    const ask = window.fetch;
    window.fetch = async (...asked) => {
        const answer = await ask(...asked);
        if (!String(asked[0]).includes("/v1/admin/status") || !answer.ok) return answer;
        return Response.json({ ...(await answer.json()), alerts: [%s] });
    };
}"""


@pytest.fixture
async def page(tab: BrowserTab, stack: Stack) -> AsyncIterator[BrowserTab]:
    """Yield the status page as a first visitor sees it."""
    await tab.look_as(width=1440, height=1000)
    await tab.visit(f"{stack.url}/console/status")
    yield tab
    # What its own policy forbids, or an error of its script.
    assert tab.complaints == []


@pytest.fixture(scope="module")
async def store(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrometheusServer]:
    """Yield the Prometheus that the stack is configured with; it runs for these tests only."""
    async with prometheus.start(tmp_path_factory.mktemp("prometheus"), stack.ports) as running:
        yield running


async def enter(page: BrowserTab, key: str) -> None:
    await page.run(f"document.getElementById('key').value = {json.dumps(key)}")
    await page.run("document.querySelector('#door button').click()")


async def test_a_first_visitor_is_asked_for_a_key_and_sees_no_figures(page: BrowserTab) -> None:
    assert "API key" in await page.text("#door")
    assert (await page.text("#board")).strip() == ""
    assert await page.run("document.activeElement.id") == "key"


async def test_an_unknown_key_is_reported(page: BrowserTab) -> None:
    await enter(page, "tw_live_0123456789abcdef_" + "x" * 43)
    await page.until("document.getElementById('notice').innerText.includes('does not know this key')")
    assert await page.run("sessionStorage.length") == 0


async def test_the_refusal_of_a_key_names_the_scope_that_it_lacks(
    page: BrowserTab, reader: httpx.AsyncClient
) -> None:
    await enter(page, reader.headers["authorization"].removeprefix("Bearer "))
    await page.until("document.getElementById('notice').innerText.includes('lacks the scope admin')")
    assert (await page.text("#board")).strip() == ""


async def test_the_card_of_the_native_run_logs_a_browser_in(page: BrowserTab, stack: Stack) -> None:
    said = await card.text(stack)
    assert stack.api_key in said
    assert "does not answer" not in said
    found = re.search(r"http://\S+/console/login#\S+", said)
    assert found is not None, said
    await page.call("Page.navigate", url=found[0])
    await page.until("location.pathname === '/console/status'")
    await page.until("document.getElementById('door')?.hidden && !document.getElementById('board').hidden")


async def test_an_unreachable_prometheus_is_reported_and_no_service_is_shown_as_healthy(
    page: BrowserTab, stack: Stack
) -> None:
    assert "prometheus" in stack.blueprint.without
    await enter(page, stack.api_key)
    await page.until("document.getElementById('notice').innerText.includes('Prometheus cannot be reached')")
    assert "Not all is known" in await page.text("#summary")
    assert await page.run("document.querySelectorAll('.card.unknown').length") == 4


async def test_the_figures_of_all_services_are_drawn(
    page: BrowserTab, stack: Stack, store: PrometheusServer
) -> None:
    await enter(page, stack.api_key)
    for service in NAMES:
        card = CARD % service
        await page.until(f"{card} && !{card}.classList.contains('unknown')")
        lag = f"{card}.querySelector('[data-chart=loop-lag]')"
        await page.until(f"/\\d (µs|ms|s)/.test({lag}.innerText)", timeout_s=60)
        assert await page.run(f"{lag}.querySelector('path.line').getAttribute('d').length") > 5
        assert "Loop lag p99" in await page.run(f"{lag}.querySelector('svg').getAttribute('aria-label')")
    traffic = f"{CARD % 'gateway'}.querySelector('[data-chart=traffic]')"
    # The page itself makes requests.
    await page.until(f"/HTTP requests\\s+0?\\.?\\d+\\/s/.test({traffic}.innerText)", timeout_s=60)


async def test_an_alert_that_fires_leads_to_its_runbook(
    page: BrowserTab, stack: Stack, store: PrometheusServer
) -> None:
    runbook = f"{stack.url}/docs/runbooks/TickwireBackupOld"
    alert = {
        "name": "TickwireBackupOld",
        "severity": "ticket",
        "summary": "The backup is old",
        "runbook": runbook,
    }
    # No alert of a healthy stack fires: the page is told of one, in an answer that is else the gateway's.
    await page.run(WITH_ALERT % json.dumps(alert))
    await enter(page, stack.api_key)
    await page.until("document.querySelector('.alert a')?.innerText === 'TickwireBackupOld'")
    assert await page.run("document.querySelector('.alert a').href") == runbook
    async with httpx.AsyncClient(trust_env=False) as reader:
        assert "TickwireBackupOld" in (await reader.get(runbook)).raise_for_status().text


async def test_the_page_keeps_itself_up_to_date(
    page: BrowserTab, stack: Stack, store: PrometheusServer
) -> None:
    await enter(page, stack.api_key)
    await page.until(f"{CALLS} >= 2")
    assert "s ago" in await page.text("#updated")


async def test_another_time_window_is_loaded_at_once(
    page: BrowserTab, stack: Stack, store: PrometheusServer
) -> None:
    await enter(page, stack.api_key)
    await page.until("document.querySelectorAll('.card').length === 4")
    await page.run("document.getElementById('window').value = '1h'")
    await page.run("document.getElementById('window').dispatchEvent(new Event('change'))")
    await page.until("performance.getEntriesByType('resource').some(e => e.name.includes('window=1h'))")


async def test_the_page_reports_a_lost_gateway_and_recovers_by_itself(
    page: BrowserTab, stack: Stack, store: PrometheusServer
) -> None:
    await enter(page, stack.api_key)
    await page.until("document.querySelectorAll('.card').length === 4")
    await page.call("Network.enable")
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await page.call("Network.emulateNetworkConditions", offline=True, **offline)
    await page.until("document.getElementById('notice').innerText.includes('cannot be reached')")
    assert await page.run("document.getElementById('board').classList.contains('stale')")
    await page.call("Network.emulateNetworkConditions", offline=False, **offline)
    await page.until("!document.getElementById('board').classList.contains('stale')", timeout_s=60)


async def test_the_page_fits_a_phone(page: BrowserTab, stack: Stack, store: PrometheusServer) -> None:
    await page.look_as(width=360, height=740)
    await enter(page, stack.api_key)
    await page.until("document.querySelectorAll('.card').length === 4")
    assert await page.run("document.documentElement.scrollWidth") <= 360


async def test_logging_out_forgets_the_key(page: BrowserTab, stack: Stack, store: PrometheusServer) -> None:
    await enter(page, stack.api_key)
    await page.until("document.querySelectorAll('.card').length === 4")
    await page.run("document.getElementById('leave').click()")
    assert await page.run("sessionStorage.length") == 0
    assert (await page.text("#board")).strip() == ""

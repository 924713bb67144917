"""The whole stack, as `make run` starts it, on ports of its own; or one that already runs (`make e2e`)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from native import stack as native_stack
from native.stack import Stack
from support import broker_tap, browser, deployed
from support.broker_tap import Sent
from support.browser import BrowserTab
from support.deployed import Deployed
from support.doubles import dns
from support.doubles.dns import DnsServer
from support.walking import Walk, Walked


@pytest.fixture(scope="package")
async def names() -> AsyncIterator[DnsServer]:
    """Yield the DNS server that the stack asks about sender domains."""
    async with dns.running() as server:
        yield server


@pytest.fixture(scope="package")
async def stack(
    tmp_path_factory: pytest.TempPathFactory, names: DnsServer
) -> AsyncIterator[Stack | Deployed]:
    if running_already := deployed.found(os.environ):
        yield running_already
        return
    directory = tmp_path_factory.mktemp("stack")
    variables = {"LOG_LEVEL": "DEBUG", "EMAIL_DNS_SERVERS": names.address}
    async with native_stack.start(directory, without=("prometheus",), variables=variables) as running:
        yield running


@pytest.fixture(scope="package")
async def api(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with the administrator's key."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=20) as client:
        yield client


async def resume_all(api: httpx.AsyncClient) -> None:
    """Resume whatever is paused, because other tests use the same stack."""
    for pause in (await api.get("/v1/admin/pauses")).json()["data"]:
        answer = await api.delete(f"/v1/admin/pauses/{pause['kind']}s/{pause['name']}")
        assert answer.status_code == 204, answer.text


@pytest.fixture
async def resumed(api: httpx.AsyncClient) -> AsyncIterator[None]:
    """Resume after the test whatever it has paused."""
    yield
    await resume_all(api)


@pytest.fixture(scope="package")
async def walked(stack: Stack | Deployed, api: httpx.AsyncClient) -> Walked:
    """Send every example of the document once, because most of them cannot be sent twice."""
    document = (await api.get("/openapi.json")).json()
    async with AsyncExitStack() as opened:
        sent: list[Sent] = []
        if isinstance(stack, Stack):
            sent = await opened.enter_async_context(broker_tap.recording(stack.rabbitmq))
        walk = Walk(api, document)
        try:
            failed = await walk.go()
        finally:
            await resume_all(api)
    return Walked(failed, walk.misdescribed, sent)


@pytest.fixture(scope="package")
async def mailbox(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.mailbox.url, timeout=10) as client:
        yield client


@pytest.fixture(scope="package")
async def refusals(mailbox: httpx.AsyncClient) -> None:
    """Skip the tests that send to refused addresses where the mailbox does not refuse any."""
    await deployed.require_refusals(mailbox)


@pytest.fixture(scope="package")
async def reader(stack: Stack, api: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of another user, whose key may only read quotes and batches."""
    user = (await api.post("/v1/users", json={"name": "Reader", "email": "reader@example.com"})).json()
    wanted = {
        "name": "reader",
        "scopes": ["quotes:read", "batches:read", "emails:read"],
        "user_id": user["id"],
    }
    key = (await api.post("/v1/api-keys", json=wanted)).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
async def tab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserTab]:
    async with browser.open_page(tmp_path_factory.mktemp("browser")) as page:
        yield page

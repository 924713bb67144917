"""Login addresses: each opens the console once, whichever gateway it comes to."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.identity import login_service, signed_texts
from support import browser
from support.gateway_stack import PEPPER, House, RunningGateway


@pytest.fixture(scope="module")
async def two(module_house: House) -> tuple[RunningGateway, RunningGateway]:
    """Yield two gateways of one database."""
    first = await module_house.open()
    dsn = first.settings.postgres_dsn.get_secret_value()
    return first, await module_house.open(dsn=dsn, bootstrap_key=first.admin_key)


async def login(gateway: RunningGateway, api: httpx.AsyncClient | None = None, **body: Any) -> str:
    """Return the token of a new login address."""
    answer = await (api or gateway.api).post("/v1/console/logins", json=body)
    assert answer.status_code == 200, answer.text
    page, _, token = answer.json()["path"].partition("#")
    assert page == "/console/login"
    return str(token)


async def use(gateway: RunningGateway, token: str) -> httpx.Response:
    """Exchange a token, as a browser does, which has no key."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser_without_key:
        return await browser_without_key.post("/v1/console/sessions", json={"token": token})


async def test_a_login_gives_a_key_of_half_a_day_below_the_one_that_made_it(
    two: tuple[RunningGateway, RunningGateway],
) -> None:
    gateway, other = two
    session = (await use(other, await login(gateway))).json()
    async with gateway.client(session["key"]) as console:
        me = (await console.get("/v1/me")).json()
        assert "admin" in me["key"]["effective_scopes"]
        found = (await console.get(f"/v1/api-keys/{session['key_id']}")).json()
        assert found["parent_id"] == gateway.admin_key[8:24]
        trail = (await console.get("/v1/admin/audit", params={"limit": 1})).json()["data"][0]
        assert (trail["action"], trail["target"]) == ("key.created", f"api-key:{session['key_id']}")
        lasts = "SELECT expires_at - created_at FROM api_keys WHERE id = $1"
        seconds = (await gateway.database.fetchval(lasts, session["key_id"])).total_seconds()
        assert seconds == pytest.approx(login_service.SESSION_LASTS.total_seconds(), abs=5)


async def test_a_login_address_lets_one_of_many_in_on_two_gateways(
    two: tuple[RunningGateway, RunningGateway],
) -> None:
    token = await login(two[0])
    answers = await asyncio.gather(*(use(two[number % 2], token) for number in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    refused = next(answer for answer in answers if answer.status_code == 401).json()["detail"]
    assert "was used before" in refused
    assert "make login" in refused


async def test_a_token_that_has_expired_is_damaged_or_has_another_purpose_is_refused_with_the_reason(
    two: tuple[RunningGateway, RunningGateway],
) -> None:
    gateway, _ = two
    token = await login(gateway)
    document = {"id": "x", "key": gateway.admin_key[8:24], "until": 1}
    over = login_service.PREFIX + signed_texts.sign(
        signed_texts.signing_key(PEPPER, "tickwire login address"), document
    )
    realtime = (await gateway.api.post("/v1/realtime/tokens", json={})).json()["token"]
    foreign = login_service.PREFIX + realtime.removeprefix("tw_rt_")
    for text, reason in ((over, "has expired"), (token[:-2], "is damaged"), (foreign, "is damaged")):
        answer = await use(gateway, text)
        assert (answer.status_code, reason in answer.json()["detail"]) == (401, True), answer.text
        assert "make login" in answer.json()["detail"]
    assert (await use(gateway, token)).status_code == 200


async def test_only_administrators_with_a_key_make_addresses_and_a_revoked_key_ends_them(
    two: tuple[RunningGateway, RunningGateway],
) -> None:
    gateway, _ = two
    async with gateway.client(await gateway.new_key("keys:write")) as member:
        assert (await member.post("/v1/console/logins", json={})).status_code == 403
    assert (await gateway.api.post("/v1/console/logins", json={"ttl_s": 3601})).status_code == 422
    made = (await gateway.api.post("/v1/api-keys", json={"name": "short", "scopes": ["admin"]})).json()
    async with gateway.client(made["key"]) as operator:
        first, second = await login(gateway, operator), await login(gateway, operator)
    session = (await use(gateway, first)).json()["key"]
    await gateway.api.delete(f"/v1/api-keys/{made['id']}")
    answer = await use(gateway, second)
    assert (answer.status_code, "has ended" in answer.json()["detail"]) == (401, True)
    async with gateway.client(session) as console:
        assert (await console.get("/v1/me")).status_code == 401


async def test_a_session_ends_with_the_secret_that_made_its_address(
    two: tuple[RunningGateway, RunningGateway],
) -> None:
    gateway, _ = two
    made = (await gateway.api.post("/v1/api-keys", json={"name": "rotated", "scopes": ["admin"]})).json()
    async with gateway.client(made["key"]) as operator:
        await operator.post(f"/v1/api-keys/{made['id']}/rotate", json={"overlap_s": 60})
        token = await login(gateway, operator)
    session = (await use(gateway, token)).json()
    left = "SELECT expires_at <= now() + interval '60 s' FROM api_keys WHERE id = $1"
    assert await gateway.database.fetchval(left, session["key_id"])


@browser.needed
async def test_a_browser_is_logged_in_once_and_its_address_keeps_no_token(
    two: tuple[RunningGateway, RunningGateway], tmp_path: Path
) -> None:
    gateway, _ = two
    url = f"{gateway.url}/console/login#{await login(gateway)}"
    async with browser.open_page(tmp_path) as page:
        await page.call("Page.navigate", url=url)
        await page.until("location.pathname === '/console/status' && document.readyState === 'complete'")
        assert await page.run("location.hash") == ""
        assert await page.run("document.getElementById('door').hidden")
        key = await page.run("sessionStorage.getItem('tickwire-key')")
        async with gateway.client(key) as console:
            assert (await console.get("/v1/admin/parked")).status_code != 401
        history = (await page.call("Page.getNavigationHistory"))["entries"]
        assert "tw_login_" not in json.dumps(history)

        await page.run("sessionStorage.clear()")
        await page.call("Page.navigate", url="about:blank")
        await page.call("Page.navigate", url=url)
        await page.until("document.getElementById('notice')?.innerText.includes('was used before')")
        assert "make login" in await page.text("#notice")
        assert await page.run("location.hash") == ""
        assert await page.run("sessionStorage.length") == 0
        assert page.complaints == []

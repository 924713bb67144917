"""Pages of other origins: those that are listed may call the API, others may not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support import browser
from support.gateway_stack import House, RunningGateway

LISTED, FOREIGN = "https://app.example.com", "https://evil.example.com"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-encoding,content-type,idempotency-key",
}
SiteOpener = Callable[[], Awaitable[str]]


@pytest.fixture
async def site() -> AsyncIterator[SiteOpener]:
    """Yield a function that serves an empty page and returns its origin."""
    async with AsyncExitStack() as stack:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n"
            writer.write(f"{head}content-length: 14\r\n\r\n<title></title".encode())
            await writer.drain()
            writer.close()

        async def open_site() -> str:
            server = await stack.enter_async_context(await asyncio.start_server(answer, "127.0.0.1", 0))
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield open_site


@pytest.fixture(scope="module")
async def open_listener(module_house: House) -> RunningGateway:
    """Return a gateway that lets one origin in."""
    return await module_house.open(cors_origins=LISTED)


async def test_a_preflight_of_a_listed_origin_needs_no_key(open_listener: RunningGateway) -> None:
    headers = {"origin": LISTED, "authorization": "", **PREFLIGHT}
    answer = await open_listener.api.options("/v1/emails", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == LISTED
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "idempotency-key" in answer.headers["access-control-allow-headers"].lower()
    assert answer.headers["x-request-id"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/me", "/v1/users/999999", "/nowhere", "/v1/emails?page=2"])
async def test_answers_and_problems_can_be_read_by_a_listed_origin(
    open_listener: RunningGateway, path: str
) -> None:
    answer = await open_listener.api.get(path, headers={"origin": LISTED})
    assert answer.headers["access-control-allow-origin"] == LISTED
    assert "origin" in answer.headers["vary"].lower()
    exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
    limits = {"RateLimit", "RateLimit-Policy", "Retry-After"}
    results = {"Preference-Applied", "Upload-Offset", "X-Next-Cursor", "X-Results-Complete"}
    assert exposed == {"Location", "ETag", "X-Request-Id", "Idempotent-Replayed", *limits, *results}


async def test_without_a_key_the_challenge_can_be_read_too(open_listener: RunningGateway) -> None:
    answer = await open_listener.api.get("/v1/me", headers={"origin": LISTED, "authorization": ""})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, LISTED)


async def test_a_foreign_origin_is_allowed_nothing(open_listener: RunningGateway) -> None:
    asked = await open_listener.api.options("/v1/emails", headers={"origin": FOREIGN, **PREFLIGHT})
    assert asked.status_code == 400
    read = await open_listener.api.get("/v1/me", headers={"origin": FOREIGN})
    for answer in (asked, read):
        assert "access-control-allow-origin" not in answer.headers


async def test_no_origin_is_allowed_by_default(listener: RunningGateway) -> None:
    answer = await listener.api.options("/v1/emails", headers={"origin": LISTED, **PREFLIGHT})
    assert (answer.status_code, "allow" in answer.headers) == (204, True)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/v1/realtime", "/ws"])
async def test_a_websocket_is_opened_by_pages_of_listed_origins_only(
    open_listener: RunningGateway, path: str
) -> None:
    address = f"{open_listener.socket_url}{path}"
    key = {"authorization": f"Bearer {open_listener.admin_key}"}
    for origin in (LISTED, open_listener.url, None):
        async with connect(address, origin=origin, additional_headers=key, proxy=None):  # type: ignore[arg-type]
            pass
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, origin=FOREIGN, additional_headers=key, proxy=None)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    assert b"GATEWAY_CORS_ORIGINS" in refused.value.response.body


@browser.needed
async def test_a_browser_lets_a_page_do_what_its_origin_may(
    house: House, site: SiteOpener, tmp_path_factory: pytest.TempPathFactory
) -> None:
    listed, foreign = await site(), await site()
    listener = await house.open(cors_origins=listed)
    headers = {
        "authorization": f"Bearer {listener.admin_key}",
        "content-type": "application/json",
        "idempotency-key": "from-a-page",
    }
    request = {"method": "POST", "body": '{"name":"from-a-page"}', "headers": headers}
    read = (
        f"fetch('{listener.url}/v1/rooms', {json.dumps(request)})"
        ".then(a => [a.status, a.headers.get('location'), !!a.headers.get('x-request-id')])"
    )
    stream = (
        f"fetch('{listener.url}/v1/stocks/stream?symbols=A', {{headers: {json.dumps(headers)}}})"
        ".then(a => a.status, () => 'blocked')"
    )
    socket = (
        f"new Promise(done => {{ const s = new WebSocket('{listener.socket_url}/v1/realtime');"
        " s.onopen = () => done('open'); s.onerror = () => done('refused'); })"
    )
    async with browser.open_page(tmp_path_factory.mktemp("browser")) as page:
        await page.go(f"{listed}/")
        assert await page.run(read) == [201, "/v1/rooms/from-a-page", True]
        assert await page.run(socket) == "open"
        await page.go(f"{foreign}/")
        assert await page.run(f"{read}.catch(() => 'blocked')") == "blocked"
        assert await page.run(stream) == "blocked"
        assert await page.run(socket) == "refused"

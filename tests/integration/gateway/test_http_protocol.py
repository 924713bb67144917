"""Raw bytes that are no valid HTTP are refused with a named problem, and affect nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest
import websockets

from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]

HOST = b"Host: x\r\n"
UPGRADE = b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
POST = b"POST /v1/rooms HTTP/1.1\r\nHost: x\r\n"


@asynccontextmanager
async def connected(
    listener: RunningGateway,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = listener.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer_to(listener: RunningGateway, request: bytes) -> bytes:
    """Return the bytes that the gateway sends until it closes."""
    async with connected(listener) as (reader, writer), asyncio.timeout(20):
        writer.write(request)
        return await reader.read()


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", "malformed-request"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "malformed-request"),
        (b"GET /healthz HTTP/1.1\r\nHost: a b/c\r\n\r\n", "malformed-request"),
        (b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", "malformed-request"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", "malformed-request"),
        (b"GET /healthz HTTP/1.1\nHost: x\n\n", "malformed-request"),
        (b"GET /healthz\r\n", "malformed-request"),
        (b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n", "http-version-not-supported"),
        (b"GET /healthz HTTP/0.9\r\n" + HOST + b"\r\n", "http-version-not-supported"),
        (b"FOO /healthz HTTP/1.1\r\n" + HOST + b"\r\n", "not-implemented"),
        (b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n", "not-implemented"),
        (b"GET /" + b"x" * 65_536 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "uri-too-long"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100 + b"\r\n", "request-header-fields-too-large"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 65_536, "request-header-fields-too-large"),
        (POST + b"Content-Length: " + b"0" * 5000 + b"2\r\n\r\n{}", "malformed-request"),
        (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", "malformed-request"),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "malformed-request"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "not-implemented"),
        (POST + b"Expect: 200-ok\r\n\r\n", "expectation-failed"),
        (UPGRADE + b"\r\n", "upgrade-required"),
        (UPGRADE + b"Sec-WebSocket-Version: 13\r\n\r\n", "malformed-request"),
        (UPGRADE + KEY + b"Sec-WebSocket-Version: 8\r\n\r\n", "upgrade-required"),
        (UPGRADE + KEY + b"Sec-WebSocket-Version: 13\r\nContent-Length: 5\r\n\r\n", "malformed-request"),
        (UPGRADE + KEY + b"Sec-WebSocket-Version: 13\r\n\r\n\x81\x00", "malformed-request"),
    ],
)
async def test_a_request_that_is_not_http_gets_a_problem_document(
    listener: RunningGateway, request_bytes: bytes, code: str
) -> None:
    head, _, body = (await answer_to(listener, request_bytes)).partition(b"\r\n\r\n")
    problem = orjson.loads(body)
    lines = head.split(b"\r\n")
    assert problem["type"] == f"/problems/{code}"
    assert lines[0].startswith(b"HTTP/1.1 %d " % problem["status"])
    assert b"content-type: application/problem+json" in lines
    upgrade = b", upgrade" if code == "upgrade-required" else b""
    assert b"connection: close" + upgrade in lines
    assert b"x-content-type-options: nosniff" in lines
    assert b"x-request-id: %b" % problem["instance"].encode() in lines
    assert body.endswith(b"}\n")


@pytest.mark.parametrize("path", ["/v1/realtime", "/ws"])
async def test_a_request_without_an_upgrade_learns_which_one_is_required(
    listener: RunningGateway, path: str
) -> None:
    answer = await listener.api.get(path)
    assert_problem(answer, 426, "upgrade-required")
    assert (answer.headers["upgrade"], answer.headers["connection"]) == ("websocket", "upgrade")


async def test_an_encoded_slash_is_not_found(listener: RunningGateway) -> None:
    answer = await listener.api.get(httpx.URL(listener.url, raw_path=b"/v1%2Fadmin%2fstatus"))
    assert answer.status_code == 404
    for path in (b"/v1%2frealtime", b"/v1/re%61ltime", b"/v1/realtime/"):
        await refuse_upgrade(listener, path)


async def refuse_upgrade(listener: RunningGateway, path: bytes) -> None:
    async with connected(listener) as (reader, writer), asyncio.timeout(20):
        writer.write(
            b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "path",
    [
        *(b"//v1/me", b"///v1/me", b"/v1//me", b"/v1/./me", b"/v1/x/../me", b"/v1/me;x", b"/v1/me/"),
        *(b"/v1/%6de", b"/v1/m%65", b"/%76%31/me", b"/v%31/me", b"/v1/%2e/me", b"/v1%2Fme"),
        *(b"/v1/users/01", b"/v1/users/%D9%A1", b"/v1/users/+1", b"/v1/users/" + b"9" * 400),
    ],
)
async def test_a_path_has_one_spelling_only(listener: RunningGateway, path: bytes) -> None:
    key = f"Authorization: Bearer {listener.admin_key}".encode()
    answer = await answer_to(
        listener, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + key + b"\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("GET", "Accept"),
        ("GET", "If-None-Match"),
        ("GET", "Prefer"),
        ("PATCH", "If-Match"),
        ("PATCH", "Content-Type"),
    ],
)
async def test_a_header_that_is_parsed_has_a_length_limit(
    listener: RunningGateway, method: str, name: str
) -> None:
    body, required = (b"{}", {"If-Match": '"1"'}) if method == "PATCH" else (b"", {})
    answers = [
        await listener.api.request(
            method,
            "/v1/users/1",
            headers={**required, name: ",".join(['"a/b"'] * parts)},
            content=body,
        )
        for parts in (4, 1000)
    ]
    assert [answer.status_code == 431 for answer in answers] == [False, True]
    assert answers[1].json()["type"] == "/problems/request-header-fields-too-large"


async def test_a_refused_body_is_not_asked_for_and_ends_the_connection(listener: RunningGateway) -> None:
    answer = await answer_to(listener, POST + b"Content-Length: 1000\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in answer


async def send_without_end(writer: asyncio.StreamWriter, part: bytes, *, total_bytes: int) -> None:
    with contextlib.suppress(ConnectionError):
        for _ in range(total_bytes // len(part)):
            writer.write(part)
            await writer.drain()


async def one_header_of_64_mib(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ")
    await send_without_end(writer, b"x" * 65_536, total_bytes=64 << 20)


async def a_hundred_thousand_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    await send_without_end(writer, b"A: b\r\n" * 1000, total_bytes=600_000)


async def a_dripping_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ")
    await send_without_end(writer, b"x", total_bytes=20_000)


async def a_body_after_its_refusal(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await send_without_end(writer, b"10000\r\n" + b"x" * 65_536 + b"\r\n", total_bytes=400 << 20)


async def a_million_tiny_chunks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await send_without_end(writer, b"1\r\nx\r\n" * 10_000, total_bytes=6_000_000)


async def a_thousand_requests_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
    for _ in range(1000):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))


@pytest.mark.parametrize(
    "attack",
    [
        one_header_of_64_mib,
        a_hundred_thousand_headers,
        a_dripping_head,
        a_body_after_its_refusal,
        a_million_tiny_chunks,
        a_thousand_requests_at_once,
    ],
    ids=lambda attack: attack.__name__,
)
async def test_other_clients_are_served_while_one_floods_its_connection(
    listener: RunningGateway, attack: Attack
) -> None:
    async with connected(listener) as (reader, writer):
        attacking = asyncio.create_task(attack(reader, writer))
        served = 0
        while not attacking.done() or not served:
            assert (await listener.api.get("/v1/me")).status_code == 200
            served += 1
        await attacking


async def test_a_connection_with_a_key_leaves_its_place_to_those_without(house: House) -> None:
    listener = await house.open(most_connections=16, connections_per_address=16)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(listener.client(listener.admin_key)) for _ in range(6)]
        for client in clients:
            assert (await client.get("/v1/me")).status_code == 200
        idle = [await stack.enter_async_context(connected(listener)) for _ in range(4)]
        # Whoever holds connections of an address without a key keeps nobody at the same address out.
        newcomer = await stack.enter_async_context(listener.client(listener.admin_key))
        assert (await newcomer.get("/v1/me")).status_code == 200
        first_reader, _ = idle[0]
        assert await asyncio.wait_for(first_reader.read(), 20) == b""
        for client in clients:
            assert (await client.get("/v1/me")).status_code == 200


async def test_an_owner_with_idle_connections_leaves_room_for_others_of_the_same_address(
    house: House,
) -> None:
    listener = await house.open(most_connections=16, connections_per_address=16)
    theirs = await listener.new_key("quotes:read", user_id=await listener.new_user())
    async with contextlib.AsyncExitStack() as stack:
        mine = [await stack.enter_async_context(listener.client(listener.admin_key)) for _ in range(20)]
        answers = [await client.get("/v1/me") for client in mine]
        over = [answer for answer in answers if answer.status_code != 200]
        assert over
        for answer in over:
            assert_problem(answer, 429, "too-many-connections")
        async with listener.client(theirs) as other:
            assert (await other.get("/v1/me")).status_code == 200
        socket_url = f"{listener.socket_url}/v1/realtime"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(
                socket_url, additional_headers={"Authorization": f"Bearer {listener.admin_key}"}, proxy=None
            )
        assert refused.value.response.status_code == 429

"""Uploads that trickle: their clients get 408 and are cut off, and the resources they held are released."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import uuid4

import pytest

from gateway.http import permitted, reading
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.upload_site import UploadSite, uploaded
from support.waiting import until

LINE = b'{"payload":1}\n'
FILE, LINES = "application/octet-stream", "application/x-ndjson"


@pytest.fixture(scope="module")
async def listener(module_house: House, site: UploadSite) -> RunningGateway:
    """Return a gateway whose clients bring a kilobyte within a second."""
    return await module_house.open(email_url=site.url, limits={"body_window_s": 1.0})


@pytest.fixture(scope="module")
async def usual_listener(module_house: House, site: UploadSite) -> RunningGateway:
    """Return a gateway with the default limits, for which no test here is too slow."""
    return await module_house.open(email_url=site.url)


async def trickle(
    listener: RunningGateway,
    method: str,
    path: str,
    media_type: str,
    *,
    key: str = "",
    part: bytes = b"a",
    request_timeout: str = "",
    credential: str = "",
) -> bytes:
    """Send `part` every 20 ms as a body without an end; return everything that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rsplit(":", 1)[1]))
    fields = [
        f"{method} {path} HTTP/1.1",
        "Host: gateway",
        f"Authorization: Bearer {credential or listener.admin_key}",
        f"Content-Type: {media_type}",
        "Transfer-Encoding: chunked",
        *([f"Idempotency-Key: {key}"] if key else []),
        *([f"Request-Timeout: {request_timeout}"] if request_timeout else []),
    ]
    writer.write("\r\n".join([*fields, "", ""]).encode())

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await writer.drain()
                await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    try:
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()
        await dripping


async def opened(listener: RunningGateway) -> str:
    made = await listener.api.post("/v1/batches?open=true", json={"operation": "echo"})
    assert made.status_code == 202, made.text
    return f"/v1/batches/{made.json()['id']}"


async def is_free(listener: RunningGateway, key: str) -> bool:
    claimed = "SELECT count(*) FROM idempotency WHERE key = $1"
    return bool(await listener.database.fetchval(claimed, key) == 0)


async def test_a_file_that_trickles_is_408_and_leaves_nothing(
    listener: RunningGateway, site: UploadSite
) -> None:
    key = str(uuid4())
    answer = await trickle(listener, "POST", "/v1/uploads", FILE, key=key)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/request-timeout" in answer
    await until(lambda: is_free(listener, key))
    await until(site.is_idle)
    assert not listener.gateway.resources.uploads.at_work
    assert (await uploaded(listener.api, b"whole", **{"idempotency-key": key})).status_code == 201


async def test_lines_that_trickle_are_408_and_their_key_is_free(listener: RunningGateway) -> None:
    key = str(uuid4())
    answer = await trickle(listener, "POST", "/v1/batches?operation=echo", LINES, key=key, part=b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    await until(lambda: is_free(listener, key))
    headers = {"content-type": LINES, "idempotency-key": key}
    again = await listener.api.post("/v1/batches?operation=echo", content=LINE, headers=headers)
    assert again.status_code == 202


async def test_an_open_upload_whose_writer_trickles_goes_on_with_another_writer(
    listener: RunningGateway,
) -> None:
    path = await opened(listener)
    answer = await trickle(listener, "PUT", f"{path}/items?offset=0", LINES, part=b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")

    async def goes_on() -> bool:
        at = (await listener.api.get(f"{path}/upload")).json()["offset"]
        appended = await listener.api.put(
            f"{path}/items?offset={at}", content=b"\n" + LINE, headers={"content-type": LINES}
        )
        return appended.status_code == 200

    await until(goes_on)


@pytest.mark.parametrize(
    ("method", "path", "media_type"),
    [
        ("POST", "/v1/uploads", FILE),
        ("POST", "/v1/batches?operation=echo", LINES),
        ("PUT", "open", LINES),
    ],
)
async def test_an_upload_that_keeps_its_rate_has_a_total_time_limit(
    usual_listener: RunningGateway,
    site: UploadSite,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    media_type: str,
) -> None:
    monkeypatch.setattr(reading, "UPLOAD_BASE_S", 2.0)
    monkeypatch.setattr(reading, "UPLOAD_BYTES_A_SECOND", 1 << 40)
    where = f"{await opened(usual_listener)}/items?offset=0" if path == "open" else path
    answer = await trickle(usual_listener, method, where, media_type, part=b" " * 1023 + b"\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/upload-stalled" in answer
    await until(site.is_idle)
    assert not usual_listener.gateway.resources.uploads.at_work


@pytest.mark.parametrize(
    ("method", "path", "media_type"),
    [
        ("POST", "/v1/uploads", FILE),
        ("POST", "/v1/batches?operation=echo", LINES),
        ("PUT", "open", LINES),
    ],
)
async def test_an_upload_ends_when_the_time_has_passed_that_its_caller_allows(
    usual_listener: RunningGateway, site: UploadSite, method: str, path: str, media_type: str
) -> None:
    where, key = path, str(uuid4()) if method == "POST" else ""
    if path == "open":
        where = f"{await opened(usual_listener)}/items?offset=0"
    answer = await trickle(
        usual_listener, method, where, media_type, key=key, part=b" " * 1023 + b"\n", request_timeout="0.5"
    )
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"/problems/deadline-exceeded" in answer
    await until(lambda: is_free(usual_listener, key))
    await until(site.is_idle)
    assert not usual_listener.gateway.resources.uploads.at_work


@pytest.mark.parametrize(
    ("method", "path", "media_type", "scope"),
    [
        ("POST", "/v1/uploads", FILE, "emails:send"),
        ("POST", "/v1/batches?operation=echo", LINES, "batches:write"),
        ("PUT", "open", LINES, "batches:write"),
    ],
)
async def test_an_upload_ends_when_its_key_is_revoked(
    usual_listener: RunningGateway,
    site: UploadSite,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    media_type: str,
    scope: str,
) -> None:
    monkeypatch.setattr(permitted, "CHECK_EVERY_S", 0.05)
    where = f"{await opened(usual_listener)}/items?offset=0" if path == "open" else path
    key = await usual_listener.new_key(scope, user_id=1)
    part = b" " * 1023 + b"\n"
    sending = asyncio.create_task(
        trickle(usual_listener, method, where, media_type, part=part, credential=key)
    )
    resources = usual_listener.gateway.resources
    await until(lambda: resources.uploads.at_work + resources.upload_turns.at_work)
    await usual_listener.api.delete(f"/v1/api-keys/{key[8:24]}")
    assert (await sending).startswith(b"HTTP/1.1 401 ")
    await until(site.is_idle)


async def test_an_upload_refuses_a_time_that_is_none(usual_listener: RunningGateway) -> None:
    headers = {"content-type": LINES, "request-timeout": "soon"}
    answer = await usual_listener.api.post("/v1/batches?operation=echo", content=LINE, headers=headers)
    assert_problem(answer, 422, "invalid-input")


async def test_a_document_that_does_not_come_in_time_is_408(usual_listener: RunningGateway) -> None:
    answer = await trickle(
        usual_listener, "POST", "/v1/tasks", "application/json", part=b" " * 1024, request_timeout="2"
    )
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/request-timeout" in answer


async def test_large_documents_that_trickle_leave_room_for_those_of_others(
    usual_listener: RunningGateway,
) -> None:
    key = await usual_listener.new_key("batches:write", user_id=await usual_listener.new_user())
    task = {"operation": "echo", "payload": "x" * 100_000}
    slow = [
        asyncio.create_task(
            trickle(
                usual_listener, "POST", "/v1/tasks", "application/json", part=b" " * 512, request_timeout="30"
            )
        )
        for _ in range(30)
    ]

    async def is_full() -> bool:
        answer = await usual_listener.api.post("/v1/tasks", json=task, headers={"request-timeout": "0.3"})
        return answer.status_code == 429

    await until(is_full)
    async with usual_listener.client(key) as other:
        assert (await other.post("/v1/tasks", json=task)).status_code == 202
    # Small ones of the same owner need no room.
    assert (
        await usual_listener.api.post("/v1/tasks", json={"operation": "echo", "payload": 1})
    ).status_code == 202
    assert not any(client.done() for client in slow)
    for client in slow:
        client.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert (await usual_listener.api.post("/v1/tasks", json=task)).status_code == 202

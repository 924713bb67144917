"""Valid HTTP, and whatever else comes over a connection: none of it is answered with a 500."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.gateway_stack import RunningGateway
from support.problems import assert_problem

JSON = {"content-type": "application/json"}
ID = "018f0000-0000-7000-8000-000000000000"


async def raw(listener: RunningGateway, request: bytes) -> bytes:
    """Send bytes as they are; return the bytes that the gateway sends until it closes."""
    host, port = listener.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def head(listener: RunningGateway, line: bytes, *lines: bytes) -> bytes:
    key = f"authorization: Bearer {listener.admin_key}".encode()
    return b"\r\n".join([line + b" HTTP/1.1", key, b"connection: close", *lines, b"", b""])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/me",
        "/v1/users",
        "/v1/users/1",
        "/v1/api-keys",
        "/v1/rooms",
        "/v1/rooms/lobby/messages",
        "/healthz",
    ],
)
async def test_head_is_get_without_the_body(listener: RunningGateway, path: str) -> None:
    get, head = await listener.api.get(path), await listener.api.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/users", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("POST", "/v1/me", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/send-email", {"OPTIONS", "POST"}),
        ("TRACE", "/v1/me", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_another_method_is_405_with_allow(
    listener: RunningGateway, method: str, path: str, allowed: set[str]
) -> None:
    answer = await listener.api.request(method, path)
    assert_problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/v2/me", "/v1/me/x", "/v1//me", "/v1/batches/not-an-id"])
async def test_an_unknown_address_is_404_and_never_a_redirect(listener: RunningGateway, path: str) -> None:
    assert_problem(await listener.api.get(listener.url + path), 404, "not-found")


@pytest.mark.parametrize(
    "path", ["/v1/emails", "/v1/batches", "/v1/tasks", "/v1/users", "/v1/rooms", "/send-email"]
)
async def test_bodies_are_json_of_up_to_one_mib(listener: RunningGateway, path: str) -> None:
    plain = await listener.api.post(path, content=b"{}", headers={"content-type": "text/plain"})
    assert_problem(plain, 415, "unsupported-media-type")
    assert_problem(await listener.api.post(path, content=b"{", headers=JSON), 400, "malformed-input")
    assert_problem(
        await listener.api.post(path, content=b" " * (1 << 21), headers=JSON), 413, "payload-too-large"
    )

    async def chunked() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    assert_problem(await listener.api.post(path, content=chunked(), headers=JSON), 413, "payload-too-large")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/me"),
        ("DELETE", "/v1/api-keys/0123456789abcdef"),
        ("POST", "/v1/emails/0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11/resend"),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_that_would_be_ignored_is_refused(
    listener: RunningGateway, method: str, path: str, is_chunked: bool
) -> None:
    async def parts() -> Any:
        yield b'{"sure":true}'

    content: Any = parts() if is_chunked else b'{"sure":true}'
    answer = await listener.api.request(method, path, content=content, headers=JSON)
    assert_problem(answer, 422, "invalid-input")


@pytest.mark.parametrize("charset", ["utf-16", "latin-1"])
async def test_json_in_another_charset_than_utf_8_is_415(listener: RunningGateway, charset: str) -> None:
    headers = {"content-type": f"application/json; charset={charset}"}
    answer = await listener.api.post("/v1/rooms", content=b'{"name":"charset"}', headers=headers)
    assert_problem(answer, 415, "unsupported-media-type")


async def test_json_that_says_it_is_utf_8_is_taken(listener: RunningGateway) -> None:
    headers = {"content-type": 'Application/JSON; charset="UTF-8"'}
    answer = await listener.api.post("/v1/rooms", content=b'{"name":"charset"}', headers=headers)
    assert answer.status_code == 201


async def test_a_large_body_that_is_not_read_does_not_hide_the_refusal(listener: RunningGateway) -> None:
    async with httpx.AsyncClient(base_url=listener.url) as client:
        answer = await client.post("/v1/emails", content=b"x" * (1 << 20), headers=JSON)
    assert_problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize(
    "host",
    [b"x", b"a" * 70 + b".example", b"..", b"[::1]:80", b"evil.example:65535", b"127.0.0.1:"],
)
async def test_nothing_depends_on_the_host_header(listener: RunningGateway, host: bytes) -> None:
    answer = await raw(listener, head(listener, b"GET /v1/me", b"host: " + host))
    assert answer.startswith(b"HTTP/1.1 200 "), answer


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        (b"GET /v1/stocks/\xff", (400,)),
        (b"GET /v1/stocks/%FF", (422,)),
        (b"GET /v1/stocks/search?q=\xff", (400,)),
        (b"GET /v1/users?cursor=%FF", (422,)),
        (b"GET http://elsewhere/v1/me", (200, 400)),
        (b"GET http://elsewhere", (200,)),
        (b"OPTIONS *", (204,)),
        (b"BREW /v1/me", (501,)),
        (b"GET /v1/realtime", (426,)),
        (b"GET /" + b"x" * 8_000, (404,)),
        (b"GET /" + b"x" * 60_000, (414,)),
    ],
)
async def test_an_odd_request_line_gets_the_status_that_names_its_fault(
    listener: RunningGateway, line: bytes, statuses: tuple[int, ...]
) -> None:
    answer = await raw(listener, head(listener, line, b"host: x"))
    assert int(answer.split(b" ")[1]) in statuses, answer[:300]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/users", b'{"name":"a\\u0000","email":"a@example.com"}'),
        (
            "POST",
            "/process-batch",
            b'{"batches":[{"custom_id":"a","payload":1},{"custom_id":"a","payload":1}]}',
        ),
        ("POST", "/process-data", b'{"items":[{"custom_id":7,"payload":1}]}'),
        ("POST", "/v1/api-keys", b'{"name":"a","scopes":["admin"],"user_id":99999999999999999999}'),
        ("POST", "/v1/api-keys", b'{"name":"a","scopes":["admin"],"user_id":999999}'),
        ("POST", "/v1/rooms/lobby/messages", b'{"text":"a\\u0000"}'),
        ("POST", "/v1/rooms/lobby/messages", b'{"text":" "}'),
        ("POST", "/v1/tasks", b'{"operation":"echo","payload":' + b"[" * 100 + b"]" * 100 + b"}"),
        ("GET", "/v1/rooms?cursor=%00", b""),
        ("GET", "/v1/rooms/lobby/messages?cursor=9999999999999999999", b""),
        ("GET", "/v1/stocks?symbols=%00", b""),
        ("GET", "/v1/stocks/search?q=%00", b""),
        ("GET", "/v1/batches?cursor=%00", b""),
    ],
)
async def test_a_value_that_no_store_could_keep_is_invalid_input(
    listener: RunningGateway, method: str, path: str, body: bytes
) -> None:
    assert_problem(await listener.api.request(method, path, content=body, headers=JSON), 422, "invalid-input")


@pytest.mark.parametrize("body", [b'1,"x":2', b'1}{"x":2', b"NaN", b"Infinity", b"'a'"])
async def test_a_body_that_is_not_strict_json_is_refused(listener: RunningGateway, body: bytes) -> None:
    answer = await listener.api.post("/enqueue-task", content=body, headers=JSON)
    assert_problem(answer, 400, "malformed-input")


@pytest.mark.parametrize("room", ["%00", "Lobby", "lobby%0A", "x" * 65, "%C3%A9"])
async def test_an_invalid_room_name_is_not_found(listener: RunningGateway, room: str) -> None:
    assert_problem(await listener.api.get(f"/v1/rooms/{room}/messages"), 404, "not-found")
    assert_problem(
        await listener.api.post(f"/v1/rooms/{room}/messages", json={"text": "x"}), 404, "not-found"
    )


ROUTES = [
    ("GET", "/v1/me"),
    ("GET", "/v1/users/{}"),
    ("PATCH", "/v1/users/{}"),
    ("POST", "/v1/users"),
    ("POST", "/v1/api-keys"),
    ("DELETE", "/v1/api-keys/{}"),
    ("GET", "/v1/stocks/{}"),
    ("GET", "/v1/stocks/{}/bars"),
    ("POST", "/v1/emails"),
    ("GET", "/v1/emails/{}"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches/{}/results"),
    ("POST", "/v1/batches/{}/cancel"),
    ("POST", "/v1/tasks"),
    ("GET", "/v1/rooms/{}/messages"),
    ("POST", "/v1/rooms"),
    ("POST", "/v1/rooms/{}/messages"),
    ("POST", "/send-email"),
    ("POST", "/process-batch"),
    ("POST", "/enqueue-task"),
    ("GET", "/user/{}"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=10)
    | st.sampled_from(["echo", "a@example.com"]),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [
    "to",
    "from",
    "subject",
    "text",
    "html",
    "headers",
    "attachments",
    "name",
    "email",
    "role",
    "scopes",
]
FIELDS += [
    "user_id",
    "expires_at",
    "operation",
    "items",
    "options",
    "payload",
    "delay_s",
    "priority",
    "unique_key",
]
FIELDS += ["batches", "body", "send_at", "metadata", "tags"]
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6) | VALUES
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "idempotency-key",
            "prefer",
            "request-timeout",
            "accept",
            "traceparent",
            "x-request-id",
            "if-none-match",
        ]
    ),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20),
    max_size=3,
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    route=st.sampled_from(ROUTES),
    part=st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["1", "lobby", "AAPL", ID]),
    query=st.dictionaries(
        st.sampled_from(["limit", "cursor", "start", "format", "status", "q", "x"]),
        st.text(max_size=8),
        max_size=2,
    ),
    body=BODIES,
    headers=HEADERS,
)
async def test_no_request_is_answered_with_a_500(
    listener: RunningGateway,
    route: tuple[str, str],
    part: str,
    query: dict[str, str],
    body: Any,
    headers: dict[str, str],
) -> None:
    method, template = route
    answer = await listener.api.request(
        method,
        template.format(quote(part, safe="")),
        params=query if method == "GET" and query else None,
        json=body if method in ("POST", "PATCH") else None,
        headers=[(name.encode(), value.strip().encode("latin-1")) for name, value in headers.items()],
    )
    # Nobody else runs here: 503 is the honest answer to a question for another service.
    assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text

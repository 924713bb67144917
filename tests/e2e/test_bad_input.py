"""Invalid input is answered with a problem document that names the field, and nothing is left behind."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from native.stack import Stack
from support.problems import assert_problem
from support.waiting import until

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
MAIL = {"to": ["a@example.com"], "subject": "s", "text": "t"}


@pytest.mark.parametrize("path", ["/v1/emails", "/v1/batches", "/v1/tasks", "/v1/users", "/send-email"])
@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"[1,2"])
async def test_malformed_json_is_refused(api: httpx.AsyncClient, path: str, body: bytes) -> None:
    assert_problem(await api.post(path, content=body, headers=JSON), 400, "malformed-input")


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/emails", {**MAIL, "to": 7}, "/to"),
        ("/v1/emails", {**MAIL, "subject": 7}, "/subject"),
        ("/v1/emails", {**MAIL, "surprise": 1}, "/surprise"),
        ("/v1/emails", {**MAIL, "send_at": "tomorrow"}, "/send_at"),
        ("/v1/batches", {"operation": "echo", "items": {}}, "/items"),
        ("/v1/batches", {"operation": "echo", "items": []}, "/items"),
        ("/v1/batches", {"operation": 5, "items": [1]}, "/operation"),
        ("/v1/tasks", {"operation": "echo", "delay_s": -1}, "/delay_s"),
        ("/v1/tasks", {"operation": "echo", "priority": "high"}, "/priority"),
        ("/v1/users", {"name": "x", "email": "nope"}, "/email"),
        ("/v1/api-keys", {"name": "x", "scopes": ["everything"]}, "/scopes/0"),
        ("/v1/rooms", {"name": "No Spaces"}, "/name"),
    ],
)
async def test_wrong_types_name_the_field(api: httpx.AsyncClient, path: str, body: Any, pointer: str) -> None:
    assert_problem(await api.post(path, json=body), 422, "invalid-input", pointer)


@pytest.mark.parametrize(
    "bad",
    ["", "plain", "a@", "@b.example", "a b@example.com", "a@exa mple.com", "a@b@c.example", "a@-x-.com"],
)
async def test_an_invalid_address_is_named(api: httpx.AsyncClient, bad: str) -> None:
    answer = await api.post("/v1/emails", json={**MAIL, "to": ["ok@example.com", bad]})
    assert_problem(answer, 422, "invalid-input", "/to/1")


@pytest.mark.parametrize(
    "separator", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0"]
)
async def test_header_injection_is_refused(api: httpx.AsyncClient, separator: str) -> None:
    evil = f"hello{separator}Bcc: victim@example.com"
    assert_problem(
        await api.post("/v1/emails", json={**MAIL, "subject": evil}), 422, "invalid-input", "/subject"
    )
    answer = await api.post("/v1/emails", json={**MAIL, "headers": {"X-Note": evil}})
    assert_problem(answer, 422, "invalid-input", "/headers/X-Note")
    answer = await api.post("/v1/emails", json={**MAIL, "to": [f"A{separator} <a@example.com>"]})
    assert_problem(answer, 422, "invalid-input", "/to/0")


async def test_an_unknown_symbol_is_not_found(api: httpx.AsyncClient) -> None:
    assert_problem(await api.get("/v1/stocks/NOPE"), 404, "unknown-symbol")
    assert_problem(await api.get("/v1/stocks/NOPE/bars"), 404, "unknown-symbol")
    assert_problem(await api.get("/v1/stocks/no%20pe"), 422, "invalid-input")


@pytest.mark.parametrize("path", ["/v1/emails", "/v1/batches", "/v1/users"])
async def test_a_body_of_10_mb_is_too_large(api: httpx.AsyncClient, path: str) -> None:
    body = b'{"x":"' + b"a" * 10_000_000 + b'"}'
    assert_problem(await api.post(path, content=body, headers=JSON), 413, "payload-too-large")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Bearer tw_live_{'0' * 16}_{'A' * 43}"},
        {"Authorization": "Basic YTpi"},
        {"X-API-Key": "tw_live_"},
    ],
)
async def test_a_wrong_or_missing_key_is_refused(stack: Stack, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=stack.url) as client:
        answer = await client.get("/v1/me", headers=headers)
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_right_id_with_a_wrong_secret_is_refused(stack: Stack) -> None:
    forged = stack.api_key[:-43] + "A" * 43
    async with httpx.AsyncClient(base_url=stack.url) as client:
        answer = await client.get("/v1/me", headers={"Authorization": f"Bearer {forged}"})
    assert_problem(answer, 401, "unauthenticated")


async def test_a_missing_scope_is_forbidden(reader: httpx.AsyncClient) -> None:
    problem = assert_problem(await reader.post("/v1/emails", json=MAIL), 403, "forbidden")
    assert "emails:send" in problem["detail"]
    batch = {"operation": "echo", "items": [1]}
    assert_problem(await reader.post("/v1/batches", json=batch), 403, "forbidden")
    assert_problem(await reader.get("/v1/users"), 403, "forbidden")


async def test_objects_of_another_owner_are_not_found(
    api: httpx.AsyncClient, reader: httpx.AsyncClient
) -> None:
    email = (await api.post("/v1/emails", json=MAIL)).json()["id"]
    batch = (await api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    for path in (f"/v1/emails/{email}", f"/v1/batches/{batch}", f"/v1/batches/{batch}/results"):
        assert_problem(await reader.get(path), 404, "not-found")
        assert (await api.get(path)).status_code == 200
    assert_problem(await reader.get("/v1/users/1"), 404, "not-found")
    for path in (f"/v1/emails/{uuid4()}", f"/v1/batches/{uuid4()}", f"/v1/tasks/{uuid4()}"):
        assert_problem(await api.get(path), 404, "not-found")


async def test_an_unknown_operation_is_named(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/batches", json={"operation": "mine.bitcoin", "items": [1]})
    problem = assert_problem(answer, 422, "unknown-operation", "/operation")
    assert "echo" in problem["detail"]
    answer = await api.post("/v1/batches?operation=nope", content=b'{"payload":1}\n', headers=NDJSON)
    assert_problem(answer, 422, "unknown-operation", "/operation")
    assert_problem(
        await api.post("/v1/tasks", json={"operation": "nope"}), 422, "unknown-operation", "/operation"
    )


@pytest.mark.parametrize("broken", [b"{broken", b'"text"', b'{"no":"payload"}'])
async def test_a_broken_line_at_5000_leaves_nothing_behind(api: httpx.AsyncClient, broken: bytes) -> None:
    before = {batch["id"] for batch in (await api.get("/v1/batches?limit=200")).json()["data"]}
    upload = [b'{"custom_id":"c%d","payload":%d}' % (n, n) for n in range(6000)]
    upload[4999] = broken
    answer = await api.post("/v1/batches?operation=echo", content=b"\n".join(upload), headers=NDJSON)
    problem = assert_problem(answer, 422, "invalid-input", "/4999")
    assert "Line 5000" in problem["detail"]
    after = {batch["id"] for batch in (await api.get("/v1/batches?limit=200")).json()["data"]}
    assert after == before


async def test_a_custom_id_that_an_upload_repeats_ends_the_batch_before_any_item_runs(
    api: httpx.AsyncClient,
) -> None:
    upload = [b'{"custom_id":"c%d","payload":%d}' % (n % 4999, n) for n in range(6000)]
    answer = await api.post("/v1/batches?operation=echo", content=b"\n".join(upload), headers=NDJSON)
    path = f"/v1/batches/{answer.json()['id']}"

    async def has_failed() -> dict[str, Any] | None:
        batch: dict[str, Any] = (await api.get(path)).json()
        return batch if batch["status"] == "failed" else None

    batch = await until(has_failed)
    assert "5000" in batch["error"]["detail"]
    assert batch["counts"]["succeeded"] == 0


async def test_an_unsupported_method_says_which_are_allowed(api: httpx.AsyncClient) -> None:
    answer = await api.put("/v1/emails", json={})
    assert_problem(answer, 405, "method-not-allowed")
    assert "POST" in answer.headers["allow"]


async def test_an_unsupported_media_type_is_refused(api: httpx.AsyncClient) -> None:
    for path in ("/v1/emails", "/v1/batches", "/v1/tasks"):
        answer = await api.post(path, content=b"<x/>", headers={"Content-Type": "application/xml"})
        assert_problem(answer, 415, "unsupported-media-type")
    answer = await api.get("/v1/stocks/AAPL/bars", headers={"Accept": "image/png"})
    assert_problem(answer, 406, "not-acceptable")


async def test_an_unknown_address_gets_a_problem_document_too(api: httpx.AsyncClient) -> None:
    for path in ("/nope", "/v1/emails/not-a-uuid", "/v1/users/99999999999999999999", "/v1/users/12345"):
        assert_problem(await api.get(path), 404, "not-found")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=many",
        "start=yesterday",
        "start=2013-03-01&end=2013-01-01",
        "adjustment=maybe",
        "surprise=1",
        "cursor=%00",
        "cursor=bm9uc2Vuc2U",
    ],
)
async def test_a_wrong_query_is_refused(api: httpx.AsyncClient, query: str) -> None:
    answer = await api.get(f"/v1/stocks/AAPL/bars?{query}")
    assert_problem(answer, 422, "invalid-cursor" if query == "cursor=bm9uc2Vuc2U" else "invalid-input")

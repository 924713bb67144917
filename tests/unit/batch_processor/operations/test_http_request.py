"""The operation that sends HTTP requests."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from batch_processor.errors import InvalidItem
from batch_processor.items import item_values
from batch_processor.operations.http_request import OPERATION, HttpRequestPayload
from chassis.egress.client import HttpAnswer
from chassis.errors import ServiceError
from contracts.scopes import Scope
from support.operation_world import OperationWorld


def wish(**fields: Any) -> HttpRequestPayload:
    found = item_values.read_payload(
        HttpRequestPayload, orjson.dumps({"url": "https://hooks.example/a", **fields}).decode()
    )
    assert isinstance(found, HttpRequestPayload)
    return found


async def run(world: OperationWorld, answer: HttpAnswer, **fields: Any) -> Any:
    world.answers = [answer]
    return await OPERATION.run(wish(**fields), world.context())


async def test_the_answer_is_the_result(world: OperationWorld) -> None:
    answer = HttpAnswer(201, {"content-type": "text/plain"}, "grüß".encode())
    result = await run(world, answer, method="PUT", headers={"X-Token": "t"}, body="hello")
    assert result == {
        "status": 201,
        "headers": {"content-type": "text/plain"},
        "body": "grüß",
        "encoding": "text",
    }
    [request] = world.fetched
    assert (request.method, request.url, request.body) == ("PUT", "https://hooks.example/a", b"hello")
    assert request.headers["x-token"] == "t"


async def test_content_is_sent_as_json_and_every_attempt_has_the_same_key(world: OperationWorld) -> None:
    for _ in range(2):
        await run(world, HttpAnswer(200, {}, b""), method="POST", content={"n": 1.5})
    first, second = world.fetched
    assert (first.body, first.headers["content-type"]) == (b'{"n":1.5}', "application/json")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


async def test_numbers_of_any_size_are_sent_as_they_are(world: OperationWorld) -> None:
    text = '{"url":"https://hooks.example/","content":{"n":1180591620717411303424,"s":"grüß"}}'
    found = item_values.read_payload(HttpRequestPayload, text)
    world.answers = [HttpAnswer(200, {}, b"")]
    await OPERATION.run(found, world.context())
    assert world.fetched[0].body == '{"n":1180591620717411303424,"s":"grüß"}'.encode()


@pytest.mark.parametrize(
    "headers", [{"X-A": "1", "x-a": "2"}, {"X_Forwarded_For": "192.0.2.1"}, {"content_length": "0"}]
)
def test_a_header_that_a_server_could_read_otherwise_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidItem):
        wish(headers=headers)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a\0b"])
async def test_a_body_that_is_no_text_comes_as_base64(world: OperationWorld, body: bytes) -> None:
    result = await run(world, HttpAnswer(200, {}, body))
    assert result["encoding"] == "base64"
    assert result["body"] in ("//4=", "YQBi")


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (302, "http-client-error", False),
        (404, "http-client-error", False),
        (408, "http-server-error", True),
        (429, "http-server-error", True),
        (500, "http-server-error", True),
        (503, "http-server-error", True),
    ],
)
async def test_a_status_that_is_no_success_fails_the_item(
    world: OperationWorld, status: int, code: str, retryable: bool
) -> None:
    with pytest.raises(ServiceError, match=f"status {status}.*It says: why not") as failed:
        await run(world, HttpAnswer(status, {}, b"why not"))
    assert (failed.value.code, failed.value.retryable) == (code, retryable)
    assert (await run(world, HttpAnswer(status, {}, b""), any_status=True))["status"] == status


async def test_a_redirect_is_reported_and_not_followed(world: OperationWorld) -> None:
    with pytest.raises(ServiceError, match="Redirects are not followed; this one leads to http://127"):
        await run(world, HttpAnswer(302, {"location": "http://127.0.0.1/"}, b""))
    assert len(world.fetched) == 1


async def test_headers_of_the_answer_are_bounded(world: OperationWorld) -> None:
    headers = {f"x-{n}": "v" * 1000 for n in range(100)}
    result = await run(world, HttpAnswer(200, headers, b""))
    assert 10 < len(result["headers"]) < 20


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "ftp://example.com/"},
        {"url": "http://exa mple.com/"},
        {"url": "http://" + "x" * 2048},
        {"method": "CONNECT"},
        {"method": "TRACE"},
        {"headers": {"Host": "x"}},
        {"headers": {"transfer-encoding": "chunked"}},
        {"headers": {"X-Forwarded-For": "127.0.0.1"}},
        {"headers": {"Proxy-Authorization": "x"}},
        {"headers": {"a b": "x"}},
        {"headers": {"a": "x\r\nHost: y"}},
        {"headers": {f"h{n}": "x" for n in range(51)}},
        {"headers": {f"h{n}": "x" * 4000 for n in range(5)}},
        {"body": "x", "content": 1},
        {"body": "x" * (128 * 1024 + 1)},
        {"body": "ü" * (65 * 1024)},
        {"content": "x" * (128 * 1024)},
        {"timeout_s": 0},
        {"timeout_s": 31},
        {"follow_redirects": True},
    ],
    ids=lambda fields: ", ".join(f"{name} {str(value)[:20]!r}" for name, value in fields.items()),
)
def test_a_request_that_could_do_harm_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidItem):
        wish(**fields)


def test_the_operation_is_for_administrators_and_has_time_for_its_longest_request() -> None:
    assert OPERATION.required_scopes == {Scope.ADMIN}
    assert OPERATION.timeout_s > 30

"""Declared endpoints from the request to the answer: reading, refusing, rendering."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from prometheus_client import REGISTRY
from pydantic import BaseModel, ConfigDict, Field

from chassis import shares
from chassis.errors import DeadlineExceeded, Overloaded
from contracts.scopes import Scope
from gateway.http.calls import Call
from gateway.http.endpoints import (
    CONTENT_TAG,
    Answer,
    Endpoint,
    Precondition,
    events,
    get,
    json,
    lines,
    patch,
    post,
)
from gateway.http.principal import Principal
from gateway.http.replies import EVENT_STREAM, NDJSON, Reply
from support.problems import assert_problem
from support.served import authenticate, serving

DECLARED: dict[str, Any] = {"summary": "Do", "tag": "T", "scope": Scope.QUOTES_READ}


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    size: int = Field(default=1, ge=1, le=10)
    at: datetime | None = None


class ThingQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    size: int = Field(default=1, ge=1, le=10)


async def create(_: Call, body: Thing) -> dict[str, Any]:
    return body.model_dump()


async def search(_: Call, query: ThingQuery) -> dict[str, Any]:
    return query.model_dump()


async def find(_: Call, thing_id: UUID, part: Annotated[str, Field(max_length=3)]) -> dict[str, Any]:
    return {"id": thing_id, "part": part}


async def nothing(_: Call) -> dict[str, Any]:
    return {}


async def share(_: Call) -> dict[str, Any]:
    return {"share": shares.current.get()}


async def change(call: Call, body: Thing) -> Reply:
    call.require_match('"2"')
    return Reply(body.name.encode(), etag='"3"')


async def tagged(_: Call) -> Reply:
    return Reply(b"{}\n", etag='"a"')


async def rows(call: Call) -> Reply:
    async def each() -> AsyncIterator[bytes]:
        yield b"1\n"
        await asyncio.sleep(0)
        yield b"2\n"

    return Reply(each(), media_type=NDJSON) if call.media_type == NDJSON else Reply(b"[1,2]\n")


async def stream(_: Call) -> Reply:
    async def each() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"

    return Reply(each(), media_type=EVENT_STREAM)


async def sleep(_: Call) -> None:
    await asyncio.sleep(60)


def endpoints() -> list[Endpoint]:
    return [
        post("/things", create, name="create", answers={201: json(Thing)}, **DECLARED),
        get("/things", search, name="search", answers={200: json(Thing, headers=CONTENT_TAG)}, **DECLARED),
        get("/things/<uuid:thing_id>/<part>", find, name="find", answers={200: json()}, **DECLARED),
        patch(
            "/thing",
            change,
            name="change",
            answers={200: json()},
            precondition=Precondition.REQUIRED,
            **DECLARED,
        ),
        get("/secrets", nothing, name="secrets", answers={200: json()}, **{**DECLARED, "scope": Scope.ADMIN}),
        get(
            "/open",
            nothing,
            name="open",
            answers={200: json()},
            is_public=True,
            **{**DECLARED, "scope": None},
        ),
        get("/share", share, name="share", answers={200: json()}, **DECLARED),
        get(
            "/share/of-nobody",
            share,
            name="shareOfNobody",
            answers={200: json()},
            is_public=True,
            **{**DECLARED, "scope": None},
        ),
        get("/tagged", tagged, name="tagged", answers={200: json()}, cache="private", **DECLARED),
        get("/rows", rows, name="rows", answers={200: lines(None, item=int)}, **DECLARED),
        get("/stream", stream, name="stream", answers={200: events(item=int)}, **DECLARED),
        get("/sleep", sleep, name="sleep", answers={200: json()}, **DECLARED),
    ]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(endpoints()) as client:
        yield client


async def failing(error: Exception) -> httpx.Response:
    async def fail(_: Call) -> None:
        raise error

    async with serving([get("/fail", fail, name="fail", answers={200: Answer()}, **DECLARED)]) as client:
        return await client.get("/fail")


async def test_a_request_without_a_good_key_is_401_with_a_challenge(client: httpx.AsyncClient) -> None:
    answer = await client.get("/things", headers={"authorization": "Bearer bad"})
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_missing_scope_is_403_and_named_in_the_challenge(client: httpx.AsyncClient) -> None:
    answer = await client.get("/secrets")
    assert "admin" in assert_problem(answer, 403, "forbidden")["detail"]
    assert 'error="insufficient_scope", scope="admin"' in answer.headers["www-authenticate"]


async def test_a_public_route_asks_for_no_key(client: httpx.AsyncClient) -> None:
    assert (await client.get("/open", headers={"authorization": "Bearer bad"})).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/things/", "//things", "/things%2fx", "/things%2Fx/y"])
async def test_an_address_that_leads_nowhere_is_404(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "not-found")


async def test_another_method_is_405_with_the_methods_that_there_are(client: httpx.AsyncClient) -> None:
    answer = await client.put("/things")
    assert_problem(answer, 405, "method-not-allowed")
    assert {"GET", "HEAD", "POST"} <= set(answer.headers["allow"].split(", "))


async def test_a_method_that_nobody_knows_is_501(client: httpx.AsyncClient) -> None:
    assert_problem(await client.request("FOO", "/things"), 501, "method-not-implemented")


async def test_options_tell_the_methods_of_a_path(client: httpx.AsyncClient) -> None:
    answer = await client.options("/things")
    assert (answer.status_code, answer.content) == (204, b"")
    assert {"GET", "HEAD", "POST", "OPTIONS"} <= set(answer.headers["allow"].split(", "))
    assert "content-length" not in answer.headers


async def test_the_parts_of_a_path_have_the_declared_types(client: httpx.AsyncClient) -> None:
    id_ = "0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11"
    assert (await client.get(f"/things/{id_}/abc")).json() == {"id": id_, "part": "abc"}
    assert_problem(await client.get(f"/things/{id_}/abcd"), 422, "invalid-input", "")
    assert_problem(await client.get("/things/x/abc"), 404, "not-found")


async def test_head_is_get_without_the_body(client: httpx.AsyncClient) -> None:
    whole = await client.get("/things?name=x")
    head = await client.head("/things?name=x")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


async def test_head_of_a_stream_says_no_length_and_does_not_begin_it(client: httpx.AsyncClient) -> None:
    for path, headers in (("/stream", {}), ("/rows", {"accept": NDJSON})):
        head = await client.head(path, headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        assert "content-length" not in head.headers


async def test_an_answer_ends_with_a_newline_and_is_not_stored(client: httpx.AsyncClient) -> None:
    answer = await client.get("/things?name=x")
    assert answer.text.endswith("}\n")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("content_type", ["text/plain", "application/jsonx", "", "multipart/form-data"])
async def test_another_media_type_is_415(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post("/things", content=b"{}", headers={"content-type": content_type})
    assert_problem(answer, 415, "unsupported-media-type")


async def test_a_content_coding_that_is_not_taken_is_415(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = await client.post("/things", content=b'{"name":"x"}', headers=headers)
    assert_problem(answer, 415, "unsupported-media-type")
    assert answer.headers["accept-encoding"] == "identity"


async def test_a_media_type_may_have_parameters(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await client.post("/things", content=b'{"name":"x"}', headers=headers)).status_code == 201


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"name":NaN}', b'{"name":"\\ud800"}'])
async def test_a_body_that_is_not_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    assert_problem(await client.post("/things", content=body, headers=headers), 400, "malformed-input")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"name":""}', "/name"),
        (b'{"name":"x","size":11}', "/size"),
        (b'{"name":"x","size":true}', "/size"),
        (b'{"name":"x","size":"1"}', "/size"),
        (b'{"name":"x","size":1.0}', "/size"),
        (b'{"name":"x","at":1}', "/at"),
        (b'{"name":"x","si/ze":1}', "/si~1ze"),
        (b'{"name":"a\\u0000"}', "/name"),
        (b'{"name":"a","name":"b"}', "/name"),
        (b'{"name" :"a","name":"b"}', "/name"),
        (b'{"name":"x","size":9007199254740993}', "/size"),
        (b"[]", ""),
    ],
)
async def test_a_body_that_does_not_fit_is_422_and_names_the_field(
    client: httpx.AsyncClient, body: bytes, pointer: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post("/things", content=body, headers=headers)
    assert_problem(answer, 422, "invalid-input", pointer)


async def test_the_value_that_was_wrong_is_not_repeated(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things", json={"name": "x", "size": "my secret"})
    assert_problem(answer, 422, "invalid-input", "/size")
    assert "my secret" not in answer.text


async def test_a_body_over_the_limit_is_413(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/things", json={"name": "x" * 300}), 413, "payload-too-large")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("", "/name"),
        ("?name=x&size=0", "/size"),
        ("?name=x&size=1_0", "/size"),
        ("?name=x&size=%201", "/size"),
        ("?name=x&size=1.0", "/size"),
        ("?name=x&more=1", "/more"),
        ("?name=%00", "/name"),
        ("?name=a&name=b", "/name"),
    ],
)
async def test_a_query_that_does_not_fit_is_422(client: httpx.AsyncClient, query: str, pointer: str) -> None:
    assert_problem(await client.get(f"/things{query}"), 422, "invalid-input", pointer)


async def test_a_parameter_of_a_route_without_parameters_is_422(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/tagged?x=1"), 422, "invalid-input", "/x")


@pytest.mark.parametrize("query", ["?name=%FF", "?name=%", "?name=%e2%82", "?name=+&&&size=2"])
async def test_odd_escapes_are_no_failure(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/things{query}")).status_code == 200


async def test_a_known_version_is_304_without_the_headers_of_a_body(client: httpx.AsyncClient) -> None:
    answer = await client.get("/tagged", headers={"if-none-match": '"a"'})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"a"')
    assert answer.headers["cache-control"] == "private"
    assert {"content-type", "content-length"}.isdisjoint(answer.headers)


@pytest.mark.parametrize(
    ("if_match", "status", "code"),
    [
        (None, 428, "precondition-required"),
        ('"1"', 412, "precondition-failed"),
        ('"2"', 200, ""),
        ("*", 200, ""),
    ],
)
async def test_a_change_wants_to_know_the_version_that_was_read(
    client: httpx.AsyncClient, if_match: str | None, status: int, code: str
) -> None:
    headers = {} if if_match is None else {"if-match": if_match}
    answer = await client.patch("/thing", json={"name": "new"}, headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["type"] == f"/problems/{code}"


@pytest.mark.parametrize(
    ("method", "path", "headers", "is_heeded"),
    [
        ("POST", "/things", {"if-match": '"1"'}, False),
        ("POST", "/things", {"if-match": "*"}, True),
        ("POST", "/things", {"if-none-match": "*"}, False),
        ("PATCH", "/thing", {"if-match": '"2"', "if-none-match": "*"}, False),
    ],
)
async def test_a_condition_that_a_change_would_ignore_is_refused(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str], is_heeded: bool
) -> None:
    answer = await client.request(method, path, json={"name": "new"}, headers=headers)
    if is_heeded:
        assert answer.is_success
    else:
        assert_problem(answer, 400, "precondition-not-supported")


async def test_a_value_whose_answer_is_declared_with_a_tag_has_that_of_its_content(
    client: httpx.AsyncClient,
) -> None:
    etag = (await client.get("/things?name=a")).headers["etag"]
    known = await client.get("/things?name=a", headers={"if-none-match": etag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    assert "content-length" not in known.headers
    other = await client.get("/things?name=b", headers={"if-none-match": etag})
    assert (other.status_code, other.json()["name"]) == (200, "b")
    assert "etag" not in (await client.get("/open")).headers


async def test_rows_come_in_the_media_type_that_is_accepted(client: httpx.AsyncClient) -> None:
    page = await client.get("/rows")
    streamed = await client.get("/rows", headers={"accept": NDJSON})
    assert (page.text, streamed.text) == ("[1,2]\n", "1\n2\n")
    assert page.headers["vary"] == streamed.headers["vary"] == "accept"
    assert_problem(await client.get("/rows", headers={"accept": "image/png"}), 406, "not-acceptable")


async def test_an_idempotency_key_that_means_nothing_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/tagged", headers={"idempotency-key": "k"})
    assert_problem(answer, 400, "idempotency-not-supported")


async def test_a_handler_that_takes_too_long_is_504(client: httpx.AsyncClient) -> None:
    answer = await client.get("/sleep", headers={"request-timeout": "0.05"})
    assert_problem(answer, 504, "deadline-exceeded")


async def test_the_time_that_a_key_takes_to_be_found_is_part_of_the_deadline() -> None:
    async def identify(text: str | None, address: str | None) -> Principal:
        await asyncio.sleep(0.2)
        return await authenticate(text, address)

    async def waits(_: Call) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {}

    endpoint = get("/waits", waits, name="waits", answers={200: json()}, **DECLARED)
    async with serving([endpoint], identify=identify) as client:
        answer = await client.get("/waits", headers={"request-timeout": "0.1"})
        assert_problem(answer, 504, "deadline-exceeded")
        assert (await client.get("/waits", headers={"request-timeout": "30"})).status_code == 200


async def test_a_deadline_that_the_caller_made_short_is_counted_as_its_own(client: httpx.AsyncClient) -> None:
    def counted(status: str) -> float:
        labels = {"method": "GET", "route": "/sleep", "status": status}
        return REGISTRY.get_sample_value("tickwire_http_requests_total", labels) or 0

    before = {status: counted(status) for status in ("499", "504")}
    assert (await client.get("/sleep", headers={"prefer": "wait=0.05"})).status_code == 504
    assert (counted("499"), counted("504")) == (before["499"] + 1, before["504"])


async def test_a_service_error_keeps_its_code_status_and_headers() -> None:
    answer = await failing(Overloaded("Full.", retry_after_s=7.4))
    assert_problem(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "7"


async def test_a_deadline_that_was_over_elsewhere_is_504() -> None:
    assert_problem(await failing(DeadlineExceeded("Too late.")), 504, "deadline-exceeded")


async def test_an_unexpected_error_is_500_and_tells_nothing_of_it() -> None:
    answer = await failing(RuntimeError("the password is swordfish"))
    assert_problem(answer, 500, "internal")
    assert "swordfish" not in answer.text


async def test_other_services_are_asked_in_the_share_of_the_caller_and_for_nobody_in_no_share() -> None:
    async with serving(endpoints()) as client:
        assert (await client.get("/share")).json() == {"share": "7"}
        assert (await client.get("/share/of-nobody")).json() == {"share": ""}

"""Bodies and queries of declared endpoints: what is read, and what is refused."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import httpx
import pytest
from pydantic import AfterValidator, BaseModel

from gateway.http.calls import Call
from gateway.http.endpoints import json, post
from support.problems import assert_problem
from support.served import serving
from support.served_things import DECLARED


@pytest.mark.parametrize("content_type", ["text/plain", "application/jsonx", "", "multipart/form-data"])
async def test_another_media_type_is_415(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post("/things", content=b"{}", headers={"content-type": content_type})
    assert_problem(answer, 415, "unsupported-media-type")


async def test_a_content_coding_that_is_not_taken_is_415(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = await client.post("/things", content=b'{"name":"x"}', headers=headers)
    assert_problem(answer, 415, "unsupported-media-type")
    assert answer.headers["accept-encoding"] == "identity"


async def test_a_part_of_a_body_is_not_taken_for_the_whole(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json", "content-range": "bytes 0-11/24"}
    answer = await client.post("/things", content=b'{"name":"x"}', headers=headers)
    assert "Content-Range" in assert_problem(answer, 400, "malformed-input")["detail"]


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


@pytest.mark.parametrize("path", ["/things", "/tagged", "/stream"])
async def test_a_query_has_a_number_of_parameters_and_more_are_not_looked_at(
    client: httpx.AsyncClient, path: str
) -> None:
    del client.headers["authorization"]
    headers = {} if path == "/stream" else {"authorization": "Bearer good"}
    answer = await client.get(f"{path}?{'a=%ff&' * 1300}", headers=headers)
    assert "100 parameters" in assert_problem(answer, 422, "invalid-input")["detail"]


async def test_a_parameter_of_a_route_without_parameters_is_422(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/tagged?x=1"), 422, "invalid-input", "/x")


@pytest.mark.parametrize("query", ["?name=%FF", "?name=%e2%82", "?name=x&%ff=1"])
async def test_a_query_that_is_not_in_utf_8_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/things{query}")
    assert "UTF-8" in assert_problem(answer, 422, "invalid-input")["detail"]


@pytest.mark.parametrize("query", ["?name=%", "?name=+&&&size=2"])
async def test_odd_escapes_in_a_query_are_accepted(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/things{query}")).status_code == 200


READERS: list[int] = []


def note(name: str) -> str:
    READERS.append(threading.get_ident())
    return name


class Noted(BaseModel):
    name: Annotated[str, AfterValidator(note)]


async def take(_: Call, body: Noted) -> dict[str, Any]:
    return {"length": len(body.name)}


@pytest.mark.parametrize(
    ("text", "is_aside"),
    [
        ("x" * 60_000, False),
        ("x" * 70_000, True),
        ("é" * 9_000 + "a@x.com" * 5, False),
        ("a@x.com" * 1_000, False),
        ("é" + "a@x.com" * 6, True),
        ("a@xn--x.com" * 6, True),
        ("a@XN--x.com" * 6, True),
        ("\\u00e9" + "a@x.com" * 6, True),
        ("é" + "a\\u0040x.com" * 6, True),
    ],
    ids=["plain", "large", "few addresses", "ASCII", "letters", "punycode", "capitals", "escapes", "signs"],
)
async def test_a_body_that_may_take_long_to_check_is_checked_in_a_thread(text: str, is_aside: bool) -> None:
    READERS.clear()
    endpoint = post("/noted", take, name="note", answers={201: json()}, **DECLARED)
    async with serving([endpoint], body_limit=100_000) as client:
        headers = {"content-type": "application/json"}
        body = b'{"name":"%s"}' % text.encode()
        assert (await client.post("/noted", content=body, headers=headers)).status_code == 201
    assert [reader != threading.get_ident() for reader in READERS] == [is_aside]

"""Declared endpoints from the request to the answer: reading, refusing, rendering."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from pydantic import BaseModel

from chassis import threads
from chassis.errors import DeadlineExceeded, Overloaded
from gateway.http import bodies
from gateway.http import serving as http_serving
from gateway.http.calls import Call
from gateway.http.endpoints import (
    Answer,
    Endpoint,
    get,
    json,
    post,
)
from gateway.http.principal import Principal
from gateway.http.replies import NDJSON, HttpReply
from support.problems import assert_problem
from support.served import MEMBER, authenticate, serving
from support.served_things import DECLARED, endpoints
from support.waiting import until


class ItemList(BaseModel):
    """A body that can be observed."""

    items: list[list[int]]


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


async def test_options_lists_the_methods_of_a_path(client: httpx.AsyncClient) -> None:
    answer = await client.options("/things")
    assert (answer.status_code, answer.content) == (204, b"")
    assert {"GET", "HEAD", "POST", "OPTIONS"} <= set(answer.headers["allow"].split(", "))
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("path", ["//things", "/thing%73"])
async def test_options_knows_a_path_in_its_one_spelling_only(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.options(path), 404, "not-found")


async def test_the_parts_of_a_path_have_the_declared_types(client: httpx.AsyncClient) -> None:
    id_ = "0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11"
    assert (await client.get(f"/things/{id_}/abc")).json() == {"id": id_, "part": "abc"}
    assert_problem(await client.get(f"/things/{id_}/abcd"), 422, "invalid-input", "/part")
    assert_problem(await client.get("/things/x/abc"), 404, "not-found")


async def test_a_path_that_comes_again_leads_to_the_same_route_by_each_of_its_methods(
    client: httpx.AsyncClient,
) -> None:
    id_ = "0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11"
    path = f"/things/{id_}/abc"
    for _ in range(2):
        assert (await client.get(path)).json() == {"id": id_, "part": "abc"}
        # Too long to be remembered.
        assert_problem(await client.get(f"/things/{id_}/{'a' * 200}"), 422, "invalid-input", "/part")
        assert_problem(await client.put(path), 405, "method-not-allowed")
        assert_problem(await client.get("/nothing/there"), 404, "not-found")


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


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_body_without_a_key_has_little_time_however_much_the_request_allows(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def nothing(_: Call) -> dict[str, Any]:
        return {}

    async def take(_: Call, body: dict[str, Any]) -> dict[str, Any]:
        return body

    async def unfinished() -> AsyncIterator[bytes]:
        if method == "POST":
            yield b"{"
        await asyncio.Event().wait()

    declared: dict[str, Any] = {**DECLARED, "scope": None, "is_public": True, "answers": {200: json()}}
    routes = [get("/open", nothing, name="get", **declared), post("/open", take, name="post", **declared)]
    monkeypatch.setattr(http_serving, "PUBLIC_BODY_S", 0.05)
    headers = {"request-timeout": "30", "content-type": "application/json"}
    async with serving(routes) as client, asyncio.timeout(20):
        answer = await client.request(method, "/open", content=unfinished(), headers=headers)
    assert_problem(answer, 408, "request-timeout")


async def test_a_body_that_waits_for_others_of_its_owner_is_429_and_a_neighbour_has_an_answer() -> None:
    begun, end = threading.Event(), threading.Event()

    def compute() -> None:
        begun.set()
        assert end.wait(30)

    async def identify(text: str | None, address: str | None) -> Principal:
        found = await authenticate("good", address)
        return dataclasses.replace(found, user_id=8) if text == "other" else found

    busy = asyncio.create_task(threads.run(compute, owner_id=MEMBER.owner_id))
    try:
        await until(begun.is_set)
        # It may have addresses beyond ASCII, so it is read in a thread.
        thing = {"name": "ü@" * 6}
        async with serving(endpoints(), identify=identify) as client:
            answer = await client.post("/things", json=thing, headers={"request-timeout": "0.05"})
            assert_problem(answer, 429, "too-many-at-once")
            answer = await client.post("/things", json=thing, headers={"authorization": "Bearer other"})
            assert answer.status_code == 201
    finally:
        end.set()
        await busy


async def assert_only_small_ones_fit_beside(
    document: dict[str, Any], route: Endpoint, may_answer: asyncio.Event
) -> None:
    """Check that a second document is refused until the first one is answered, and a small one is not."""
    async with serving([route], body_limit=20_000) as client:
        first = asyncio.create_task(client.post("/take", json=document))

        async def is_refused() -> bool:
            answer = await client.post("/take", json=document, headers={"request-timeout": "0.1"})
            return answer.status_code == 429

        await until(is_refused)
        small = asyncio.create_task(client.post("/take", json={}))
        may_answer.set()
        assert [(await one).status_code for one in (first, small)] == [200, 200]


async def test_short_documents_of_an_owner_share_a_number_of_bytes_until_they_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "MOST_SMALLER_BYTES_OF_OWNER", 15_000)
    may_answer = asyncio.Event()

    async def take(_: Call, body: dict[str, Any]) -> dict[str, Any]:
        await may_answer.wait()
        return {}

    route = post("/take", take, name="take", answers={200: json()}, **DECLARED)
    document = {"text": "x" * 10_000}
    await assert_only_small_ones_fit_beside(document, route, may_answer)


async def test_the_documents_of_an_owner_share_an_amount_of_memory_until_they_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "MOST_DOCUMENT_BYTES_OF_OWNER", 200_000)
    may_answer = asyncio.Event()

    async def take(_: Call, body: dict[str, Any]) -> dict[str, Any]:
        await may_answer.wait()
        return {}

    route = post("/take", take, name="take", answers={200: json()}, **DECLARED)
    # Less than 8 KiB, which counts among no bodies, but thousands of lists in memory.
    document: dict[str, Any] = {"lists": [[]] * 2_000}
    await assert_only_small_ones_fit_beside(document, route, may_answer)


async def test_what_a_caller_waits_for_after_its_document_was_accepted_takes_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "MOST_DOCUMENT_BYTES_OF_OWNER", 200_000)
    accepted, has_ended = asyncio.Semaphore(0), asyncio.Event()
    documents: list[weakref.ref[ItemList]] = []

    async def end() -> HttpReply:
        accepted.release()
        await has_ended.wait()
        return HttpReply(b"{}", 200)

    async def take(_: Call, body: ItemList) -> HttpReply:
        documents.append(weakref.ref(body))
        return HttpReply(b"{}", 202, later=end)

    route = post("/take", take, name="take", answers={202: json()}, **DECLARED)
    document: dict[str, Any] = {"items": [[]] * 2_000}
    async with serving([route], body_limit=20_000) as client, asyncio.timeout(20):
        waiting = [asyncio.create_task(client.post("/take", json=document)) for _ in range(3)]
        for _ in waiting:
            await accepted.acquire()
        # The thread that has read a document may still be about to let go of it.
        await until(lambda: all(document() is None for document in documents))
        assert not any(one.done() for one in waiting)
        has_ended.set()
        assert [(await one).status_code for one in waiting] == [200] * 3


async def test_a_document_of_more_than_all_may_have_finds_room_beside_light_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "MOST_DOCUMENT_BYTES", 200_000)
    monkeypatch.setattr(bodies, "MOST_DOCUMENT_BYTES_OF_OWNER", 100_000)
    monkeypatch.setattr(bodies, "RESERVED_DOCUMENT_BYTES", 25_000)
    begun, may_answer = asyncio.Event(), asyncio.Event()

    async def take(_: Call, body: dict[str, Any]) -> dict[str, Any]:
        if "text" in body:
            begun.set()
            await may_answer.wait()
        return {}

    async def identify(text: str | None, address: str | None) -> Principal:
        found = await authenticate("good", address)
        return dataclasses.replace(found, user_id=8) if text == "other" else found

    route = post("/take", take, name="take", answers={200: json()}, **DECLARED)
    async with serving([route], body_limit=40_000, identify=identify) as client, asyncio.timeout(20):
        light = asyncio.create_task(client.post("/take", json={"text": "x" * 10_000}))
        await begun.wait()
        headers = {"authorization": "Bearer other"}
        answer = await client.post("/take", json={"lists": [[]] * 4_000}, headers=headers)
        may_answer.set()
        assert (answer.status_code, (await light).status_code) == (200, 200)


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


async def test_a_deadline_that_was_over_before_headers_were_read_is_504_whatever_they_say() -> None:
    async def identify(_: str | None, __: str | None) -> Principal:
        raise DeadlineExceeded("Too late.")

    async with serving(endpoints(), identify=identify) as client:
        for headers in ({"request-timeout": "soon"}, {"prefer": "x" * 9000}, {"request-timeout": "1"}):
            assert_problem(await client.get("/sleep", headers=headers), 504, "deadline-exceeded")


async def test_an_unexpected_error_is_500_and_reveals_no_detail() -> None:
    answer = await failing(RuntimeError("the password is swordfish"))
    assert_problem(answer, 500, "internal")
    assert "swordfish" not in answer.text


async def test_other_services_are_asked_in_the_share_of_the_caller_and_for_nobody_in_no_share() -> None:
    async with serving(endpoints()) as client:
        assert (await client.get("/share")).json() == {"share": "7"}
        assert (await client.get("/share/of-nobody")).json() == {"share": ""}


async def test_a_request_begins_after_a_few_of_an_owner_that_has_sent_very_many_at_once() -> None:
    begun: list[str] = []

    async def identify(key: str | None, _: str | None) -> Principal:
        return dataclasses.replace(MEMBER, user_id=int(key or 0))

    async def note(call: Call) -> dict[str, Any]:
        begun.append(call.principal.owner_id)
        return {}

    route = get("/note", note, name="note", answers={200: json()}, **DECLARED)
    async with serving([route], identify=identify) as client:
        keys = ["1"] * 400 + ["2"]
        asked = [
            asyncio.create_task(client.get("/note", headers={"authorization": f"Bearer {key}"}))
            for key in keys
        ]
        in_each_pass = [0]
        while not all(one.done() for one in asked):
            await asyncio.sleep(0)
            in_each_pass.append(len(begun) - sum(in_each_pass))
        assert {(await one).status_code for one in asked} == {200}
    assert max(in_each_pass) <= 20
    assert begun.index("2") < 40
    assert len(begun) == len(keys)

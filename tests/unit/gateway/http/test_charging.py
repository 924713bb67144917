"""Requests are counted as declared, before anything is done, and their answers say what is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from pydantic import BaseModel

from gateway.errors import RateLimited
from gateway.http.calls import Call
from gateway.http.endpoints import Idempotency, get, json, post
from gateway.http.principal import Principal
from gateway.http.rates import LimitHeaders, RateClass
from support.problems import assert_problem
from support.served import serving
from support.served_things import DECLARED


class NamesBody(BaseModel):
    """A body that counts as many as it has names."""

    names: list[str]


class Purse:
    """A caller with ten of each class; remembers what was counted."""

    def __init__(self) -> None:
        self.left = 10
        self.counted: list[tuple[str, RateClass, int]] = []

    async def charge(self, principal: Principal, rate: RateClass, cost: int) -> LimitHeaders:
        """Count a request."""
        if cost > self.left:
            raise RateLimited("None is left.", retry_after_s=7, headers={"ratelimit": '"refused"'})
        self.left -= cost
        self.counted.append((principal.key_id, rate, cost))

        def headers() -> Sequence[tuple[bytes, bytes]]:
            return [(b"ratelimit", b'"%s";r=%d' % (rate.value.encode(), self.left))]

        return headers


@pytest.fixture
def purse() -> Purse:
    return Purse()


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
async def client(purse: Purse, done: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    async def read(_: Call) -> str:
        done.append("read")
        return "x"

    async def add(_: Call, body: NamesBody) -> str:
        done.append("add")
        return "x"

    endpoints = [
        get("/read", read, name="read", answers={200: json(str)}, **DECLARED),
        get(
            "/open",
            read,
            name="open",
            answers={200: json(str)},
            is_public=True,
            **{**DECLARED, "scope": None},
        ),
        post(
            "/add",
            add,
            name="add",
            answers={200: json(str)},
            idempotency=Idempotency.NONE,
            rate=RateClass.SEND,
            cost=lambda body: len(body.names),
            **DECLARED,
        ),
    ]
    async with serving(endpoints, charge=purse.charge) as client:
        yield client


async def test_a_request_counts_in_the_class_of_its_route_and_its_answer_says_what_is_left(
    client: httpx.AsyncClient, purse: Purse
) -> None:
    for method in ("GET", "HEAD"):
        answer = await client.request(method, "/read")
        assert answer.headers["ratelimit"] == f'"read";r={purse.left}'
    assert purse.counted == [("k", RateClass.READ, 1)] * 2


async def test_an_error_also_says_what_is_left(client: httpx.AsyncClient) -> None:
    answer = await client.get("/read?unknown=1")
    assert (answer.status_code, answer.headers["ratelimit"]) == (422, '"read";r=9')


async def test_requests_without_a_key_are_not_counted(client: httpx.AsyncClient, purse: Purse) -> None:
    bad = await client.get("/read", headers={"authorization": "Bearer bad"})
    public = await client.get("/open")
    assert [bad.status_code, public.status_code] == [401, 200]
    assert not {"ratelimit"} & {*bad.headers, *public.headers}
    assert purse.counted == []


async def test_a_request_is_counted_by_its_body_before_anything_is_done(
    client: httpx.AsyncClient, purse: Purse, done: list[str]
) -> None:
    answer = await client.post("/add", json={"names": ["a"] * 6})
    assert (answer.status_code, answer.headers["ratelimit"]) == (200, '"send";r=4')
    refused = await client.post("/add", json={"names": ["a"] * 6})
    assert_problem(refused, 429, "rate-limited")
    assert refused.headers["retry-after"] == "7"
    assert refused.headers.get_list("ratelimit") == ['"refused"']
    # One was counted before the body was read.
    assert purse.left == 3
    assert done == ["add"]


async def test_a_request_beyond_the_limit_is_429_and_its_handler_is_not_called(
    client: httpx.AsyncClient, purse: Purse, done: list[str]
) -> None:
    purse.left = 0
    assert_problem(await client.get("/read"), 429, "rate-limited")
    assert done == []

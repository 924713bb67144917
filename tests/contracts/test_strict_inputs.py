"""Every declared input of every route is refused one past its bound, with the place that is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest

from contracts.scopes import Scope
from gateway import documents
from gateway.http.endpoints import Endpoint, Precondition
from gateway.http.principal import Principal
from gateway.reference import openapi
from support import declared_gateway
from support.breaches import Breaches
from support.served import serving

ENDPOINTS = declared_gateway.create().server.endpoints
OPENAPI = declared_gateway.document()
BREACHES = Breaches(OPENAPI["components"]["schemas"])
MOST_BYTES = documents.settings().body_limit_bytes
ADMINISTRATOR = Principal(1, "Ann", "admin", "k", frozenset(Scope))


async def identify(_: str | None, __: str | None) -> Principal:
    return ADMINISTRATOR


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of all routes, whose handlers have no servers: none of them may be reached."""
    async with serving(ENDPOINTS, body_limit=MOST_BYTES, identify=identify) as client:
        yield client


def described(endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = OPENAPI["paths"][endpoint.template][endpoint.method.lower()]
    return found


def parameters(endpoint: Endpoint, place: str) -> Iterator[dict[str, Any]]:
    for parameter in described(endpoint)["parameters"]:
        if parameter.get("in") == place:
            yield parameter


def address(endpoint: Endpoint, **changed: str) -> str:
    parts = {one["name"]: quote(str(one["example"]), safe="") for one in parameters(endpoint, "path")}
    return endpoint.template.format(**{**parts, **changed})


def written(value: Any) -> str | None:
    """Return a value as a query has it; None for a type, which a query does not have."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, str | int | float) and value is not True else None


def problem_of(answer: httpx.Response, pointer: str) -> str | None:
    """Return what is wrong with a refusal; None if it names the place."""
    if answer.status_code != 422:
        return f"{answer.status_code} {answer.text[:200]}"
    named = [error["pointer"] for error in answer.json().get("errors", ())]
    is_named = any(one == pointer or one.startswith(f"{pointer}/") for one in named)
    return None if is_named else f"{pointer} is not among {named}: {answer.json()['detail'][:100]}"


def breaches(endpoint: Endpoint, place: str) -> Iterator[tuple[str, str, str]]:
    """Yield the values that parameters of the path or the query must not have: name, rule and value."""
    for parameter in parameters(endpoint, place):
        for breach in BREACHES.of(parameter["schema"]):
            value = written(breach.value)
            # Text has no other type, and an empty part of a path is another path.
            if value is not None and breach.keyword != "type" and (value or place == "query"):
                yield parameter["name"], breach.keyword, value


async def test_a_query_parameter_past_its_bound_is_refused_by_name(client: httpx.AsyncClient) -> None:
    wrong, tried = [], 0
    for endpoint in ENDPOINTS:
        known = list(parameters(endpoint, "query"))
        required = {one["name"]: str(one["example"]) for one in known if one["required"]}
        if endpoint.upload:
            # Only an upload names it here: a document has it in its body.
            required |= {one["name"]: str(one["example"]) for one in known if one["name"] == "operation"}
        headers = {"content-type": endpoint.upload} if endpoint.upload else {}
        for name, rule, value in breaches(endpoint, "query"):
            tried += 1
            query = {**required, name: value}
            answer = await client.request(endpoint.method, address(endpoint), params=query, headers=headers)
            if problem := problem_of(answer, f"/{name}"):
                wrong.append((endpoint.name, name, rule, problem))
    assert wrong == []
    assert tried > 200


async def test_a_part_of_the_path_past_its_bound_is_refused_by_name(client: httpx.AsyncClient) -> None:
    wrong, tried = [], 0
    for endpoint in ENDPOINTS:
        for name, rule, value in breaches(endpoint, "path"):
            tried += 1
            path = address(endpoint, **{name: quote(value, safe="")})
            answer = await client.request(endpoint.method, path)
            # What no route matches is not there.
            is_absent = answer.status_code == 404 and endpoint.path_parameters[name][0] is not None
            if not is_absent and (problem := problem_of(answer, f"/{name}")):
                wrong.append((endpoint.name, name, rule, problem))
    assert wrong == []
    assert tried > 20


WRONG_HEADERS = {
    "Idempotency-Key": ["k" * 256, '"' + "k" * 256 + '"'],
    "Request-Timeout": ["0.04", "1" + "0" * 9, "0,5"],
}


async def test_a_header_past_its_bound_is_refused_by_name(client: httpx.AsyncClient) -> None:
    wrong, tried = [], 0
    for endpoint in ENDPOINTS:
        references = (one["$ref"] for one in described(endpoint)["parameters"] if "$ref" in one)
        shared = [reference.rpartition("/")[2] for reference in references]
        given = [(name, value) for name in shared for value in WRONG_HEADERS.get(name, ())]
        # The query is read first.
        known = parameters(endpoint, "query")
        query = {one["name"]: str(one["example"]) for one in known if "example" in one}
        for name, value in given:
            tried += 1
            headers = {name: value}
            answer = await client.request(endpoint.method, address(endpoint), params=query, headers=headers)
            if answer.status_code != 422 or name not in answer.json()["detail"]:
                wrong.append((endpoint.name, name, value, answer.text))
    assert wrong == []
    assert tried > 200


async def test_a_field_of_a_body_past_its_bound_is_refused_with_its_pointer(
    client: httpx.AsyncClient,
) -> None:
    wrong, tried = [], 0
    for endpoint in ENDPOINTS:
        if endpoint.body is None:
            continue
        example = next(iter(openapi.body_examples(endpoint).values()))
        content = described(endpoint)["requestBody"]["content"]["application/json"]
        query = {one["name"]: str(one["example"]) for one in parameters(endpoint, "query") if one["required"]}
        headers = {"content-type": "application/json"}
        if endpoint.precondition is not Precondition.NONE:
            headers["if-match"] = "*"
        if "mode" in example:
            # In the other mode, the mails that are right are accepted without those that are wrong.
            example = {**example, "mode": "strict"}
        for breach in BREACHES.of(content["schema"]):
            body = orjson.dumps(breach.put_into(example))
            tried += 1
            answer = await client.request(
                endpoint.method, address(endpoint), params=query, content=body, headers=headers
            )
            if len(body) > MOST_BYTES and answer.status_code == 413:
                continue
            if problem := problem_of(answer, breach.pointer):
                wrong.append((endpoint.name, breach.pointer, breach.keyword, problem))
    assert wrong == []
    assert tried > 500

"""What all routes share: the token, the deadline, reading bodies and queries, problem documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest
from pydantic import BaseModel, ConfigDict, Field
from quart import Quart, Response
from werkzeug.datastructures import Headers

from chassis.errors import DeadlineExceeded, InvalidInput, Overloaded, Unauthenticated
from contracts.scopes import Scope
from gateway.http.edge import Application, Edge
from gateway.http.endpoint import Api, accepted_type, answer, build, is_known, read_json, read_query, token
from gateway.http.principal import Principal
from support.problems import assert_problem

MEMBER = Principal(7, "Ann", "member", "k", frozenset({Scope("quotes:read")}))


class Ring:
    async def authenticate(self, text: str | None) -> Principal:
        if text != "good":
            raise Unauthenticated("Send your key.", headers={"www-authenticate": "Bearer"})
        return MEMBER


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    size: int = Field(default=1, ge=1, le=10)


@pytest.fixture
def api() -> Api:
    app = Quart("test", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=None)
    return Api(app, cast(Any, Ring()), timeout_s=5)


@pytest.fixture
async def client(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(cast(Any, Edge(cast(Application, api.app), body_limit=200)))
    headers = {"authorization": "Bearer good"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client


@pytest.fixture
def things(api: Api) -> None:
    @api.route("/things", methods=("POST",), scope="quotes:read")
    async def post_thing(_: Principal) -> Response:
        return answer((await read_json(Thing)).model_dump(), 201)

    @api.route("/things", scope="quotes:read")
    async def list_things(_: Principal) -> Response:
        return answer(read_query(Thing).model_dump())

    @api.route("/secrets", scope="admin")
    async def secrets(_: Principal) -> Response:
        return answer({})


def failing(api: Api, error: Exception) -> None:
    @api.route("/fail", scope=None)
    async def fail(_: Principal) -> Response:
        raise error


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer  abc "}, "abc"),
        ({"authorization": "Bearer"}, ""),
        ({"authorization": "Basic YTpi"}, None),
        ({"authorization": "abc"}, None),
        ({"x-api-key": "abc"}, "abc"),
        ({"authorization": "Bearer a", "x-api-key": "b"}, "a"),
        ({"authorization": "Basic a", "x-api-key": "b"}, None),
        ({}, None),
    ],
)
def test_the_token_is_a_bearer_or_an_api_key(headers: dict[str, str], expected: str | None) -> None:
    assert token(Headers(headers)) == expected


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({}, 4.9, 5),
        ({"request-timeout": "2"}, 1.9, 2),
        ({"request-timeout": "0.5"}, 0.4, 0.5),
        ({"request-timeout": "600"}, 29.9, 30),
        ({"request-timeout": "1e999"}, 29.9, 30),
        ({"prefer": "wait=3"}, 2.9, 3),
        ({"prefer": 'respond-async, Wait = "3"'}, 2.9, 3),
        ({"prefer": "wait=3; x=y, other"}, 2.9, 3),
        ({"prefer": "wait=999999999"}, 29.9, 30),
        ({"prefer": "wait=0"}, 4.9, 5),
        ({"prefer": "wait=soon"}, 4.9, 5),
        ({"prefer": "await=3"}, 4.9, 5),
        ({"prefer": "wait=" + "9" * 5000}, 4.9, 5),
        ({"request-timeout": "2", "prefer": "wait=9"}, 1.9, 2),
    ],
)
async def test_the_deadline_is_what_the_caller_asks_for(
    api: Api, headers: dict[str, str], low: float, high: float
) -> None:
    async with api.app.test_request_context("/", headers=headers):
        assert low <= api.deadline().remaining_s() <= high


@pytest.mark.parametrize("asked", ["0", "-1", "soon", "nan", "", "5s", "²"])
async def test_a_request_timeout_that_is_no_time_is_invalid(api: Api, asked: str) -> None:
    async with api.app.test_request_context("/", headers={"request-timeout": asked}):
        with pytest.raises(InvalidInput, match="Request-Timeout"):
            api.deadline()


@pytest.mark.usefixtures("things")
class TestRequests:
    async def test_without_a_key_is_401_with_a_challenge(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/things", headers={"authorization": "Bearer bad"})
        assert_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"

    async def test_without_the_scope_is_403(self, client: httpx.AsyncClient) -> None:
        assert "admin" in assert_problem(await client.get("/secrets"), 403, "forbidden")["detail"]

    async def test_an_unknown_path_is_404(self, client: httpx.AsyncClient) -> None:
        assert_problem(await client.get("/nothing"), 404, "not-found")

    async def test_another_method_is_405_with_allow(self, client: httpx.AsyncClient) -> None:
        answer = await client.put("/things")
        assert_problem(answer, 405, "method-not-allowed")
        assert {"GET", "HEAD", "POST"} <= set(answer.headers["allow"].split(", "))

    async def test_head_is_get_without_the_body(self, client: httpx.AsyncClient) -> None:
        get = await client.get("/things?name=x")
        head = await client.head("/things?name=x")
        assert head.status_code == 200
        assert head.headers["content-length"] == get.headers["content-length"]

    @pytest.mark.parametrize("content_type", ["text/plain", "application/jsonx", "", "multipart/form-data"])
    async def test_another_media_type_is_415(self, client: httpx.AsyncClient, content_type: str) -> None:
        answer = await client.post("/things", content=b"{}", headers={"content-type": content_type})
        assert_problem(answer, 415, "unsupported-media-type")

    async def test_a_media_type_may_have_parameters(self, client: httpx.AsyncClient) -> None:
        headers = {"content-type": "Application/JSON; charset=utf-8"}
        assert (await client.post("/things", content=b'{"name":"x"}', headers=headers)).status_code == 201

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"name":NaN}', b'{"name":"\\ud800"}'])
    async def test_what_is_not_json_is_400(self, client: httpx.AsyncClient, body: bytes) -> None:
        headers = {"content-type": "application/json"}
        assert_problem(await client.post("/things", content=body, headers=headers), 400, "malformed-input")

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"name": ""}, "/name"),
            ({"name": "x", "size": 11}, "/size"),
            ({"name": "x", "si/ze": 1}, "/si~1ze"),
            ({"name": "a\0"}, "/name"),
            ([], ""),
        ],
    )
    async def test_what_does_not_fit_is_422_and_names_the_field(
        self, client: httpx.AsyncClient, body: Any, pointer: str
    ) -> None:
        assert_problem(await client.post("/things", json=body), 422, "invalid-input", pointer)

    async def test_the_value_that_was_wrong_is_not_repeated(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/things", json={"name": "x", "size": "my secret"})
        assert_problem(answer, 422, "invalid-input", "/size")
        assert "my secret" not in answer.text

    async def test_a_body_over_the_limit_is_413(self, client: httpx.AsyncClient) -> None:
        assert_problem(await client.post("/things", json={"name": "x" * 300}), 413, "payload-too-large")

    @pytest.mark.parametrize(
        ("query", "pointer"),
        [("", "/name"), ("?name=x&size=0", "/size"), ("?name=x&more=1", "/more"), ("?name=%00", "/name")],
    )
    async def test_a_query_that_does_not_fit_is_422(
        self, client: httpx.AsyncClient, query: str, pointer: str
    ) -> None:
        assert_problem(await client.get(f"/things{query}"), 422, "invalid-input", pointer)

    async def test_the_last_of_a_repeated_parameter_counts(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/things?name=a&name=b")).json()["name"] == "b"

    @pytest.mark.parametrize("query", ["?name=%FF", "?name=%", "?name=%e2%82", "?name=+&&&size=2"])
    async def test_odd_escapes_are_no_failure(self, client: httpx.AsyncClient, query: str) -> None:
        assert (await client.get(f"/things{query}")).status_code == 200


async def test_a_service_error_keeps_its_code_status_and_headers(api: Api, client: httpx.AsyncClient) -> None:
    failing(api, Overloaded("Full.", retry_after_s=7.4))
    answer = await client.get("/fail")
    assert_problem(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "7"


async def test_a_deadline_that_was_over_is_504(api: Api, client: httpx.AsyncClient) -> None:
    failing(api, DeadlineExceeded("Too late."))
    assert_problem(await client.get("/fail"), 504, "deadline-exceeded")


async def test_what_nobody_expected_is_500_and_says_nothing_of_it(
    api: Api, client: httpx.AsyncClient
) -> None:
    failing(api, RuntimeError("the password is swordfish"))
    answer = await client.get("/fail")
    assert_problem(answer, 500, "internal")
    assert "swordfish" not in answer.text


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/csv;q=0.1, application/json", "application/json"),
        ("text/*", "text/csv"),
        ("image/png", None),
        ("nonsense;;;q=x,", None),
    ],
)
async def test_the_best_media_type_is_chosen(api: Api, accept: str | None, expected: str | None) -> None:
    headers = {"accept": accept} if accept else {}
    async with api.app.test_request_context("/", headers=headers):
        if expected is None:
            with pytest.raises(Exception, match="This can be had as"):
                accepted_type("application/json", "text/csv")
        else:
            assert accepted_type("application/json", "text/csv") == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('"a-1"', True),
        ('"x", "a-1"', True),
        ('W/"a-1"', True),
        ("*", True),
        ('"a-2"', False),
        ("a-1", True),
        ("", False),
        (None, False),
    ],
)
async def test_what_the_caller_has_is_known(api: Api, given: str | None, expected: bool) -> None:
    headers = {"if-none-match": given} if given is not None else {}
    async with api.app.test_request_context("/", headers=headers):
        assert is_known('"a-1"') is expected


def test_parts_that_do_not_fit_are_invalid_input() -> None:
    with pytest.raises(InvalidInput) as refused:
        build(Thing, name="x", size=99)
    assert refused.value.errors[0].pointer == "/size"

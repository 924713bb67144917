"""Headers, read strictly: the credential, the deadline, the idempotency key, the known versions."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter

from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, NotAcceptable
from gateway.errors import IdempotencyNotSupported
from gateway.http import conditions, reading
from gateway.http.calls import Call, IncomingRequest
from gateway.http.endpoints import Answer, Endpoint, get, post

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)


async def handle(call: Call) -> None:
    """Do nothing."""


def declared(**changes: Any) -> Endpoint:
    values = {"name": "do", "summary": "Do", "tag": "T", "scope": None, "answers": {200: Answer()}, **changes}
    return post("/", handle, **values)


def request(headers: dict[str, str], *, path: str = "/", method: str = "POST") -> IncomingRequest:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    given = [(name.encode(), value.encode("utf-8")) for name, value in headers.items()]
    return IncomingRequest({"method": method, "path": path, "query_string": b"", "headers": given}, receive)


def key_of(header: str) -> str:
    found = reading.idempotency_key(declared(), request({"idempotency-key": header}))
    assert found is not None
    return found


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
def test_the_credential_is_a_bearer_token_or_an_api_key(
    headers: dict[str, str], expected: str | None
) -> None:
    assert reading.token(request(headers)) == expected


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({}, 4.9, 5),
        ({"request-timeout": "2"}, 1.9, 2),
        ({"request-timeout": "0.05"}, 0.04, 0.05),
        ({"request-timeout": "600"}, 29.9, 30),
        ({"prefer": "wait=3"}, 2.9, 3),
        ({"prefer": 'respond-async, Wait = "3"'}, 2.9, 3),
        ({"prefer": "wait=3; x=y, other"}, 2.9, 3),
        ({"prefer": "wait=999999999"}, 29.9, 30),
        ({"prefer": "wait=0.0001"}, 0.04, 0.05),
        ({"prefer": "wait=0"}, 4.9, 5),
        ({"prefer": "wait=soon"}, 4.9, 5),
        ({"prefer": "await=3"}, 4.9, 5),
        ({"prefer": "wait=" + "9" * 4000}, 4.9, 5),
        ({"request-timeout": "2", "prefer": "wait=9"}, 1.9, 2),
    ],
)
def test_the_deadline_is_the_time_that_the_caller_asks_for(
    headers: dict[str, str], low: float, high: float
) -> None:
    assert low <= reading.deadline(request(headers), 5, since=100).at - 100 <= high


@pytest.mark.parametrize(
    ("prefer", "waits"),
    [
        ("wait=3", True),
        ("respond-async, wait=0.5", True),
        ("wait=0", False),
        ("wait=soon", False),
        ("", False),
    ],
)
def test_a_caller_that_prefers_to_wait_says_for_how_long(prefer: str, waits: bool) -> None:
    assert reading.prefers_wait(request({"prefer": prefer})) == waits


@pytest.mark.parametrize(
    "asked", ["0", "-1", "soon", "nan", "", "5s", "²", "5e-324", "1e999", "0.049", "1_0"]
)
def test_a_request_timeout_that_is_not_a_usable_time_is_invalid(asked: str) -> None:
    with pytest.raises(InvalidInput, match="Request-Timeout"):
        reading.deadline(request({"request-timeout": asked}), 5, since=0)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/csv;q=0.1, application/json", "application/json"),
        ("text/*", "text/csv"),
        ("image/png", None),
        ("nonsense;;;q=x,", None),
    ],
)
def test_the_best_media_type_is_chosen(accept: str | None, expected: str | None) -> None:
    endpoint = declared(answers={200: Answer(media_types=("application/json", "text/csv"))})
    asked = request({} if accept is None else {"accept": accept})
    if expected is None:
        with pytest.raises(NotAcceptable, match="application/json, text/csv"):
            reading.media_type(endpoint, asked, None)
    else:
        assert reading.media_type(endpoint, asked, None) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [('"a-1"', True), ('"x", "a-1"', True), ('W/"a-1"', True), ("*", True), ('"a-2"', False), ("a-1", True)],
)
def test_a_version_that_the_caller_names_is_known(given: str, expected: bool) -> None:
    assert conditions.knows(request({"if-none-match": given}), '"a-1"') is expected


def test_a_version_named_in_a_second_header_is_known_too() -> None:
    asked = request({})
    asked.headers[b"if-none-match"] = b'"x", "a-1"'
    assert conditions.knows(asked, '"a-1"')


@given(PRINTABLE)
def test_every_printable_string_survives_quoting(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert key_of(quoted) == text
    assert key_of(f"  {quoted}\t") == text


@given(st.text(max_size=300))
def test_any_header_is_a_key_or_invalid_and_never_another_error(header: str) -> None:
    try:
        encoded = header.encode()
    except UnicodeEncodeError:
        return
    try:
        found = key_of(encoded.decode("latin-1"))
    except InvalidInput:
        return
    assert 1 <= len(found) <= 255


@pytest.mark.parametrize("header", ["8e03978e-40d5-43dd-bc93-6894a57f9324", "order:17/3", "a\\b", "k;v=1"])
def test_the_bare_form_is_taken_as_it_stands(header: str) -> None:
    assert key_of(header) == header


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        '""',
        '"open',
        'open"',
        '"a"b"',
        '"a";v=1',
        "two words",
        "ключ",
        '"tab\t"',
        "a\x7f",
        f'"{"a" * 256}"',
    ],
)
def test_a_key_of_neither_form_is_invalid(header: str) -> None:
    with pytest.raises(InvalidInput):
        key_of(header)


def test_a_route_without_an_effect_refuses_the_key() -> None:
    endpoint = get("/", handle, name="do", summary="Do", tag="T", scope=None, answers={200: Answer()})
    with pytest.raises(IdempotencyNotSupported):
        reading.idempotency_key(endpoint, request({"idempotency-key": "k"}))


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_the_hash_of_a_request_covers_method_path_and_body(one: bytes, other: bytes) -> None:
    def hashed(path: str, body: bytes) -> bytes:
        found = reading.key_of(request({}, path=path), "k", body)
        assert found is not None
        return found.body_hash

    assert (hashed("/v1/emails", one) == hashed("/v1/emails", other)) is (one == other)
    assert hashed("/v1/emails", one) != hashed("/v1/batches", one)


@pytest.mark.parametrize(
    ("count", "pointers", "detail"),
    [
        (2000, [f"/{number:04}" for number in range(20)], "is not a known field"),
        (2001, [""], "There are 2001 errors, too many to name."),
    ],
)
def test_so_many_errors_that_naming_them_would_stop_the_process_are_counted(
    count: int, pointers: list[str], detail: str
) -> None:
    class Nothing(BaseModel):
        model_config = ConfigDict(extra="forbid")

    names = b",".join(b'"%04d":1' % number for number in range(count))
    with pytest.raises(InvalidInput) as caught:
        reading.parse(TypeAdapter(Nothing), b"{%s}" % names)
    assert [error.pointer for error in caught.value.errors] == pointers
    assert {error.detail for error in caught.value.errors} == {detail}


@pytest.mark.parametrize(
    ("document", "is_on_loop"),
    [
        (b"[%s0]" % (b"0," * 1_000), True),
        (b"[%s0]" % (b"0," * 1_001), False),
        (b"[" * 1_000 + b"]" * 1_000, True),
        (b"[" * 1_001 + b"]" * 1_001, False),
        (b'["%s"]' % (b"x" * 65_000), True),
        (b'["%s"]' % (b"x" * 65_536), False),
    ],
)
async def test_documents_of_many_bytes_or_many_values_are_read_in_a_thread(
    document: bytes, is_on_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: TypeAdapter[Any], data: bytes) -> tuple[bytes, bool]:
        return data, threading.current_thread() is threading.main_thread()

    monkeypatch.setattr(reading, "parse", read)
    found = await reading.json_body(TypeAdapter(list[Any]), document, Deadline.after(5))
    assert found == (document, is_on_loop)

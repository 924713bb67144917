"""Entity tags, and the conditions that reads and changes make with them."""

from __future__ import annotations

import httpx
import pytest

from support.problems import assert_problem


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
async def test_a_change_must_name_the_version_that_was_read(
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


@pytest.mark.parametrize(
    ("path", "if_match", "status", "code"),
    [
        ("/tagged", '"a"', 200, ""),
        ("/tagged", '"b", "a"', 200, ""),
        ("/tagged", "*", 200, ""),
        ("/tagged", '"b"', 412, "precondition-failed"),
        # A weak tag names no version that is the same to the byte.
        ("/tagged", 'W/"a"', 412, "precondition-failed"),
        ("/secrets", "*", 403, "forbidden"),
        ("/share", "*", 200, ""),
        ("/share", '"a"', 400, "precondition-not-supported"),
    ],
)
async def test_a_read_that_names_versions_gets_one_of_them_or_says_why_not(
    client: httpx.AsyncClient, path: str, if_match: str, status: int, code: str
) -> None:
    # What the caller knows already matters only after that.
    headers = {"if-match": if_match, "if-none-match": '"c"'}
    for method in ("GET", "HEAD"):
        answer = await client.request(method, path, headers=headers)
        assert answer.status_code == status
        assert status == 200 or method == "HEAD" or answer.json()["type"] == f"/problems/{code}"


async def test_an_answer_that_is_declared_with_a_tag_has_the_tag_of_its_content(
    client: httpx.AsyncClient,
) -> None:
    etag = (await client.get("/things?name=a")).headers["etag"]
    known = await client.get("/things?name=a", headers={"if-none-match": etag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    assert "content-length" not in known.headers
    other = await client.get("/things?name=b", headers={"if-none-match": etag})
    assert (other.status_code, other.json()["name"]) == (200, "b")
    assert "etag" not in (await client.get("/open")).headers

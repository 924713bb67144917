"""The HTTP API of the development mailbox."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from native.mailbox import api
from native.mailbox.messages import Received, Store
from native.mailbox.receiver import Receiver


@pytest.fixture
def store() -> Store:
    filled = Store()
    for number in range(3):
        raw = f"From: a@example.org\r\nTo: b@example.org\r\nSubject: number {number}\r\n\r\nbody\r\n".encode()
        filled.add(Received(raw, "a@example.org", ("b@example.org",)))
    return filled


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    app = api.create_app(store, Receiver(store), smtp_host="127.0.0.1", smtp_port=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://box") as connected:
        yield connected


async def test_a_page_of_messages_is_newest_first(client: httpx.AsyncClient) -> None:
    page = (await client.get("/api/v1/messages", params={"limit": 1, "start": 1})).json()
    assert (page["total"], page["messages_count"], page["start"]) == (3, 3, 1)
    assert [message["Subject"] for message in page["messages"]] == ["number 1"]


async def test_one_message_is_shown_with_its_text(client: httpx.AsyncClient) -> None:
    detail = (await client.get("/api/v1/message/latest")).json()
    assert (detail["Subject"], detail["Text"].strip()) == ("number 2", "body")
    raw = await client.get(f"/api/v1/message/{detail['ID']}/raw")
    assert raw.headers["content-type"].startswith("text/plain")
    assert (await client.get(f"/api/v1/message/{detail['ID']}/headers")).json()["Subject"] == ["number 2"]


async def test_a_search_finds_and_deletes(client: httpx.AsyncClient) -> None:
    found = (await client.get("/api/v1/search", params={"query": 'subject:"number 0"'})).json()
    assert found["messages_count"] == 1
    await client.delete("/api/v1/search", params={"query": 'subject:"number 0"'})
    assert (await client.get("/api/v1/messages")).json()["total"] == 2


async def test_a_search_of_too_many_words_is_refused(client: httpx.AsyncClient) -> None:
    for method in ("GET", "DELETE"):
        refused = await client.request(method, "/api/v1/search", params={"query": "x " * 21})
        assert (refused.status_code, refused.text) == (400, "a query has at most 20 words")
    assert (await client.get("/api/v1/messages")).json()["total"] == 3


async def test_a_word_of_hyphens_alone_is_searched_for_whatever_its_length(client: httpx.AsyncClient) -> None:
    for query, found in (("-" * 5000 + "body", 3), ("-" * 5001 + "body", 0)):
        page = (await client.get("/api/v1/search", params={"query": query})).json()
        assert page["messages_count"] == found


async def test_some_messages_or_all_are_deleted(client: httpx.AsyncClient, store: Store) -> None:
    newest = next(iter(store)).id
    await client.request("DELETE", "/api/v1/messages", json={"IDs": [newest]})
    assert len(store) == 2
    assert (await client.delete("/api/v1/messages")).text == "ok"
    assert len(store) == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/message/nope", 404),
        ("/api/v1/search", 400),
        ("/api/v1/message/latest/part/9", 404),
        ("/nope", 404),
    ],
)
async def test_an_unknown_path_or_mail_has_an_error_status(
    client: httpx.AsyncClient, path: str, status: int
) -> None:
    assert (await client.get(path)).status_code == status


@pytest.mark.parametrize("name", ["start", "limit"])
async def test_a_page_is_shown_however_long_its_numbers_are(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get("/api/v1/messages", params={name: "9" * 5000})
    assert (answer.status_code, answer.json()["total"]) == (200, 3)


async def test_a_part_that_has_no_valid_number_is_not_found(client: httpx.AsyncClient) -> None:
    for number in ("9" * 5000, "-1", "x"):
        assert (await client.get(f"/api/v1/message/latest/part/{number}")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b"\xff",
        b"[1]",
        b"null",
        b'{"IDs":5,"scripts":5}',
        b'{"IDs":true,"scripts":[5]}',
        b'{"IDs":{},"scripts":[{"to":"*","action":"fail","text":["x"]}]}',
        b'{"IDs":"x","scripts":[{"to":"\\ud800","action":"fail"}]}',
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
async def test_a_body_of_another_shape_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, store: Store, body: bytes
) -> None:
    assert (await client.request("DELETE", "/api/v1/messages", content=body)).status_code == 400
    assert (await client.put("/api/v1/scripts", content=body)).status_code == 400
    assert len(store) == 3
    assert (await client.get("/api/v1/scripts")).json() == {"scripts": []}


async def test_the_page_runs_no_script_but_its_own_and_fetches_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "http" not in answer.text.replace("HTTP", "")


async def test_a_body_of_any_length_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    body = b" " * (api.MOST_BODY_BYTES + 1)
    assert (await client.put("/api/v1/scripts", content=body)).status_code == 413
    assert (await client.request("DELETE", "/api/v1/messages", content=body)).status_code == 413

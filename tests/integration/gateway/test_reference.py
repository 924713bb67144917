"""The documents, pages and links of a running gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from contracts import problems
from support.gateway_stack import RunningGateway
from support.problems import assert_problem

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
async def anybody(listener: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client without a key."""
    async with httpx.AsyncClient(base_url=listener.url, timeout=20) as client:
        yield client


@pytest.mark.parametrize("path", ["/openapi.json", "/asyncapi.json"])
async def test_a_document_is_public_and_is_not_sent_again_while_it_is_known(
    anybody: httpx.AsyncClient, path: str
) -> None:
    first = await anybody.get(path)
    assert (first.status_code, first.headers["content-type"]) == (200, "application/json")
    again = await anybody.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await anybody.head(path)).headers["content-length"] == str(len(first.content))


async def test_a_program_gets_links_at_the_root_and_each_leads_somewhere(anybody: httpx.AsyncClient) -> None:
    links = (await anybody.get("/")).json()
    assert links.pop("name") == "Tickwire"
    assert links.pop("version")
    for path in links.values():
        assert (await anybody.get(path)).status_code == 200, path


async def test_a_browser_is_led_from_the_root_to_the_console(anybody: httpx.AsyncClient) -> None:
    answer = await anybody.get("/", headers={"accept": BROWSER})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/status")
    page = await anybody.get(answer.headers["location"], headers={"accept": BROWSER})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert 'href="/docs"' in page.text


@pytest.mark.parametrize("path", ["/docs", "/problems", "/problems/not-found", "/docs/runbooks"])
async def test_a_page_comes_with_a_policy_that_lets_nothing_in_from_elsewhere(
    anybody: httpx.AsyncClient, path: str
) -> None:
    page = await anybody.get(path, headers={"accept": BROWSER})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert len(page.headers.get_list("content-security-policy")) == 1


@pytest.mark.parametrize("code", sorted(problems.CATALOGUE))
async def test_the_type_of_a_problem_is_an_address_that_explains_it(
    anybody: httpx.AsyncClient, code: str
) -> None:
    found = (await anybody.get(f"/problems/{code}")).json()
    assert found["type"] == f"/problems/{code}"
    assert found["meaning"] == problems.of(code).meaning
    page = await anybody.get(f"/problems/{code}", headers={"accept": BROWSER})
    assert f"{found['status']} {found['title']}".replace("'", "&#x27;") in page.text.replace("'", "&#x27;")


async def test_the_type_of_an_answer_leads_to_the_operations_that_give_it(
    anybody: httpx.AsyncClient, listener: RunningGateway
) -> None:
    refused = await anybody.get("/v1/stocks/AAPL")
    assert_problem(refused, 401, "unauthenticated")
    explained = (await anybody.get(refused.json()["type"])).json()
    assert "getQuote" in explained["operations"]
    assert "getOpenApi" not in explained["operations"]


async def test_a_problem_or_runbook_that_does_not_exist_is_not_found(anybody: httpx.AsyncClient) -> None:
    assert_problem(await anybody.get("/problems/no-such-thing"), 404, "not-found")
    assert_problem(await anybody.get("/docs/runbooks/NoSuchAlert"), 404, "not-found")


async def test_a_runbook_is_shown_as_a_page(anybody: httpx.AsyncClient) -> None:
    page = await anybody.get("/docs/runbooks/TickwireServiceDown")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h2>Mitigation</h2>" in page.text

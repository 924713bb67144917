"""The files of the status page keep to the page's own policy."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.administration import pages
from support.served import serving

PATHS = {
    "/console/status": "text/html; charset=utf-8",
    "/console/status.css": "text/css; charset=utf-8",
    "/console/status.js": "text/javascript; charset=utf-8",
    "/console/status.svg": "image/svg+xml",
}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(pages.endpoints()) as client:
        yield client


async def text(client: httpx.AsyncClient, path: str) -> str:
    return (await client.get(path)).text


@pytest.mark.parametrize(("path", "content_type"), PATHS.items())
async def test_every_file_is_served_without_a_key_and_is_304_when_known(
    client: httpx.AsyncClient, path: str, content_type: str
) -> None:
    first = await client.get(path, headers={"authorization": ""})
    assert (first.status_code, first.headers["content-type"]) == (200, content_type)
    assert "script-src 'self'" in first.headers["content-security-policy"]
    again = await client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_console_leads_to_its_first_page(client: httpx.AsyncClient) -> None:
    for method in ("GET", "HEAD"):
        answer = await client.request(method, "/console", headers={"authorization": ""})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/status")


async def test_the_page_loads_nothing_but_its_own_files_and_leads_to_the_reference(
    client: httpx.AsyncClient,
) -> None:
    page = await text(client, "/console/status")
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    assert named == set(PATHS) - {"/console/status"} | {"/docs"}


async def test_nothing_is_written_into_the_page_that_its_policy_forbids(client: httpx.AsyncClient) -> None:
    page = await text(client, "/console/status")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page)


async def test_the_script_sets_text_and_never_markup(client: httpx.AsyncClient) -> None:
    script = await text(client, "/console/status.js")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage", script
    )
    assert len(script.splitlines()) < 300


async def test_no_file_names_another_host(client: httpx.AsyncClient) -> None:
    for path in PATHS:
        found = re.findall(r"https?://[\w.]+", await text(client, path))
        assert set(found) <= {"http://www.w3.org"}, path

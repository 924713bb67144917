"""The files of the status page keep to the page's own policy."""

from __future__ import annotations

import re

import pytest
from quart import Quart
from quart.typing import TestClientProtocol as Client

from gateway.administration import console

PATHS = {
    "/console/status": "text/html; charset=utf-8",
    "/console/status.css": "text/css; charset=utf-8",
    "/console/status.js": "text/javascript; charset=utf-8",
    "/console/status.svg": "image/svg+xml",
}


@pytest.fixture
async def client() -> Client:
    app = Quart("test", static_folder=None)
    console.register(app)
    return app.test_client()


async def text(client: Client, path: str) -> str:
    return str(await (await client.get(path)).get_data(as_text=True))


@pytest.mark.parametrize(("path", "content_type"), PATHS.items())
async def test_every_file_is_served_and_known_again(client: Client, path: str, content_type: str) -> None:
    first = await client.get(path)
    assert (first.status_code, first.headers["content-type"]) == (200, content_type)
    again = await client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert await again.get_data() == b""


async def test_the_page_names_nothing_but_its_own_files(client: Client) -> None:
    page = await text(client, "/console/status")
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    assert named == set(PATHS) - {"/console/status"}


async def test_nothing_is_written_into_the_page_that_its_policy_forbids(client: Client) -> None:
    page = await text(client, "/console/status")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page)


async def test_the_script_sets_text_and_never_markup(client: Client) -> None:
    script = await text(client, "/console/status.js")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage", script
    )
    assert len(script.splitlines()) < 300


async def test_no_file_names_another_host(client: Client) -> None:
    for path in PATHS:
        found = re.findall(r"https?://[\w.]+", await text(client, path))
        assert set(found) <= {"http://www.w3.org"}, path

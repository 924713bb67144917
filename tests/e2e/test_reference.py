"""The reference in a real browser, and the examples of the document, against the whole stack."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from native.stack import Stack
from support import browser
from support.browser import BrowserTab
from support.walking import Walked, operations

DRAWN = "document.querySelectorAll('[data-operation]').length > 0"
FOREIGN = (
    "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))"
)


@pytest.fixture(scope="module")
async def document(api: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await api.get("/openapi.json")).json())


@pytest.fixture
async def page(tab: BrowserTab, stack: Stack) -> AsyncIterator[BrowserTab]:
    """Yield the reference as a first visitor sees it."""
    await tab.look_as(width=1440, height=1000)
    await tab.visit(f"{stack.url}/docs")
    await tab.until(DRAWN)
    yield tab
    # What its own policy forbids, or an error of its script.
    assert tab.complaints == []
    assert await tab.run(FOREIGN) == []


@browser.needed
async def test_the_page_shows_every_operation_and_every_channel(
    page: BrowserTab, document: dict[str, Any], api: httpx.AsyncClient
) -> None:
    shown = await page.run("[...document.querySelectorAll('[data-operation]')].map(e => e.dataset.operation)")
    assert sorted(shown) == sorted(operation["operationId"] for _, _, operation in operations(document))
    channels = await page.run("[...document.querySelectorAll('[data-channel]')].map(e => e.dataset.channel)")
    assert sorted(channels) == sorted((await api.get("/asyncapi.json")).json()["channels"])


@browser.needed
async def test_every_part_of_every_operation_can_be_opened(page: BrowserTab) -> None:
    # Opening one makes others, which are opened in turn; a schema that holds itself would never end.
    opened = """(async () => {
      for (const part of document.querySelectorAll('#content details:not([open])')) part.open = true;
      await new Promise((done) => setTimeout(done, 300));
      return document.querySelectorAll('#content details > :nth-child(2)').length;
    })()"""
    # What is made is counted. To draw thousands of opened parts would take most of a minute.
    await page.run("document.getElementById('content').style.display = 'none'")
    parts = [await page.run(opened) for _ in range(4)]
    assert parts[-1] > 300
    assert parts[-1] - parts[-2] < parts[-2] - parts[-3]


@browser.needed
async def test_the_search_narrows_the_operations_that_are_shown(page: BrowserTab) -> None:
    await page.call("Input.dispatchKeyEvent", type="keyDown", text="/", key="/")
    assert await page.run("document.activeElement.id") == "search"
    await page.call("Input.insertText", text="listBars")
    await page.until("document.querySelectorAll('article:not([hidden])').length === 1")
    assert "1 of" in await page.text("#found")
    await page.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    await page.until("document.querySelectorAll('article:not([hidden])').length > 20")


@browser.needed
async def test_the_index_leads_to_an_operation_and_a_link_from_elsewhere_too(
    page: BrowserTab, stack: Stack
) -> None:
    await page.run("document.querySelector('a[href=\"#sendEmail\"]').click()")
    await page.until("document.getElementById('sendEmail').getBoundingClientRect().top < 300")
    await page.go("about:blank")
    await page.go(f"{stack.url}/docs#createTask")
    await page.until(DRAWN)
    await page.until("document.getElementById('createTask').getBoundingClientRect().top < 300")
    assert await page.run("document.querySelector('[aria-current=true]').hash") == "#createTask"


@browser.needed
async def test_an_operation_can_be_tried_with_a_key_that_only_this_tab_keeps(
    page: BrowserTab, stack: Stack
) -> None:
    await page.run(f"document.getElementById('key').value = {json.dumps(stack.api_key)}")
    await page.run("document.querySelector('#keys button').click()")
    await page.run("document.querySelector('#getMe .trying').open = true")
    await page.until("document.querySelector('#getMe form')")
    await page.run("document.querySelector('#getMe form button').click()")
    await page.until("document.querySelector('#getMe .status')?.innerText.startsWith('200')")
    await page.until("document.querySelector('#getMe .result').innerText.includes('\"scopes\"')")
    assert await page.run("Object.keys(localStorage).length + document.cookie.length") == 0
    await page.run("document.getElementById('forget').click()")
    await page.run("document.querySelector('#getMe form button').click()")
    await page.until("document.querySelector('#getMe .status')?.innerText.startsWith('401')")


@browser.needed
async def test_the_reference_fits_a_phone(page: BrowserTab) -> None:
    await page.look_as(width=360, height=740)
    assert await page.run("document.documentElement.scrollWidth") <= 360


@browser.needed
@pytest.mark.parametrize("path", ["/problems", "/problems/not-found", "/docs/runbooks/TickwireServiceDown"])
async def test_a_page_of_text_obeys_its_content_security_policy(
    tab: BrowserTab, stack: Stack, path: str
) -> None:
    await tab.go(f"{stack.url}{path}")
    assert await tab.run("document.querySelector('main h1').innerText.length") > 3
    assert await tab.run("getComputedStyle(document.querySelector('main')).maxWidth") == "860px"
    assert tab.complaints == []
    assert await tab.run(FOREIGN) == []


async def test_every_example_body_is_accepted_and_what_it_creates_can_be_read(walked: Walked) -> None:
    assert walked.failed == []


async def test_an_answer_has_the_headers_that_its_operation_describes_and_no_others(walked: Walked) -> None:
    assert sorted(set(walked.misdescribed)) == []

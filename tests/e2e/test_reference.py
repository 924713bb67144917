"""The reference in a real browser, and the examples of the document, against the whole stack."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from native.stack import Stack
from support import browser
from support.browser import Page

DRAWN = "document.querySelectorAll('[data-operation]').length > 0"
FOREIGN = (
    "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))"
)

# No message is parked on a good day.
NOTHING_TO_READ = {"getParked"}
# The token of a login address is made on the host, and works once.
# A return path is signed with a key that the document cannot know.
NOT_BY_EXAMPLE = {"createSession", "recordBounce"}
STREAMED = {"application/x-ndjson": b'{"payload":1}\n', "application/octet-stream": b"a file"}


@pytest.fixture(scope="module")
async def document(api: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await api.get("/openapi.json")).json())


@pytest.fixture
async def page(tab: Page, stack: Stack) -> AsyncIterator[Page]:
    """Yield the reference as a first visitor sees it."""
    await tab.look_as(width=1440, height=1000)
    await tab.visit(f"{stack.url}/docs")
    await tab.until(DRAWN)
    yield tab
    # What its own policy forbids, or an error of its script.
    assert tab.complaints == []
    assert await tab.run(FOREIGN) == []


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@browser.needed
async def test_the_page_shows_every_operation_and_every_channel(
    page: Page, document: dict[str, Any], api: httpx.AsyncClient
) -> None:
    shown = await page.run("[...document.querySelectorAll('[data-operation]')].map(e => e.dataset.operation)")
    assert sorted(shown) == sorted(operation["operationId"] for _, _, operation in operations(document))
    channels = await page.run("[...document.querySelectorAll('[data-channel]')].map(e => e.dataset.channel)")
    assert sorted(channels) == sorted((await api.get("/asyncapi.json")).json()["channels"])


@browser.needed
async def test_every_part_of_every_operation_can_be_opened(page: Page) -> None:
    # Opening one makes others, which are opened in turn; a schema that holds itself would never end.
    opened = """(async () => {
      for (const part of document.querySelectorAll('#content details:not([open])')) part.open = true;
      await new Promise((done) => setTimeout(done, 300));
      return document.querySelectorAll('#content details > :nth-child(2)').length;
    })()"""
    parts = [await page.run(opened) for _ in range(4)]
    assert parts[-1] > 300
    assert parts[-1] - parts[-2] < parts[-2] - parts[-3]


@browser.needed
async def test_the_search_narrows_the_operations_that_are_shown(page: Page) -> None:
    await page.call("Input.dispatchKeyEvent", type="keyDown", text="/", key="/")
    assert await page.run("document.activeElement.id") == "search"
    await page.call("Input.insertText", text="listBars")
    await page.until("document.querySelectorAll('article:not([hidden])').length === 1")
    assert "1 of" in await page.text("#found")
    await page.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    await page.until("document.querySelectorAll('article:not([hidden])').length > 20")


@browser.needed
async def test_the_index_leads_to_an_operation_and_a_link_from_elsewhere_too(
    page: Page, stack: Stack
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
    page: Page, stack: Stack
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
async def test_the_reference_fits_a_phone(page: Page) -> None:
    await page.look_as(width=360, height=740)
    assert await page.run("document.documentElement.scrollWidth") <= 360


@browser.needed
@pytest.mark.parametrize("path", ["/problems", "/problems/not-found", "/docs/runbooks/TickwireServiceDown"])
async def test_a_page_of_text_obeys_its_content_security_policy(tab: Page, stack: Stack, path: str) -> None:
    await tab.go(f"{stack.url}{path}")
    assert await tab.run("document.querySelector('main h1').innerText.length") > 3
    assert await tab.run("getComputedStyle(document.querySelector('main')).maxWidth") == "860px"
    assert tab.complaints == []
    assert await tab.run(FOREIGN) == []


class Walk:
    """Executes the examples of the document; what one has made is the example of the next."""

    def __init__(self, api: httpx.AsyncClient, document: dict[str, Any]) -> None:
        self.api = api
        self.document = document
        self.made: list[str] = []

    async def send(self, method: str, path: str, operation: dict[str, Any], body: Any) -> httpx.Response:
        kinds = operation.get("requestBody", {}).get("content", {})
        # What a stream names in its query, a JSON body contains.
        is_document = body is not None and not STREAMED.keys().isdisjoint(kinds)
        query = {}
        for parameter in operation["parameters"]:
            is_wanted = "example" in parameter and not is_document
            if parameter.get("in") == "query" and (parameter["required"] or is_wanted):
                query[parameter["name"]] = str(parameter["example"])
        sent: dict[str, Any] = {} if body is None else {"json": body}
        headers = {}
        for kind in kinds:
            if body is None and kind in STREAMED:
                sent, headers = {"content": STREAMED[kind]}, {"content-type": kind}
        if isinstance(body, str):
            kind = next(iter(operation["requestBody"]["content"]))
            sent, headers = {"content": body.encode()}, {"content-type": kind}
        names = {parameter.get("$ref", "").rpartition("/")[2] for parameter in operation["parameters"]}
        request = self.api.build_request(
            method,
            self.address(path, operation),
            params=query,
            headers={**headers, "if-match": "*"} if "If-Match-Required" in names else headers,
            **sent,
        )
        answer = await self.api.send(request, stream=True)
        if answer.headers.get("content-type") == "text/event-stream":
            # It may have no end: that it begins is enough.
            await anext(answer.aiter_bytes())
        else:
            await answer.aread()
        await answer.aclose()
        if "location" in answer.headers and not answer.has_redirect_location:
            self.made.append(answer.headers["location"])
        return answer

    def address(self, path: str, operation: dict[str, Any]) -> str:
        """Return `path` with the examples of its parameters, the first replaced by a created id."""
        named = path
        for parameter in operation["parameters"]:
            if parameter.get("in") == "path":
                named = named.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
        location = self.location(path)
        if location is None or any(f"{named}/".startswith(f"{made}/") for made in self.made):
            return named
        # The first id of the path is another one, the others stay.
        _, slash, rest = named.removeprefix(path.partition("{")[0]).partition("/")
        return location + slash + rest

    def location(self, path: str) -> str | None:
        """Return the address of something that was made and that `path` leads to, or below."""
        thing = re.compile(re.escape(path.partition("{")[0]) + "[^/]+")
        return next((made for made in self.made if thing.fullmatch(made)), None)


@pytest.mark.usefixtures("resumed")
async def test_every_example_body_is_accepted_and_what_it_creates_can_be_read(
    api: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    walk, failed = Walk(api, document), []
    for method, path, operation in sorted(operations(document), key=_makers_first):
        # Only what this walk has made is changed, and nothing is ended.
        is_strange = method == "patch" and walk.location(path) is None
        if method == "delete" or is_strange or operation["operationId"] in NOTHING_TO_READ | NOT_BY_EXAMPLE:
            continue
        contents: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
        content: dict[str, Any] = contents.get("application/json") or next(iter(contents.values()), {})
        examples = [example["value"] for example in content.get("examples", {}).values()]
        # A batch is sent both ways.
        is_either = "application/json" in contents and not STREAMED.keys().isdisjoint(contents)
        for example in [*examples, None] if is_either or not examples else examples:
            answer = await walk.send(method, path, operation, example)
            # Where these tests ran before, what they would make is there.
            if not answer.is_success and answer.status_code not in (303, 409):
                failed.append((operation["operationId"], answer.status_code, answer.text[:200]))
    assert failed == []


def _makers_first(one: tuple[str, str, dict[str, Any]]) -> tuple[bool, bool]:
    method, path, _ = one
    return (method != "post", "{" in path)

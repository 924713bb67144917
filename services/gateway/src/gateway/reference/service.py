"""The documents of this gateway, its problem types, its runbooks, and the root that links to them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import orjson

from chassis import threads
from chassis.errors import NotFound
from contracts import problems
from contracts.problems import ProblemType
from gateway.http.assets import POLICY
from gateway.http.calls import Call
from gateway.http.endpoints import Endpoint
from gateway.http.replies import HttpReply, document, entity_tag
from gateway.reference import outcomes, pages
from gateway.reference.inputs import Links, ProblemList, ProblemView
from gateway.reference.pages import Runbooks
from gateway.reference.schemas import Json

HTML = "text/html"
_DOCUMENTS = Path(__file__).parent / "documents"
# Written by `gateway.documents`.
OPENAPI, ASYNCAPI = _DOCUMENTS / "openapi.json", _DOCUMENTS / "asyncapi.json"
_LINKS = Links(
    name="Tickwire",
    version=version("tickwire-gateway"),
    docs="/docs",
    openapi="/openapi.json",
    asyncapi="/asyncapi.json",
    problems="/problems",
    runbooks="/docs/runbooks",
    console="/console/status",
    health="/healthz",
)


class ReferenceService:
    """Gives the documents, and describes the problems of `endpoints`, which are complete before a request."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._runbooks = Runbooks()
        # Also those that are being built.
        self._documents: dict[str, asyncio.Future[HttpReply]] = {}

    async def root(self, call: Call) -> HttpReply:
        """Return the links to everything else; redirect a browser to the console."""
        if call.media_type == HTML:
            return HttpReply(None, 303, location=_LINKS.console)
        return HttpReply(document(_LINKS))

    async def openapi(self, _: Call) -> HttpReply:
        """Return the OpenAPI document."""
        return await self._built("openapi", lambda: _tagged(OPENAPI.read_bytes()))

    async def asyncapi(self, _: Call) -> HttpReply:
        """Return the AsyncAPI document."""
        return await self._built("asyncapi", lambda: _tagged(ASYNCAPI.read_bytes()))

    async def list_problems(self, call: Call) -> HttpReply:
        """Return all problem types."""
        if call.media_type == HTML:
            known = problems.CATALOGUE.values()
            return await self._built("problems as HTML", lambda: _page(pages.problem_index(known)))
        return await self._built("problems", self._problem_list)

    async def problem(self, call: Call, code: str) -> HttpReply:
        """Return the description of a problem type. Raise `NotFound`."""
        problem = problems.CATALOGUE.get(code)
        if problem is None:
            raise NotFound("This problem type does not exist; /problems lists all of them.")
        if call.media_type == HTML:
            return await self._built(
                f"{code} as HTML", lambda: _page(pages.problem_page(problem, self._operations.get(code, [])))
            )
        return await self._built(code, lambda: _json(self._view(problem).model_dump(mode="json")))

    async def runbooks(self, _: Call) -> HttpReply:
        """Return the list of runbooks."""
        return _page(self._runbooks.index)

    async def runbook(self, _: Call, alert: str) -> HttpReply:
        """Return the runbook of an alert. Raise `NotFound`."""
        page = self._runbooks.pages.get(alert)
        if page is None:
            raise NotFound("There is no runbook of this name; /docs/runbooks lists all of them.")
        return _page(page)

    async def _built(self, name: str, build: Callable[[], HttpReply]) -> HttpReply:
        """Return the result of `build`, which is cached, because these routes need no key.

        It is built once, even if nobody waits for it any more: callers without a key would otherwise have it
        built again and again by leaving early.
        """
        building = self._documents.get(name)
        if building is None:
            # In a thread: it takes longer than a request may block the event loop.
            building = self._documents[name] = asyncio.ensure_future(threads.run(build, owner_id=""))
            building.add_done_callback(partial(self._forget_failed, name))
        return await asyncio.shield(building)

    def _forget_failed(self, name: str, building: asyncio.Future[HttpReply]) -> None:
        if building.cancelled() or building.exception():
            del self._documents[name]

    @cached_property
    def _operations(self) -> Mapping[str, Sequence[Endpoint]]:
        """The endpoints that can answer with a problem type, by its code."""
        found = defaultdict(list)
        for endpoint in self._endpoints:
            for code in {problem.code for problem in outcomes.of(endpoint)}:
                found[code].append(endpoint)
        return found

    def _problem_list(self) -> HttpReply:
        views = [self._view(problem) for problem in problems.CATALOGUE.values()]
        return _json(ProblemList(data=views).model_dump(mode="json"))

    def _view(self, problem: ProblemType) -> ProblemView:
        return ProblemView(
            type=f"/problems/{problem.code}",
            status=problem.status,
            title=problem.title,
            meaning=problem.meaning,
            action=problem.action,
            retryable=problem.retryable,
            operations=[endpoint.name for endpoint in self._operations.get(problem.code, [])],
        )


def _json(content: Json) -> HttpReply:
    return _tagged(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


def _tagged(body: bytes) -> HttpReply:
    return HttpReply(body, etag=entity_tag(body))


def _page(body: bytes) -> HttpReply:
    return HttpReply(
        body, media_type=HTML, etag=entity_tag(body), headers={"content-security-policy": POLICY}
    )

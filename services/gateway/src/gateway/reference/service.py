"""The documents of this gateway, its problem types, its runbooks, and the root that leads to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version

import orjson

from chassis.errors import NotFound
from contracts import problems
from contracts.problems import ProblemType
from gateway.http.assets import POLICY
from gateway.http.calls import Call
from gateway.http.endpoints import Endpoint
from gateway.http.replies import Reply, document, entity_tag
from gateway.reference import asyncapi, openapi, outcomes, pages
from gateway.reference.inputs import Links, ProblemList, ProblemView
from gateway.reference.pages import Runbooks
from gateway.reference.schemas import Json
from gateway.reference.sockets import Command

HTML = "text/html"
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
    """Describes `endpoints` and `commands`, which are complete before the first request."""

    def __init__(self, endpoints: Sequence[Endpoint], commands: Iterable[Command]) -> None:
        self._endpoints = endpoints
        self._commands = commands
        self._runbooks = Runbooks()
        self._documents: dict[str, Reply] = {}

    async def root(self, call: Call) -> Reply:
        """Return the links to everything else; redirect a browser to the console."""
        if call.media_type == HTML:
            return Reply(None, 303, location=_LINKS.console)
        return Reply(document(_LINKS))

    async def openapi(self, _: Call) -> Reply:
        """Return the OpenAPI document."""
        return await self._built("openapi", lambda: openapi.build(self._endpoints))

    async def asyncapi(self, _: Call) -> Reply:
        """Return the AsyncAPI document."""
        return await self._built("asyncapi", lambda: asyncapi.build(self._endpoints, self._commands))

    async def list_problems(self, call: Call) -> Reply:
        """Return all problem types."""
        if call.media_type == HTML:
            return _page(pages.problem_index(problems.CATALOGUE.values()))
        views = [self._view(problem) for problem in problems.CATALOGUE.values()]
        return Reply(document(ProblemList(data=views)))

    async def problem(self, call: Call, code: str) -> Reply:
        """Return the description of a problem type. Raise `NotFound`."""
        problem = problems.CATALOGUE.get(code)
        if problem is None:
            raise NotFound("There is no such problem type; /problems lists all.")
        if call.media_type == HTML:
            return _page(pages.problem_page(problem, outcomes.operations(code, self._endpoints)))
        return Reply(document(self._view(problem)))

    async def runbooks(self, _: Call) -> Reply:
        """Return the list of runbooks."""
        return _page(self._runbooks.index)

    async def runbook(self, _: Call, alert: str) -> Reply:
        """Return the runbook of an alert. Raise `NotFound`."""
        page = self._runbooks.pages.get(alert)
        if page is None:
            raise NotFound("There is no runbook of this name; /docs/runbooks lists all.")
        return _page(page)

    async def _built(self, name: str, build: Callable[[], Json]) -> Reply:
        if name not in self._documents:
            # The first caller has it built, which takes longer than a request may hold the loop.
            content = await asyncio.to_thread(build)
            body = orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
            self._documents[name] = Reply(body, etag=entity_tag(body))
        return self._documents[name]

    def _view(self, problem: ProblemType) -> ProblemView:
        return ProblemView(
            type=f"/problems/{problem.code}",
            status=problem.status,
            title=problem.title,
            meaning=problem.meaning,
            action=problem.action,
            retryable=problem.retryable,
            operations=[endpoint.name for endpoint in outcomes.operations(problem.code, self._endpoints)],
        )


def _page(body: bytes) -> Reply:
    return Reply(body, media_type=HTML, etag=entity_tag(body), headers={"content-security-policy": POLICY})

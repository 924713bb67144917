"""`/`, `/openapi.json`, `/asyncapi.json`, `/docs` and `/problems`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from chassis.errors import NotFound
from gateway.http.assets import page
from gateway.http.endpoints import Answer, Endpoint, get, json, nothing
from gateway.http.replies import JSON
from gateway.reference.inputs import Links, ProblemList, ProblemView
from gateway.reference.service import HTML, ReferenceService

_ASSETS = Path(__file__).parent / "assets"
_FILES = {
    "/docs": (
        "docs.html",
        "showDocs",
        "Show the reference of the API, made of /openapi.json and /asyncapi.json",
    ),
    "/docs/reference.css": ("reference.css", "getReferenceStyle", "Read the style of the reference"),
    "/docs/reference.js": ("reference.js", "getReferenceScript", "Read the script of the reference"),
    "/docs/reference.svg": ("reference.svg", "getReferenceIcon", "Read the icon of the reference"),
}
_VERSION = {"ETag": "The version of the text."}

_get = partial(get, tag="Reference", scope=None, is_public=True, cache="no-cache")


def endpoints(service: ReferenceService) -> Iterator[Endpoint]:
    """Yield the documents, and the pages that show them."""
    yield _get(
        "/",
        service.root,
        name="getRoot",
        summary="List the entry points of the API; a browser is redirected to the console",
        answers={
            200: Answer(Links, media_types=(JSON, HTML)),
            303: nothing(headers={"Location": "the page"}),
        },
    )
    yield _get(
        "/openapi.json",
        service.openapi,
        name="getOpenApi",
        summary="Read the OpenAPI 3.1 document of the HTTP API",
        answers={200: json(dict[str, object], headers=_VERSION)},
    )
    yield _get(
        "/asyncapi.json",
        service.asyncapi,
        name="getAsyncApi",
        summary="Read the AsyncAPI 3 document of sockets, streams and messages",
        answers={200: json(dict[str, object], headers=_VERSION)},
    )
    yield _get(
        "/problems",
        service.list_problems,
        name="listProblems",
        summary="List all problem types",
        answers={200: Answer(ProblemList, media_types=(JSON, HTML), headers=_VERSION)},
    )
    yield _get(
        "/problems/<code>",
        service.problem,
        name="getProblem",
        summary="Read the meaning of a problem type and its remedy",
        answers={200: Answer(ProblemView, media_types=(JSON, HTML), headers=_VERSION)},
        errors=(NotFound,),
        examples={"code": "not-found"},
    )
    yield from _runbooks(service)
    for path, (file, name, summary) in _FILES.items():
        yield page(path, _ASSETS / file, name=name, summary=summary)


def _runbooks(service: ReferenceService) -> Iterator[Endpoint]:
    yield _get(
        "/docs/runbooks",
        service.runbooks,
        name="listRunbooks",
        summary="List the runbooks of the alerts",
        answers={200: Answer(media_types=(HTML,), headers=_VERSION)},
    )
    yield _get(
        "/docs/runbooks/<alert>",
        service.runbook,
        name="getRunbook",
        summary="Read the runbook of an alert",
        answers={200: Answer(media_types=(HTML,), headers=_VERSION)},
        errors=(NotFound,),
        examples={"alert": "TickwireServiceDown"},
    )

"""`/v1/templates`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import Conflict, DatabaseUnavailable, NotFound, Overloaded, Unavailable
from contracts import problems
from contracts.scopes import Scope
from contracts.templates import RenderedTemplate
from gateway.errors import PreconditionFailed, PreconditionRequired
from gateway.http.endpoints import (
    Endpoint,
    Idempotency,
    Precondition,
    delete,
    get,
    json,
    nothing,
    post,
    put,
)
from gateway.templates.inputs import TemplateList, TemplateView, VersionList
from gateway.templates.service import TemplateService

_ETAG = {"ETag": "the version, for If-Match"}
_CHANGED = (DatabaseUnavailable, NotFound, PreconditionFailed, PreconditionRequired, Unavailable)
_FULL = problems.of("too-many-templates")
_WELCOME = {"subject": "Welcome, {{ name }}", "html": "<p>Hello <b>{{ name }}</b></p>"}


def endpoints(service: TemplateService) -> Iterator[Endpoint]:
    """Yield the endpoints of templates."""
    yield post(
        "/v1/templates",
        service.create,
        name="createTemplate",
        summary="Create a mail template, after a check of its syntax",
        tag="E-mail",
        scope=Scope.TEMPLATES_WRITE,
        answers={201: json(TemplateView, headers={"Location": "the template", **_ETAG})},
        errors=(Conflict, DatabaseUnavailable, Overloaded, Unavailable, _FULL),
        examples={"welcome": {"name": "welcome", **_WELCOME}},
    )
    yield get(
        "/v1/templates",
        service.list,
        name="listTemplates",
        summary="List your templates by name",
        tag="E-mail",
        scope=Scope.TEMPLATES_READ,
        answers={200: json(TemplateList)},
        errors=(Unavailable,),
    )
    yield post(
        "/v1/template-previews",
        service.preview_source,
        name="previewSource",
        summary="Render a template that is not stored",
        tag="E-mail",
        scope=Scope.TEMPLATES_READ,
        answers={200: json(RenderedTemplate)},
        errors=(Overloaded, Unavailable),
        idempotency=Idempotency.NONE,
        examples={"welcome": {"source": _WELCOME, "data": {"name": "Ann"}}},
    )
    yield post(
        "/v1/templates/<name>/preview",
        service.preview,
        name="previewTemplate",
        summary="Render a stored template",
        tag="E-mail",
        scope=Scope.TEMPLATES_READ,
        answers={200: json(RenderedTemplate)},
        errors=(NotFound, Overloaded, Unavailable),
        idempotency=Idempotency.NONE,
        examples={"for Ann": {"data": {"name": "Ann"}}},
    )
    yield from _one(service)


def _one(service: TemplateService) -> Iterator[Endpoint]:
    yield get(
        "/v1/templates/<name>",
        service.get,
        name="getTemplate",
        summary="Read the newest or an earlier version of a template",
        tag="E-mail",
        scope=Scope.TEMPLATES_READ,
        answers={200: json(TemplateView, headers=_ETAG)},
        errors=(NotFound, Unavailable),
    )
    yield get(
        "/v1/templates/<name>/versions",
        service.versions,
        name="listTemplateVersions",
        summary="Read the versions of a template, newest first",
        tag="E-mail",
        scope=Scope.TEMPLATES_READ,
        answers={200: json(VersionList)},
        errors=(NotFound, Unavailable),
    )
    yield put(
        "/v1/templates/<name>",
        service.change,
        name="changeTemplate",
        summary="Store the next version of a template",
        tag="E-mail",
        scope=Scope.TEMPLATES_WRITE,
        answers={200: json(TemplateView, headers=_ETAG)},
        errors=(*_CHANGED, Overloaded, _FULL),
        precondition=Precondition.REQUIRED,
        examples={"welcome": _WELCOME},
    )
    yield delete(
        "/v1/templates/<name>",
        service.delete,
        name="deleteTemplate",
        summary="Delete a template; mails already accepted still use it",
        tag="E-mail",
        scope=Scope.TEMPLATES_WRITE,
        answers={204: nothing()},
        errors=_CHANGED,
        precondition=Precondition.REQUIRED,
    )

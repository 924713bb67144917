"""The responses of an operation: successes with their headers, and problem documents by status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

from chassis.problems import PROBLEM
from contracts.problems import ProblemType
from gateway.errors import UploadOffsetMismatch
from gateway.http.endpoints import Answer, Endpoint, Idempotency
from gateway.http.replies import CSV, EVENT_STREAM, JSON
from gateway.reference import outcomes
from gateway.reference.parameters import has_entity_tag
from gateway.reference.schemas import Json, Schemas

_EXAMPLE_REQUEST = "4bf92f3577b34da6a3ce929d0e0e4736"

PROBLEM_SCHEMA: Json = {
    "type": "object",
    "description": "An error (RFC 9457). `type` is a path on this server with its meaning and remedy.",
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What happened, to which object, and what to do."},
        "instance": {"type": "string", "description": "The id of the request, as in `X-Request-Id`."},
        "errors": {
            "type": "array",
            "description": "The invalid parts of the input.",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "additionalProperties": False,
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON pointer (RFC 6901)."},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}

# Of an answer to a request that was counted: not of one that needs no key, or was refused before.
_LIMITS = ("RateLimit-Policy", "RateLimit")

# Headers that many responses share, by their name in the document's components.
HEADERS: Mapping[str, Json] = {
    "X-Request-Id": {
        "description": "The id of the request; logs and messages carry it too.",
        "required": True,
        "schema": {"type": "string"},
    },
    "traceparent": {
        "description": "The trace of the request (W3C Trace Context).",
        "required": True,
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "`true` if this is the answer to an earlier request with the same `Idempotency-Key`.",
        "schema": {"type": "string", "const": "true"},
    },
    "Retry-After": {
        "description": "The number of seconds after which the request can be repeated.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "RateLimit-Policy": {
        "description": "The limit of this class of requests (draft-ietf-httpapi-ratelimit-headers): "
        '`"read";q=30000;w=60` is 30,000 in 60 s. Absent where there is no limit.',
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": 'What is left of it: `"read";r=29990;t=12` is 29,990 for the next 12 s.',
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {
        "description": "Why the credentials are insufficient (RFC 6750), with the missing scope.",
        "schema": {"type": "string"},
    },
    "Accept-Encoding": {
        "description": "The content codings that a body may have here, if it was sent in another one.",
        "schema": {"type": "string"},
    },
    "Upload-Offset": {
        "description": "The number of bytes of the upload that are stored: where to continue.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "ETag": {"description": "The version of the object.", "schema": {"type": "string"}},
    "Vary": {"description": "`accept`: the answer depends on it.", "schema": {"type": "string"}},
    "Cache-Control": {
        "description": "Who may cache the answer, and for how long.",
        "schema": {"type": "string"},
    },
}


def of(endpoint: Endpoint, schemas: Schemas) -> Json:
    """Return the responses of an operation by status."""
    answers = {
        str(status): _success(endpoint, status, answer, schemas)
        for status, answer in endpoint.answers.items()
    }
    if has_entity_tag(endpoint):
        answers["304"] = {
            "description": "The version that `If-None-Match` names is still current.",
            "headers": _shared("ETag", "X-Request-Id", "traceparent", *_LIMITS),
        }
    for status, found in outcomes.by_status(endpoint).items():
        own = answers.get(str(status))
        if own is None:
            answers[str(status)] = {"$ref": f"#/components/responses/{_name(status, found)}"}
        else:
            own["content"] = {**own["content"], **_problem_response(status, found)["content"]}
    return dict(sorted(answers.items()))


def problem_responses(endpoints: Iterable[Endpoint]) -> dict[str, Json]:
    """Return all responses with problem documents, by their names in the components."""
    found = {
        _name(status, types): _problem_response(status, types)
        for endpoint in endpoints
        for status, types in outcomes.by_status(endpoint).items()
    }
    return dict(sorted(found.items()))


def _success(endpoint: Endpoint, status: int, answer: Answer, schemas: Schemas) -> Json:
    names = ["X-Request-Id", "traceparent", "Cache-Control"]
    if not endpoint.is_public:
        names += _LIMITS
    if len(answer.media_types) > 1:
        names.append("Vary")
    if endpoint.idempotency is not Idempotency.NONE:
        names.append("Idempotent-Replayed")
    headers = _shared(*names)
    for name, description in answer.headers.items():
        headers[name] = {"description": description, "required": True, "schema": {"type": "string"}}
    for name, description in answer.optional.items():
        headers[name] = {"description": description, "schema": {"type": "string"}}
    found: Json = {"description": answer.description or HTTPStatus(status).phrase, "headers": headers}
    content: dict[str, Json] = {}
    place = f"{endpoint.name}.answer.{status}"
    for media_type in answer.media_types:
        if media_type == JSON:
            content[media_type] = {"schema": schemas.by_place[place] if answer.model is not None else {}}
            continue
        content[media_type] = {"schema": {"type": "string", "contentMediaType": media_type}}
        if answer.item is None or media_type == CSV:
            continue
        # OpenAPI 3.2 will have `itemSchema` for this.
        item = content[media_type]["x-item-schema"] = schemas.by_place[f"{place}.item"]
        if media_type == EVENT_STREAM:
            data = {"type": "string", "contentMediaType": JSON, "contentSchema": item}
            content[media_type]["schema"] = {
                "type": "object",
                "required": ["data"],
                "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": data},
            }
    return {**found, "content": content} if content else found


def _problem_response(status: int, types: Sequence[ProblemType]) -> Json:
    names = ["X-Request-Id", "traceparent", "Cache-Control", *_LIMITS]
    if any(problem.retryable for problem in types):
        names.append("Retry-After")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        names.append("WWW-Authenticate")
    if status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        names.append("Accept-Encoding")
    if any(problem.code == UploadOffsetMismatch.code for problem in types):
        names.append("Upload-Offset")
    lines = [f"- `{problem.code}`: {problem.meaning}" for problem in types]
    examples = [
        (
            problem,
            {
                "type": f"/problems/{problem.code}",
                "title": problem.title,
                "status": problem.status,
                "detail": problem.meaning,
                "instance": _EXAMPLE_REQUEST,
            },
        )
        for problem in types
    ]
    fixed: Json = {
        "type": {"enum": [f"/problems/{problem.code}" for problem in types]},
        "status": {"const": status},
    }
    return {
        "description": "\n".join([f"{HTTPStatus(status).phrase}.", "", *lines]),
        "headers": _shared(*names),
        "content": {
            PROBLEM: {
                "schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, {"properties": fixed}]},
                "examples": {problem.code: {"value": example} for problem, example in examples},
            }
        },
    }


def _name(status: int, types: Sequence[ProblemType]) -> str:
    return ".".join([str(status), *(problem.code for problem in types)])


def _shared(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}

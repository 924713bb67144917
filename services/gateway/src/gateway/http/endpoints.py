"""Declarations of endpoints: all facts about a route that callers, documents, tests and limits need.

The types of a handler's parameters are part of the declaration: `query` and `body` are models, the other
parameters after the `Call` are parts of the path.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Union, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter

from chassis.errors import ServiceError
from contracts.problems import ProblemType
from contracts.scopes import Scope
from gateway.http.calls import Call, RawBody, Upload
from gateway.http.excerpts import Excerpt
from gateway.http.filters import DryRun
from gateway.http.rates import RateClass
from gateway.http.replies import CSV, EVENT_STREAM, JSON, NDJSON, HttpReply

Handler = Callable[..., Awaitable[Any]]
AfterRepeat = Callable[[Call, HttpReply], HttpReply]

# For an answer whose handler returns a value; the server computes the tag.
CONTENT_TAG = {"ETag": "a hash of the answer, for If-None-Match"}

_PART = re.compile(r"<(?:(?P<converter>\w+):)?(?P<name>\w+)>")


class Idempotency(StrEnum):
    """The way in which a repeated request with the same `Idempotency-Key` gets the same answer."""

    NONE = "none"  # repeating is harmless; the header is refused
    CLAIM = "claim"  # the key is claimed; the handler's deferred writes share a transaction with its answer
    TRANSACTION = "transaction"  # one transaction for the whole effect, if it uses only the database
    ACCEPTANCE = "acceptance"  # the handler records the answer together with the accepted work


class Precondition(StrEnum):
    """The role of `If-Match` on a route."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an endpoint: its model, the media types in which it is available, and its own headers.

    `item` is the model of each element where the answer is a stream; the answer may lack the headers that are
    `optional`. A caller who may not read what was changed gets the `excerpt`, also of a repeated answer.
    """

    model: Any = None
    media_types: tuple[str, ...] = (JSON,)
    item: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    excerpt: Excerpt | None = None

    @property
    def shapes(self) -> Any:
        """The type of the answer, whoever asks."""
        return self.model if self.excerpt is None else self.model | self.excerpt.model


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One declared route; see `get`, `post`, `patch` and `delete`.

    A body is a JSON document of a model, or an `Upload` of the media type `upload`, or a `RawBody` of one of
    the media types that the route `takes`.
    """

    method: str
    path: str
    handler: Handler
    name: str
    summary: str
    scope: Scope | None
    tag: str
    answers: Mapping[int, Answer]
    errors: tuple[type[ServiceError] | ProblemType, ...] = ()
    is_public: bool = False
    upload: str | None = None
    # The limit of its size, if it differs from the general one.
    upload_limit: int | None = None
    # The content codings that it may have.
    codings: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    idempotency: Idempotency = Idempotency.NONE
    after_repeat: AfterRepeat | None = None
    precondition: Precondition = Precondition.NONE
    cache: str = "no-store"
    # The class in which a request counts, and as how many by its body; see `gateway.http.rates`.
    rate: RateClass = RateClass.READ
    cost: Callable[[Any], int] | None = None
    is_alias: bool = False
    examples: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(init=False)
    # The path as OpenAPI and the metrics write it: `/v1/emails/{email_id}`.
    template: str = field(init=False)
    # The status of a successful answer, and its media types, the default first.
    status: int = field(init=False)
    media_types: tuple[str, ...] = field(init=False)
    # The scope that a dry run needs, too, as it only reads: that of the whole answer.
    dry_run_scope: Scope | None = field(init=False)
    # Whether the answer has an entity tag, so that a caller can make conditional requests.
    is_tagged: bool = field(init=False)

    def __post_init__(self) -> None:
        hints = get_type_hints(self.handler, include_extras=True)
        names = list(inspect.signature(self.handler).parameters)
        # Of one that only leads elsewhere, the status of the redirect.
        redirect = next(iter(self.answers))
        status = next((status for status in self.answers if 200 <= status < 300), redirect)
        answer = self.answers[status]
        can_be_tried = issubclass(hints.get("query", object), DryRun)
        made = {
            # The first parameter is the call itself.
            "parameters": {name: hints[name] for name in names[1:]},
            "template": _PART.sub(lambda part: "{" + part["name"] + "}", self.path),
            "status": status,
            "media_types": answer.media_types,
            "dry_run_scope": answer.excerpt.scope if can_be_tried and answer.excerpt else None,
            "is_tagged": "ETag" in {**answer.headers, **answer.optional},
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @property
    def query(self) -> type[BaseModel] | None:
        """The model of the query string."""
        return self.parameters.get("query")

    @property
    def body(self) -> Any:
        """The type of a JSON body, or None for a route without one."""
        declared = self.parameters.get("body")
        if declared in (Upload, RawBody):
            return None
        others = tuple(kind for kind in get_args(declared) if kind is not Upload)
        return Union[others] if Upload in get_args(declared) else declared  # noqa: UP007 - made at run time

    @property
    def takes_body(self) -> bool:
        """Return whether a request has a body."""
        return "body" in self.parameters

    @property
    def path_parameters(self) -> Mapping[str, tuple[str | None, TypeAdapter[Any]]]:
        """The parts of the path by name: the router's converter, and the type of the handler's parameter."""
        return {
            part["name"]: (part["converter"], TypeAdapter(self.parameters[part["name"]]))
            for part in _PART.finditer(self.path)
        }

    @property
    def is_stream(self) -> bool:
        """Return whether the answer is a stream without a known end."""
        return self.answers[self.status].item is not None and self.media_types == (EVENT_STREAM,)


def json(
    model: Any = None,
    *,
    description: str = "",
    headers: Mapping[str, str] | None = None,
    optional: Mapping[str, str] | None = None,
    excerpt: Excerpt | None = None,
) -> Answer:
    """Declare a JSON answer of `model`."""
    return Answer(
        model, description=description, headers=headers or {}, optional=optional or {}, excerpt=excerpt
    )


def rows(
    model: Any,
    *,
    item: Any,
    headers: Mapping[str, str] | None = None,
    optional: Mapping[str, str] | None = None,
) -> Answer:
    """Declare pages of `model` that are also available as CSV or one JSON document per line."""
    media_types = (JSON, NDJSON, CSV)
    return Answer(model, media_types, item=item, headers=headers or {}, optional=optional or {})


def lines(model: Any, *, item: Any) -> Answer:
    """Declare pages of `model` that are also available as one JSON document per line."""
    return Answer(model, media_types=(JSON, NDJSON), item=item)


def events(*, item: Any) -> Answer:
    """Declare a stream of server-sent events whose data are `item`."""
    return Answer(None, media_types=(EVENT_STREAM,), item=item)


def nothing(*, headers: Mapping[str, str] | None = None) -> Answer:
    """Declare an answer without a body."""
    return Answer(None, media_types=(), headers=headers or {})


def get(path: str, handler: Handler, **declared: Any) -> Endpoint:
    """Declare a route that reads; HEAD is served with it."""
    return Endpoint(method="GET", path=path, handler=handler, **declared)


def post(path: str, handler: Handler, **declared: Any) -> Endpoint:
    """Declare a route that creates something or has an effect; it honours `Idempotency-Key`."""
    return Endpoint(
        method="POST",
        path=path,
        handler=handler,
        **{"idempotency": Idempotency.CLAIM, "rate": RateClass.WRITE, **declared},
    )


def put(path: str, handler: Handler, **declared: Any) -> Endpoint:
    """Declare a route that sets something to the value in the body; it is idempotent."""
    return Endpoint(method="PUT", path=path, handler=handler, **{"rate": RateClass.WRITE, **declared})


def patch(path: str, handler: Handler, **declared: Any) -> Endpoint:
    """Declare a route that changes something."""
    return Endpoint(method="PATCH", path=path, handler=handler, **{"rate": RateClass.WRITE, **declared})


def delete(path: str, handler: Handler, **declared: Any) -> Endpoint:
    """Declare a route that deletes or ends something."""
    return Endpoint(method="DELETE", path=path, handler=handler, **{"rate": RateClass.WRITE, **declared})

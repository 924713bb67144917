"""What every route of the gateway shares: authentication, deadlines, reading bodies, problem documents."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from quart import Quart, Response, has_request_context, request, websocket
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from chassis import logging
from chassis.deadlines import Deadline
from chassis.errors import (
    DatabaseUnavailable,
    Forbidden,
    InvalidInput,
    MalformedInput,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    ServiceError,
    UnsupportedMediaType,
)
from chassis.http1.admission import mark_authenticated
from chassis.problems import field_errors, problem, problem_headers
from contracts.message import FieldError
from contracts.scopes import Scope
from gateway.http import strict_json as documents
from gateway.http.bodies import BODY, Body
from gateway.http.edge import ROUTE
from gateway.http.principal import Principal
from gateway.identity.keyring import KeyRing

log = logging.get(__name__)

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Handler = Callable[..., Awaitable[Response]]

JSON = "application/json"
# RFC 7240: a preference that is not understood, or not well-formed, is passed over.
_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9}(?:\.\d{1,9})?)"?\s*(?:[,;]|$)', re.IGNORECASE)
_MOST_S = 30.0
_LARGE_BYTES = 64 * 1024


class Api:
    """Registers routes on the application; each says the scope it needs."""

    def __init__(self, app: Quart, keyring: KeyRing, *, timeout_s: float) -> None:
        self.app = app
        self.keyring = keyring
        self._timeout_s = timeout_s
        app.register_error_handler(ServiceError, _on_service_error)
        app.register_error_handler(HTTPException, _on_http_exception)
        app.register_error_handler(Exception, _on_unexpected)

    def route(
        self, rule: str, *, methods: tuple[str, ...] = ("GET",), scope: str | None
    ) -> Callable[[Handler], Handler]:
        """Serve `rule` to keys with `scope` (None: any good key); the handler gets the caller first."""

        def register(handler: Handler) -> Handler:
            @wraps(handler)
            async def guarded(**arguments: Any) -> Response:
                # The proxy looks the request up at each touch: once is enough.
                current = request._get_current_object()  # type: ignore[attr-defined]  # werkzeug's proxy has it
                current.scope[ROUTE] = rule
                principal = await self.authenticate(current)
                if scope is not None and not principal.may(Scope(scope)):
                    raise Forbidden(f"This needs the scope {scope}; the key does not have it.")
                return await handler(principal, **arguments)

            self.app.add_url_rule(rule, f"{methods[0]} {rule}", guarded, methods=list(methods))
            return handler

        return register

    async def authenticate(self, connection: Any) -> Principal:
        """Who makes this request or opens this WebSocket."""
        principal = await self.keyring.authenticate(token(connection.headers))
        mark_authenticated(connection.scope)
        return principal

    def deadline(self) -> Deadline:
        """Until when the caller waits: `Request-Timeout` or `Prefer: wait=`, in seconds, 30 at most."""
        asked = request.headers.get("request-timeout")
        if asked is None:
            match = _WAIT.search(",".join(request.headers.getlist("prefer")))
            preferred_s = float(match[1]) if match else 0
            return Deadline.after(min(preferred_s, _MOST_S) or self._timeout_s)
        try:
            seconds = float(asked)
        except ValueError:
            seconds = 0
        if not seconds > 0:
            raise InvalidInput("Request-Timeout is a number of seconds above 0, 30 at most.")
        return Deadline.after(min(seconds, _MOST_S))

    @asynccontextmanager
    async def within_deadline(self) -> AsyncIterator[None]:
        """Give the block, which writes a promise down, as long as the caller waits; from now on.

        Raises `DatabaseUnavailable` when that is over: nothing else is waited for. Whether the promise was
        made is not known then, but an Idempotency-Key knows it.
        """
        try:
            async with asyncio.timeout(self.deadline().remaining_s()) as waiting:
                yield
        except TimeoutError as error:
            if not waiting.expired():
                raise
            raise DatabaseUnavailable(
                "The database did not take it in time; send it again with the same Idempotency-Key.",
                retry_after_s=2,
            ) from error


def token(headers: Headers) -> str | None:
    """The API key in the headers of a request."""
    authorization = headers.get("authorization")
    if authorization is None:
        return headers.get("x-api-key")
    kind, _, value = authorization.partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; bytes are taken as JSON already."""
    data = body if isinstance(body, bytes) else orjson.dumps(body, default=_plain, option=orjson.OPT_UTC_Z)
    return Response(data, status, headers=dict(headers or {}), content_type=JSON)


def require_media_type(*accepted: str) -> str:
    """The request's media type; raises `UnsupportedMediaType` when it is none of `accepted`."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in accepted:
        raise UnsupportedMediaType(f"Send the body as {' or '.join(accepted)}, not as {given or 'nothing'}.")
    return given


async def read_body() -> bytes:
    """The whole body; raises `PayloadTooLarge` without reading on when it is over the limit."""
    body: Body = scope_of(request)[BODY]
    body.require_within(request.headers.get("content-length"))
    data = await request.get_data(cache=False)
    body.require_within(None)
    return data if isinstance(data, bytes) else data.encode()


async def offload_if_large(function: Callable[[bytes], T], body: bytes) -> T:
    """`function` of `body`; of a large one in a thread, for the loop has other requests to serve."""
    if len(body) < _LARGE_BYTES:
        return function(body)
    return await asyncio.to_thread(function, body)


async def read_json(model: type[M]) -> M:
    """The JSON body as `model`. Raises `MalformedInput` for broken JSON, `InvalidInput` naming each field."""
    require_media_type(JSON)
    return parse(model, await read_body())


def parse(model: type[M], data: bytes) -> M:
    """`data` as `model`, or the error that says what is wrong with it."""
    documents.load(data)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise _misfit("The body does not fit its description; see errors.", error) from None


def build(model: type[M], **values: Any) -> M:
    """`model` from parts of a body that was parsed, or the error that says what is wrong with them."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _misfit("The body does not fit its description; see errors.", error) from None


def read_query(model: type[M]) -> M:
    """The query string as `model`; a parameter that is not known is refused like one that is wrong."""
    values = {name: request.args.getlist(name) for name in request.args}
    single = {name: found[-1] for name, found in values.items()}
    for name, value in single.items():
        if "\0" in value:
            raise invalid(f"/{name}", "The character U+0000 is not allowed.")
    try:
        return model.model_validate(single)
    except ValidationError as error:
        raise _misfit("The query does not fit its description.", error) from None


def accepted_type(*offered: str) -> str:
    """The media type of `offered` that the caller likes best; raises `NotAcceptable`."""
    if "accept" not in request.headers:
        return offered[0]
    best = request.accept_mimetypes.best_match(offered)
    if best is None:
        raise NotAcceptable(f"This can be had as {', '.join(offered)}.")
    return best


def invalid(pointer: str, detail: str) -> InvalidInput:
    """The error of one field."""
    return InvalidInput(detail, errors=[FieldError(pointer=pointer, detail=detail)])


def is_known(etag: str) -> bool:
    """Whether the caller has what `etag` (quoted) stands for."""
    given = request.headers.get("if-none-match")
    return given is not None and (given == etag or request.if_none_match.contains_weak(etag[1:-1]))


def is_head() -> bool:
    """Whether only the headers are asked for: a stream must not begin then."""
    return request.method == "HEAD"


def scope_of(connection: Any) -> dict[str, Any]:
    """The ASGI scope of a request: where the edge and the routes leave things for each other."""
    scope: dict[str, Any] = connection.scope
    return scope


def _misfit(detail: str, error: ValidationError) -> InvalidInput:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return InvalidInput(detail, errors=field_errors(list(problems)))


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def problem_answer(error: ServiceError) -> Response:
    """`error` as the answer to the request at hand."""
    return Response(orjson.dumps(problem(error)), error.status, headers=problem_headers(error))


async def _on_service_error(error: ServiceError) -> Response:
    return problem_answer(error)


async def _on_http_exception(error: HTTPException) -> Response:
    headers = dict(error.get_response().headers)
    if error.code == 404:
        return problem_answer(NotFound("There is nothing at this address."))
    if error.code == 405:
        allow = {"allow": headers.get("Allow", "")}
        return problem_answer(MethodNotAllowed(f"Use one of: {allow['allow']}.", headers=allow))
    if error.code is not None and 300 <= error.code < 400:
        return Response(b"", error.code, headers={"location": headers.get("Location", "/")})
    found = MalformedInput(error.description or "The request could not be read.")
    document = {**problem(found), "status": error.code, "title": error.name}
    return Response(
        orjson.dumps(document), error.code or 400, headers={"content-type": "application/problem+json"}
    )


async def _on_unexpected(error: Exception) -> Response:
    path = request.path if has_request_context() else websocket.path
    log.error("request failed", path=path, exc_info=error)
    return problem_answer(ServiceError("The gateway failed; its log has this request's id."))

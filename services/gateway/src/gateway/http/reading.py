"""Strict parsing of a request: headers, query, path and body become the typed values of a declaration."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from chassis import threads
from chassis.deadlines import Deadline
from chassis.errors import (
    InvalidInput,
    MalformedInput,
    NotAcceptable,
    PayloadTooLarge,
    Unauthenticated,
    UnsupportedMediaType,
)
from chassis.problems import pointer
from gateway.errors import (
    BodyTooSlow,
    HeaderTooLong,
    IdempotencyNotSupported,
    UploadStalled,
)
from gateway.http import strict_json
from gateway.http.bodies import BODY, Body, is_slow
from gateway.http.calls import IdempotencyKey, IncomingRequest, Upload
from gateway.http.endpoints import Endpoint, Idempotency
from gateway.http.problems import invalid, misfit
from gateway.http.replies import CSV, JSON, NDJSON
from gateway.http.stepping import Finished, begin

_LEAST_S, _MOST_S = 0.05, 30.0
# How long an upload may take: the time of the largest one at this rate, plus a base. Only the time during
# which nothing was available to read counts.
UPLOAD_BASE_S = 300.0
UPLOAD_BYTES_A_SECOND = 300 * 1024
_LONGEST_KEY = 255
_QUOTED_KEY = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE_KEY = re.compile(r"[\x21\x23-\x7e]+")
# The prefix of API keys, which live too long to appear in a URL, where they are recorded.
_KEY_PREFIX = "tw_live_"
# RFC 7240: an unknown or malformed preference is ignored.
_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9}(?:\.\d{1,9})?)"?\s*(?:[,;]|$)', re.IGNORECASE)
# To check an address beyond ASCII, also in escapes and Punycode, takes up to a millisecond.
_FEW_ADDRESSES = 5
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]|\\u|xn--", re.IGNORECASE)
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_FORMATS = {"json": JSON, "ndjson": NDJSON, "csv": CSV}


def token(request: IncomingRequest) -> str | None:
    """Return the credential of a request: `Authorization: Bearer …` or `X-API-Key`."""
    authorization = request.headers.get(b"authorization")
    if authorization is None:
        return request.header(b"x-api-key")
    kind, _, value = authorization.partition(b" ")
    return value.strip().decode("latin-1") if kind.lower() == b"bearer" else None


def address(request: IncomingRequest) -> str | None:
    """Return the client address of a request, as determined by the server."""
    client = request.scope.get("client")
    return client[0] if client else None


def credential(endpoint: Endpoint, request: IncomingRequest) -> str | None:
    """Return the credential of a request; that of a stream may be the parameter `token`.

    A browser's EventSource sends no headers. Raise `Unauthenticated` for an API key in the URL.
    """
    found = token(request)
    if found is not None or not endpoint.is_stream:
        return found
    found = dict(request.parameters()).get("token")
    if found is not None and found.startswith(_KEY_PREFIX):
        raise Unauthenticated(
            "Proxies and browsers record URLs, so an API key must not be in one: "
            "create a token with POST /v1/realtime/tokens.",
            headers={"www-authenticate": 'Bearer realm="tickwire"'},
        )
    return found


def deadline(request: IncomingRequest, default_s: float, *, since: float) -> Deadline:
    """Return the deadline of a request: `Request-Timeout` or `Prefer: wait=`, in seconds from its arrival.

    `since` is the arrival in seconds of the monotonic clock.
    """
    asked = request.header(b"request-timeout")
    if asked is None:
        prefer = request.short_header(b"prefer")
        match = _WAIT.search(prefer) if prefer else None
        wanted_s = float(match[1]) if match else 0.0
        return Deadline(since + (min(max(wanted_s, _LEAST_S), _MOST_S) if wanted_s else default_s))
    if not _SECONDS.fullmatch(asked) or float(asked) < _LEAST_S:
        raise InvalidInput(f"Request-Timeout must be a number of seconds from {_LEAST_S} to {_MOST_S:g}.")
    return Deadline(since + min(float(asked), _MOST_S))


def prefers_wait(request: IncomingRequest) -> bool:
    """Return whether the caller prefers to wait for the outcome instead of an immediate 202."""
    prefer = request.short_header(b"prefer")
    match = _WAIT.search(prefer) if prefer else None
    return match is not None and float(match[1]) > 0


def limits_time(request: IncomingRequest) -> bool:
    """Return whether the caller says how long the request may take."""
    return b"request-timeout" in request.headers or prefers_wait(request)


def is_hurried(request: IncomingRequest, default_s: float) -> bool:
    """Return whether the caller allows less time than the default; an invalid time counts as none."""
    has_asked = b"request-timeout" in request.headers or b"prefer" in request.headers
    try:
        return has_asked and deadline(request, default_s, since=0).at < default_s - _LEAST_S
    except (HeaderTooLong, InvalidInput):
        return False


def query(endpoint: Endpoint, request: IncomingRequest) -> Any:
    """Return the query string as the declared model; unknown and repeated parameters are refused."""
    given = request.parameters()
    model = endpoint.query
    if model is None and not given:
        return None
    values: dict[str, str] = {}
    for name, value in given:
        if name in values:
            raise invalid(pointer((name,)), "The parameter must not be repeated.")
        values[name] = value
    if model is None:
        if values:
            name = next(iter(values))
            raise invalid(pointer((name,)), "This route has no query parameters.")
        return None
    return query_of(model, values)


def query_of(model: type[BaseModel], values: Mapping[str, str]) -> Any:
    """Return parameters, written as in a query string, as `model`. Raise `InvalidInput` if they misfit."""
    for name, value in values.items():
        if "\0" in value:
            raise invalid(pointer((name,)), "The character U+0000 is not allowed.")
    for name in _whole_numbers(model) & values.keys():
        require_whole(name, values[name])
    try:
        return model.model_validate_strings(values)
    except ValidationError as error:
        raise misfit("The query does not match its schema; see errors.", error) from None


def require_whole(name: str, text: str) -> None:
    """Raise `InvalidInput` for a number not written in digits; pydantic accepts `1_0` and `1.0`, too."""
    if not _WHOLE.fullmatch(text):
        raise invalid(f"/{name}", f"{name} must be a whole number in decimal digits.")


@lru_cache
def _whole_numbers(model: type[BaseModel]) -> frozenset[str]:
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return frozenset(name for name, kind in kinds.items() if kind is int or int in get_args(kind))


def path(adapters: Mapping[str, TypeAdapter[Any]], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the path with the types that the handler declares."""
    values = dict(found)
    for name, adapter in adapters.items():
        try:
            values[name] = adapter.validate_python(found[name])
        except ValidationError as error:
            detail = f"The {name} in the path is not valid; see errors."
            raise misfit(detail, error, at=pointer((name,))) from None
    return values


def media_type(endpoint: Endpoint, request: IncomingRequest, query: Any) -> str:
    """Return the media type of the response: by `format=`, else by `Accept`. Raise `NotAcceptable`."""
    offered = endpoint.media_types
    if len(offered) > 1 and (wanted := getattr(query, "format", None)) is not None:
        return _FORMATS[wanted]
    accept = request.short_header(b"accept")
    if not offered:
        return JSON
    if not accept or accept == "*/*":
        return offered[0]
    best = _negotiate(accept, offered)
    if best is None:
        raise NotAcceptable(f"The response is available as {', '.join(offered)}; correct Accept.")
    return best


@lru_cache(maxsize=256)
def _negotiate(accept: str, offered: tuple[str, ...]) -> str | None:
    return parse_accept_header(accept, MIMEAccept).best_match(offered)


def idempotency_key(endpoint: Endpoint, request: IncomingRequest) -> str | None:
    """Return the key of a request, unquoted. Raise if it is malformed or the route does not support it."""
    header = request.header(b"idempotency-key")
    if header is None:
        return None
    if endpoint.idempotency is Idempotency.NONE:
        raise IdempotencyNotSupported(
            f"{endpoint.method} {endpoint.template} is idempotent: omit Idempotency-Key."
        )
    quoted = _QUOTED_KEY.fullmatch(header.strip())
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header.strip()
    if not key or len(key) > _LONGEST_KEY or not (quoted or _BARE_KEY.fullmatch(key)):
        raise InvalidInput(
            f"Idempotency-Key must be a quoted string of 1 to {_LONGEST_KEY} printable characters."
        )
    return key


def request_digest(request: IncomingRequest) -> hashlib._Hash:
    """Return the beginning of a request's hash: its method, path and query."""
    scope = request.scope
    target = f"{scope['method']} {scope['path']}".encode()
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    return hashlib.sha256(target + b"\n")


async def json_body(adapter: TypeAdapter[Any], data: bytes, until: Deadline) -> Any:
    """Return the body `data` as the declared type. Raise an error that names what is wrong."""
    addresses = data.count(b"@") + data.count(b"\\u0040")
    if not is_slow(data) and (addresses <= _FEW_ADDRESSES or not _BEYOND_ASCII.search(data)):
        return parse(adapter, data)
    return await threads.run(partial(parse, adapter, data), until=until)


def parse(adapter: TypeAdapter[Any], data: bytes) -> Any:
    """Return `data`, a JSON document, as the type of `adapter`."""
    strict_json.load(data)
    try:
        return adapter.validate_json(data, strict=True)
    except ValidationError as error:
        raise misfit("The body does not match its schema; see errors.", error) from None


def require_media_type(request: IncomingRequest, *accepted: str) -> str:
    """Return the media type of the body. Raise `UnsupportedMediaType` if it is not among `accepted`.

    Raise `MalformedInput` for a part of a body.
    """
    if b"content-range" in request.headers:
        # The part would be taken for the whole (RFC 9110, section 14.5).
        raise MalformedInput("Content-Range is not supported: send the whole body, without this header.")
    given, charset = _read_content_type(request.short_header(b"content-type"))
    if given not in accepted:
        raise UnsupportedMediaType(f"Send the body as {' or '.join(accepted)}, not as {given or 'nothing'}.")
    if charset.lower() != "utf-8":
        raise UnsupportedMediaType(f"The body must be in UTF-8, not in {charset[:50]!r}.")
    return given


def require_coding(request: IncomingRequest, *codings: str) -> None:
    """Raise `UnsupportedMediaType` for a body with a content coding that is not among `codings`."""
    coding, accepted = _coding(request), ("identity", *codings)
    if coding not in accepted:
        raise UnsupportedMediaType(
            f"The content coding {coding[:50]!r} is not supported here: send the body without it.",
            headers={"accept-encoding": ", ".join(accepted)},
        )


@lru_cache(maxsize=256)
def _read_content_type(header: str | None) -> tuple[str, str]:
    given, options = parse_options_header(header)
    return given.strip().lower(), options.get("charset", "utf-8")


async def require_no_body(request: IncomingRequest, until: Deadline) -> None:
    """Raise `InvalidInput` for a body that the route would ignore; an empty one must end by `until`."""
    if request.is_complete.is_set():
        return
    limits: Body = request.scope[BODY]
    limits.limit = 0
    try:
        await read_all(request, until)
    except PayloadTooLarge:
        raise InvalidInput("This route does not accept a body; send the request without one.") from None


def _coding(request: IncomingRequest) -> str:
    return (request.header(b"content-encoding") or "identity").strip().lower()


def largest_size(request: IncomingRequest) -> int:
    """Return the largest possible size of the body in bytes. Raise as `read_all`."""
    if request.is_complete.is_set():
        return 0
    limits: Body = request.scope[BODY]
    announced = request.header(b"content-length")
    limits.require_within(announced)
    return int(announced) if announced is not None and announced.isdecimal() else limits.limit


async def read_all(request: IncomingRequest, until: Deadline) -> bytes:
    """Return the whole body.

    Raise `PayloadTooLarge` without reading on if it is over the limit, and `BodyTooSlow` if it has not
    arrived by `until`.
    """
    limits: Body = request.scope[BODY]
    limits.require_within(request.header(b"content-length"))

    async def collect() -> list[bytes]:
        return [part async for part in arriving(request)]

    try:
        rest = begin(collect())
    except Finished as finished:
        parts: list[bytes] = finished.value
    else:
        try:
            async with asyncio.timeout(min(until.remaining_s(), _MOST_S)) as waiting:
                parts = await rest
        except TimeoutError:
            if not waiting.expired():
                raise
            raise BodyTooSlow(
                "The body did not arrive within the time that the request allows; send it again."
            ) from None
    limits.require_within(None)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def arriving(request: IncomingRequest, *, within_s: float = math.inf) -> AsyncIterator[bytes]:
    """Yield the parts of the body as they arrive.

    Raise `MalformedInput` if the client disconnects, and `UploadStalled` after waiting for it longer than
    `within_s` seconds in total.
    """
    waited_s = 0.0
    while not request.is_complete.is_set():
        began = time.monotonic()
        try:
            async with nullcontext() if within_s == math.inf else asyncio.timeout(within_s - waited_s):
                message = await request.receive()
        except TimeoutError:
            raise UploadStalled(
                f"The upload did not arrive within {within_s:.0f} s; send it over a faster connection."
            ) from None
        waited_s += time.monotonic() - began
        if message["type"] != "http.request":
            raise MalformedInput("The connection was closed before the whole body had arrived.")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            request.is_complete.set()


def upload(request: IncomingRequest, limit: int) -> Upload:
    """Return the body as a stream of up to `limit` bytes."""
    limits: Body = request.scope[BODY]
    limits.open_stream(limit)
    limits.require_within(request.header(b"content-length"))
    return Upload(
        arriving(request, within_s=UPLOAD_BASE_S + limit / UPLOAD_BYTES_A_SECOND),
        limits.has_read,
        lambda: limits.require_within(None),
        request_digest(request),
        limit,
        is_gzip=_coding(request) == "gzip",
    )


def key_of(request: IncomingRequest, key: str | None, data: bytes) -> IdempotencyKey | None:
    """Return the idempotency key together with the hash of the whole request."""
    if key is None:
        return None
    digest = request_digest(request)
    digest.update(data)
    return IdempotencyKey(key, digest.digest())

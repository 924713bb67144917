"""`http.request`: one HTTP request per item, to public servers only. Redirects are not followed."""

from __future__ import annotations

import base64
import json
import re
from typing import Annotated, Any, Literal
from uuid import uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from batch_processor.operation import Context, Operation
from chassis import plain
from chassis.egress.client import HttpAnswer, HttpRequest
from chassis.egress.destinations import MOST_CHARACTERS, URL_PATTERN
from chassis.errors import ServiceError
from contracts.message import Json
from contracts.scopes import Scope

MOST_BODY = 128 * 1024
MOST_HEADERS = 50
MOST_TIMEOUT_S = 30
_MOST_HEADER_BYTES = 16 * 1024
_MOST_TOLD = 200
# Headers of the connection, and those that identify the client to a server: set here, or not at all.
_REFUSED_HEADERS = re.compile(
    r"(?:host|content-length|transfer-encoding|connection|keep-alive|upgrade|te|trailer|expect|via|forwarded"
    r"|accept-encoding|proxy-.*|x-forwarded-.*|x-real-ip|x-aws-ec2-metadata-.*|metadata(-flavor)?)",
    re.IGNORECASE,
)
_MAY_PASS = frozenset({408, 425, 429})


class HttpClientError(ServiceError):
    """The server answered with a status that a retry will not change."""

    code = "http-client-error"


class HttpServerError(ServiceError):
    """The server answered with a status that may be temporary."""

    code = "http-server-error"


def _own(name: str) -> str:
    # Many servers treat `_` and `-` in a name as the same.
    if _REFUSED_HEADERS.fullmatch(name.replace("_", "-")):
        raise ValueError("must not be set: the service sets this header itself, or does not send it")
    return name


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"), AfterValidator(_own)]
HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,4096}$")]


class HttpRequestPayload(BaseModel):
    """A request to a public server: with a `body` of text, with `content` that is sent as JSON, or neither.

    Headers are stored with the item as long as the batch is kept: use only secrets that can be revoked.
    """

    model_config = ConfigDict(extra="forbid")

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: str = Field(
        pattern=URL_PATTERN,
        max_length=MOST_CHARACTERS,
        description="an http or https URL in ASCII, without a user or a password",
        examples=["https://example.com/"],
    )
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=MOST_HEADERS)
    body: str | None = Field(default=None, max_length=MOST_BODY)
    content: Any = Field(default=None, description="sent as JSON, with its content type; null sends nothing")
    timeout_s: float = Field(default=10, gt=0, le=MOST_TIMEOUT_S)
    any_status: bool = Field(default=False, description="an answer of any status is the result, not only 2xx")

    @model_validator(mode="after")
    def _is_bounded(self) -> HttpRequestPayload:
        if self.body is not None and self.content is not None:
            raise ValueError("must have body or content, not both")
        if len(self.sent()) > MOST_BODY:
            raise ValueError(f"the body that is sent may have at most {MOST_BODY} bytes")
        if len({name.lower() for name in self.headers}) < len(self.headers):
            raise ValueError("headers must not have the same name twice; case does not matter")
        if sum(len(name) + len(value) for name, value in self.headers.items()) > _MOST_HEADER_BYTES:
            raise ValueError(f"the headers may have at most {_MOST_HEADER_BYTES} bytes in total")
        return self

    def sent(self) -> bytes:
        """Return the body of the request. Raise `ValueError` for content that JSON cannot express."""
        if self.content is None:
            return (self.body or "").encode()
        # Keeps numbers of any size: `orjson` would reject integers beyond 64 bits.
        return json.dumps(self.content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


async def run(wish: HttpRequestPayload, context: Context) -> Json:
    """Return the answer's status, headers and body. Raise an error for a status that is not 2xx.

    All attempts have the same `Idempotency-Key`, so that a server can recognise a repetition.
    """
    headers = {name.lower(): value for name, value in wish.headers.items()}
    headers.setdefault("idempotency-key", f'"{uuid5(context.batch_id, str(context.position))}"')
    if wish.content is not None:
        headers.setdefault("content-type", "application/json")
    request = HttpRequest(wish.method, wish.url, headers, wish.sent())
    answer = await context.fetch(request, timeout_s=wish.timeout_s)
    if not (wish.any_status or 200 <= answer.status < 300):
        raise _failure(answer)
    text = _text(answer.body)
    answered: dict[str, Json] = {}
    left = _MOST_HEADER_BYTES
    for name, value in answer.headers.items():
        left -= len(name) + len(value)
        if left >= 0:
            answered[name] = plain.text(value)
    return {
        "status": answer.status,
        "headers": answered,
        "body": base64.b64encode(answer.body).decode() if text is None else text,
        "encoding": "base64" if text is None else "text",
    }


def _text(body: bytes) -> str | None:
    """Return `body` as text; None when it is not text, or has a NUL, which PostgreSQL cannot store."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _failure(answer: HttpAnswer) -> ServiceError:
    detail = f"The server answered with status {answer.status}."
    if location := answer.headers.get("location"):
        shown = plain.text(location, most=_MOST_TOLD)
        detail += f" Redirects are not followed; this one leads to {shown}."
    elif said := (_text(answer.body) or "").strip():
        detail += f" It says: {plain.text(said, most=_MOST_TOLD)}"
    may_pass = answer.status in _MAY_PASS or answer.status >= 500
    return (HttpServerError if may_pass else HttpClientError)(detail)


OPERATION = Operation(
    name="http.request",
    description="Sends an HTTP request to a public server; the result is its answer. For administrators.",
    payload=HttpRequestPayload,
    run=run,
    required_scopes=frozenset({Scope.ADMIN}),
    chunk_size=20,
    concurrency=10,
    timeout_s=MOST_TIMEOUT_S + 10,
)

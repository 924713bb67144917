"""One call of an endpoint: the request as received, and the typed values for its handler."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from werkzeug.datastructures import ETags

from chassis import threads
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from chassis.postgres import Connection
from gateway.errors import HeaderTooLong, PreconditionFailed
from gateway.http.bodies import is_slow
from gateway.http.principal import Principal
from gateway.http.rates import LimitHeaders

T = TypeVar("T")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Write = Callable[[Connection], Awaitable[object]]
AfterCommit = Callable[[], Awaitable[None]]

# The longest header that is parsed: 64 KiB of media types or versions took 50 ms of the event loop.
_TAKEN_APART_BYTES = 4 * 1024
# No route has so many; parsing the thousand that fit into 8 KiB took 10 ms of the event loop.
_MOST_PARAMETERS = 100


class IncomingRequest:
    """A request as received from the server: its ASGI scope, and the body that follows."""

    __slots__ = ("headers", "is_abandoned", "is_complete", "limit_headers", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive | None = None) -> None:
        self.scope = scope
        self.receive = receive or _nothing
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b", " + value if name in headers else value
        self.headers = headers
        # Set once the whole body has arrived; immediately if the request announces none.
        self.is_complete = asyncio.Event()
        self.is_abandoned = False
        # Of a request that was counted, for its answer.
        self.limit_headers: LimitHeaders | None = None
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            self.is_complete.set()

    def header(self, name: bytes) -> str | None:
        """Return a header by its lower-case name; repeated ones are joined with commas."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def short_header(self, name: bytes) -> str | None:
        """Return a header that is to be parsed, which takes some microseconds for each of its parts.

        Raise `HeaderTooLong` if it has more than `_TAKEN_APART_BYTES`.
        """
        value = self.headers.get(name)
        if value is not None and len(value) > _TAKEN_APART_BYTES:
            raise HeaderTooLong(f"{name.decode().title()} may have at most {_TAKEN_APART_BYTES} bytes.")
        return self.header(name)

    def parameters(self) -> list[tuple[str, str]]:
        """Return the parameters of the query. Raise `InvalidInput` if there are too many, or not in UTF-8."""
        text = self.scope["query_string"].decode("ascii", "replace")
        if not text:
            return []
        try:
            return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
        except UnicodeDecodeError:
            # Another text would be looked for than the caller has sent.
            raise InvalidInput("A query must be in UTF-8, with percent-encoding.") from None
        except ValueError:
            raise InvalidInput(f"A query may have at most {_MOST_PARAMETERS} parameters.") from None


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's name for one request, and the hash of the whole request."""

    key: str
    body_hash: bytes


@dataclass(slots=True)
class Upload:
    """A body that is received as a stream, no faster than it is read.

    `has_read` is called with the number of bytes handled, which lets more arrive. `digest` starts with the
    method and the path and covers every byte, so that a repeated upload can be recognised. A body that
    `is_gzip` may have up to `limit` bytes unpacked, too.
    """

    parts: AsyncIterator[bytes]
    has_read: Callable[[int], None]
    require_within_limit: Callable[[], None]
    digest: hashlib._Hash
    limit: int
    is_gzip: bool = False


@dataclass(frozen=True, slots=True)
class RawBody:
    """A whole unparsed body, in one of the media types that its route `takes`."""

    content: bytes
    media_type: str


@dataclass(slots=True)
class Call:
    """The context of one call: its caller, its deadline, and what its headers ask for.

    `document` is the JSON body byte for byte, for values that are stored exactly as the caller wrote them.
    `prefers_wait` is true if the caller prefers to wait for the outcome, until `deadline` (RFC 7240).
    `writes` are done in one transaction once the handler has returned: the handler holds no connection while
    it waits for other services.
    """

    principal: Principal
    deadline: Deadline
    media_type: str
    idempotency_key: IdempotencyKey | None = None
    if_match: ETags | None = None
    last_event_id: str | None = None
    prefers_wait: bool = False
    document: bytes = b"null"
    transaction: Connection | None = None
    writes: list[Write] = field(default_factory=list)
    after_commit: list[AfterCommit] = field(default_factory=list)

    async def compute(self, work: Callable[[], T]) -> T:
        """Return the result of `work` on the body, which a thread does if reading the body needed one.

        No connection may be held meanwhile. Raise as `threads.run` does.
        """
        return await threads.run(work, until=self.deadline) if is_slow(self.document) else work()

    @property
    def connection(self) -> Connection:
        """The transaction that the server opened for this call, available only if the route declares it."""
        assert self.transaction is not None, "the route does not declare a transaction"
        return self.transaction

    @property
    def request_key(self) -> str | None:
        """The key by which another service recognises a repetition of this request; None without a key.

        It contains the hash of the body, because the `Idempotency-Key` may name another request tomorrow.
        """
        key = self.idempotency_key
        return None if key is None else f"{key.body_hash.hex()}:{key.key}"

    @property
    def names_versions(self) -> bool:
        """Return whether `If-Match` names versions, one of which must be the current one."""
        return self.if_match is not None and not self.if_match.star_tag

    def require_revision(self, revision: object, *, etag: str) -> None:
        """Raise `PreconditionFailed` if `If-Match` names other revisions, the first part of entity tags.

        Changes that no request made alter the entity tag `etag`, but not the revision.
        """
        if self.if_match is None or self.if_match.star_tag:
            return
        if not any(tag.split(".")[0] == str(revision) for tag in self.if_match.as_set()):
            self.require_match(etag)

    def require_match(self, etag: str) -> None:
        """Raise `PreconditionFailed` if `If-Match` names versions but not `etag` (quoted)."""
        if self.if_match is None or self.if_match.star_tag or self.if_match.contains(etag.strip('"')):
            return
        raise PreconditionFailed(
            f"The current version is {etag}; read it again and repeat the change with its entity tag."
        )

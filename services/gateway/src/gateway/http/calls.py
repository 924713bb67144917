"""One call of an endpoint, as its handler sees it: typed values, independent of the framework."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from werkzeug.datastructures import ETags

from chassis.deadlines import Deadline
from chassis.postgres import Connection
from gateway.errors import PreconditionFailed
from gateway.http.principal import Principal

Write = Callable[[Connection], Awaitable[object]]
AfterCommit = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's name for one request, and the hash of the whole request."""

    key: str
    body_hash: bytes


@dataclass(slots=True)
class Upload:
    """A body that is taken as a stream, no faster than it is read.

    `has_read` is called with the number of bytes handled, which lets more arrive. `digest` starts with the
    method and the path and sees every byte, so that a repeated upload can be recognised. A body that
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
    """A body that is passed on whole and unparsed, in one of the media types that its route `takes`."""

    content: bytes
    media_type: str


@dataclass(slots=True)
class Call:
    """The context of one call: its caller, its deadline, and what its headers ask for.

    `document` is the JSON body byte for byte, for values of the caller that are kept as they were written.
    `prefers_wait` says that the caller prefers to wait for the outcome, until `deadline` (RFC 7240).
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

    @property
    def connection(self) -> Connection:
        """The transaction that the server has opened for this call; only where the route declares it."""
        assert self.transaction is not None, "the route does not declare a transaction"
        return self.transaction

    @property
    def request_key(self) -> str | None:
        """The name by which another service recognises a repetition of this request; None without a key.

        It contains the hash of the body, because the `Idempotency-Key` may name another request tomorrow.
        """
        key = self.idempotency_key
        return None if key is None else f"{key.body_hash.hex()}:{key.key}"

    def require_match(self, etag: str) -> None:
        """Raise `PreconditionFailed` when `If-Match` names other versions than `etag` (quoted)."""
        if self.if_match is None or self.if_match.star_tag or self.if_match.contains(etag.strip('"')):
            return
        raise PreconditionFailed(
            f"The current version is {etag}; read it again and repeat the change with its entity tag."
        )

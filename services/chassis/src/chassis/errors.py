"""The tree of errors: a class names its problem type by code; `contracts.problems` has the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from chassis import plain
from contracts import problems
from contracts.message import Failure, FieldError

_RETRY_AFTER_S = 2.0


class ServiceError(Exception):
    """An error with a meaning for the caller; `detail` says what happened, to which thing and what to do."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Take `status`, `title` and `retryable` from the problem type of the class."""
        super().__init_subclass__()
        if own := {"status", "title", "retryable"} & vars(cls).keys():
            raise TypeError(
                f"{cls.__name__} sets {sorted(own)}; contracts/problems.toml says that of {cls.code}."
            )
        found = problems.of(cls.code)
        cls.status, cls.title, cls.retryable = found.status, found.title, found.retryable

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # Safe to return, log and store, whatever input it quotes.
        self.detail = plain.text(detail or self.title)
        super().__init__(self.detail)
        self.errors = [
            FieldError(pointer=plain.text(error.pointer), detail=plain.text(error.detail)) for error in errors
        ]
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})

    def failure(self) -> Failure:
        """Return the same error as an answer to a request over the broker."""
        return Failure(
            code=self.code,
            status=self.status,
            title=self.title,
            detail=self.detail,
            retryable=self.retryable,
            retry_after_s=self.retry_after_s,
            errors=self.errors,
        )


class InvalidInput(ServiceError):
    """The input does not match its schema; `errors` point at the invalid parts."""

    code = "invalid-input"


class MalformedInput(ServiceError):
    """The input could not be parsed at all."""

    code = "malformed-input"


class Unauthenticated(ServiceError):
    """There is no key, or it is unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(ServiceError):
    """The key is valid but lacks a scope."""

    code = "forbidden"


class NotFound(ServiceError):
    """There is no such object, or it belongs to another owner."""

    code = "not-found"


class MethodNotAllowed(ServiceError):
    """The route exists, but not with this method."""

    code = "method-not-allowed"


class NotAcceptable(ServiceError):
    """None of the media types that the caller accepts is available."""

    code = "not-acceptable"


class Conflict(ServiceError):
    """The present state of the object does not allow this."""

    code = "conflict"


class PayloadTooLarge(ServiceError):
    """The body is over its limit."""

    code = "payload-too-large"


class UnsupportedMediaType(ServiceError):
    """The body's media type is not one that this route reads."""

    code = "unsupported-media-type"


class Unavailable(ServiceError):
    """Something that is needed is unavailable; nothing was done."""

    code = "service-unavailable"


class BrokerUnavailable(Unavailable):
    """The message broker cannot be reached, or did not confirm in time."""

    code = "broker-unavailable"


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached."""

    code = "database-unavailable"


class Overloaded(Unavailable):
    """A limit was reached; a later request can succeed."""

    code = "overloaded"


class TooManyAtOnce(ServiceError):
    """The caller has reached its own limit of concurrent work, even if there is room for others."""

    code = "too-many-at-once"


class NotBegun(TooManyAtOnce):
    """The time of a request passed before its turn: others of its owner were worked at meanwhile."""


class DeadlineExceeded(ServiceError):
    """The answer did not come before the caller's deadline."""

    code = "deadline-exceeded"


class RemoteFailure(ServiceError):
    """A service answered a request with an error; it keeps that error's code, status and title.

    A temporary error always has a time after which to retry.
    """

    def __init__(self, failure: Failure) -> None:
        retry_after_s = failure.retry_after_s
        if retry_after_s is None and failure.status == 503:
            retry_after_s = _RETRY_AFTER_S
        super().__init__(failure.detail, errors=failure.errors, retry_after_s=retry_after_s)
        self.code = failure.code  # type: ignore[misc]  # carries the remote error's own identity
        self.status = failure.status  # type: ignore[misc]
        self.title = failure.title  # type: ignore[misc]
        self.retryable = failure.retryable  # type: ignore[misc]

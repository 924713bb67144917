"""Errors that are specific to the gateway."""

from __future__ import annotations

from chassis.errors import ServiceError, Unavailable


class IdempotencyConflict(ServiceError):
    """The first request with this idempotency key is still running."""

    code = "idempotency-running"


class IdempotencyMismatch(ServiceError):
    """The idempotency key was used before with another body."""

    code = "idempotency-mismatch"


class UniqueKeyInUse(ServiceError):
    """The unique key belongs to a task with another operation or payload."""

    code = "unique-key-in-use"


class UniqueKeyMoved(ServiceError):
    """Another task has taken the unique key since it was read."""

    code = "unique-key-in-use"


class BodyTooSlow(ServiceError):
    """The body did not arrive within the time that the request allows."""

    code = "request-timeout"


class UploadStalled(ServiceError):
    """The next part of an upload did not arrive."""

    code = "upload-stalled"


class UploadOffsetMismatch(ServiceError):
    """The offset of an append is not the end of the upload, which is in `Upload-Offset`."""

    code = "upload-offset-mismatch"


class UnknownOperation(ServiceError):
    """No batch-processor offers this operation."""

    code = "unknown-operation"


class MonitoringNotConfigured(ServiceError):
    """The URL of Prometheus is not configured."""

    code = "monitoring-not-configured"


class MonitoringUnavailable(Unavailable):
    """Prometheus did not answer, or its answer is invalid."""

    code = "monitoring-unavailable"


class IdempotencyNotSupported(ServiceError):
    """The route does not honour an idempotency key."""

    code = "idempotency-not-supported"


class PreconditionFailed(ServiceError):
    """The object has changed since the caller read it."""

    code = "precondition-failed"


class PreconditionRequired(ServiceError):
    """The route changes a shared object and requires `If-Match` with the version that the caller read."""

    code = "precondition-required"


class PreconditionNotSupported(ServiceError):
    """The route does not compare versions, so it would ignore the caller's condition."""

    code = "precondition-not-supported"


class NotImplementedMethod(ServiceError):
    """No route of the gateway knows this method."""

    code = "method-not-implemented"


class UpgradeRequired(ServiceError):
    """The path serves WebSockets only, and the request is not an upgrade."""

    code = "upgrade-required"


class TooManyFailures(ServiceError):
    """Too many invalid keys came from one address; for a while no unknown key is looked up."""

    code = "too-many-failures"


class RateLimited(ServiceError):
    """The caller has used up its limit of a class of requests in the current window."""

    code = "rate-limited"


class HeaderTooLong(ServiceError):
    """A header field is too long to be parsed."""

    code = "request-header-fields-too-large"

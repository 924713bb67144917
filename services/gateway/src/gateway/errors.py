"""Errors that only the gateway has."""

from __future__ import annotations

from chassis.errors import ServiceError, Unavailable


class IdempotencyConflict(ServiceError):
    """The first request with this idempotency key is still running."""

    code = "idempotency-running"


class IdempotencyMismatch(ServiceError):
    """The idempotency key was used before with another body."""

    code = "idempotency-mismatch"


class UniqueKeyInUse(ServiceError):
    """The unique key is that of a task with another operation or payload."""

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
    """The offset of an append is not the end of the upload; `Upload-Offset` is."""

    code = "upload-offset-mismatch"


class UnknownOperation(ServiceError):
    """No batch-processor offers this operation."""

    code = "unknown-operation"


class MonitoringNotConfigured(ServiceError):
    """The address of Prometheus is not configured."""

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
    """The route compares no versions, so it would ignore the condition that the caller makes."""

    code = "precondition-not-supported"


class NotImplementedMethod(ServiceError):
    """No route of the gateway knows this method."""

    code = "method-not-implemented"


class UpgradeRequired(ServiceError):
    """The address is that of a WebSocket, and the request does not ask for one."""

    code = "upgrade-required"


class TooManyFailures(ServiceError):
    """Too many keys from one address were invalid; for a while no further ones are looked up."""

    code = "too-many-failures"


class HeaderTooLong(ServiceError):
    """A header field that is taken apart is longer than that may cost."""

    code = "request-header-fields-too-large"

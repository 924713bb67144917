"""Errors that only the gateway has."""

from __future__ import annotations

from chassis.errors import ServiceError, Unavailable


class IdempotencyConflict(ServiceError):
    """The first request with this idempotency key is still running."""

    code = "idempotency-running"
    status = 409
    title = "The first request still runs"
    retryable = True


class IdempotencyMismatch(ServiceError):
    """The idempotency key was used before with another body."""

    code = "idempotency-mismatch"
    status = 422
    title = "Idempotency key used for another request"


class UploadStalled(ServiceError):
    """The next part of an upload did not come."""

    code = "upload-stalled"
    status = 408
    title = "Upload stalled"
    retryable = True


class UnknownOperation(ServiceError):
    """No batch-processor offers this operation."""

    code = "unknown-operation"
    status = 422
    title = "Unknown operation"


class MonitoringNotConfigured(ServiceError):
    """The gateway was not told where Prometheus is."""

    code = "monitoring-not-configured"
    status = 404
    title = "Monitoring is not configured"


class MonitoringUnavailable(Unavailable):
    """Prometheus did not answer, or not in a way that can be understood."""

    code = "monitoring-unavailable"
    title = "Monitoring unavailable"


class IdempotencyNotSupported(ServiceError):
    """The route does not honour an idempotency key."""

    code = "idempotency-not-supported"
    status = 400
    title = "Idempotency-Key is not supported here"


class PreconditionFailed(ServiceError):
    """The thing has changed since the caller read it."""

    code = "precondition-failed"
    status = 412
    title = "The thing has changed"


class PreconditionRequired(ServiceError):
    """The route changes what several people may edit, and wants to know which version the caller saw."""

    code = "precondition-required"
    status = 428
    title = "If-Match is required"


class NotImplementedMethod(ServiceError):
    """No route of the gateway knows this method."""

    code = "method-not-implemented"
    status = 501
    title = "Method not implemented"

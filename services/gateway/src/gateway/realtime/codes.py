"""The error codes of replies and the close codes of connections of Centrifugo's protocol."""

from __future__ import annotations

from enum import IntEnum

from chassis.errors import Overloaded, ServiceError, TooManyAtOnce
from gateway.errors import RateLimited


class ErrorCode(IntEnum):
    """The reason for a failed command, which with `temporary` tells clients whether to retry."""

    INTERNAL = 100
    UNAUTHORIZED = 101
    UNKNOWN_CHANNEL = 102
    PERMISSION_DENIED = 103
    METHOD_NOT_FOUND = 104
    ALREADY_SUBSCRIBED = 105
    LIMIT_EXCEEDED = 106
    BAD_REQUEST = 107
    NOT_AVAILABLE = 108
    TOKEN_EXPIRED = 109
    TOO_MANY_REQUESTS = 111
    UNRECOVERABLE_POSITION = 112


class CloseCode(IntEnum):
    """The reason for a close by the gateway: a client reconnects after 3000 to 3499, not after 3500 to 3999.

    The codes below 3000 are those of RFC 6455.
    """

    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 3004
    EXPIRED = 3005
    SLOW = 3008
    NO_PONG = 3012
    TOO_MANY_REQUESTS = 3013
    TOO_MANY_CONNECTIONS = 3014
    INVALID_TOKEN = 3500
    BAD_REQUEST = 3501
    STALE = 3502
    PERMISSION_DENIED = 3507


class UnsubscribeCode(IntEnum):
    """The reason for an unsubscribe by the gateway: a client subscribes again from 2500 on, not below."""

    RIGHT_LOST = 2000
    STATE_LOST = 2500


CLOSE_REASONS = {
    CloseCode.PROTOCOL_ERROR: "The length of a frame is encoded in more bytes than necessary.",
    CloseCode.INVALID_TEXT: "A text frame is not valid UTF-8.",
    CloseCode.POLICY_VIOLATION: "Too many frames came in a short time.",
    CloseCode.MESSAGE_TOO_BIG: "A message may have at most 64 KiB.",
    CloseCode.INTERNAL_ERROR: "The gateway failed; its log has the reason.",
    CloseCode.EXPIRED: "The token has expired; connect again with a new one.",
    CloseCode.SLOW: "The client reads too slowly; connect again and recover.",
    CloseCode.NO_PONG: "The client did not answer a ping.",
    CloseCode.TOO_MANY_REQUESTS: "Too many commands came in a short time.",
    CloseCode.TOO_MANY_CONNECTIONS: "The owner of this key has too many connections.",
    CloseCode.INVALID_TOKEN: "The key or token is not valid, has expired or was revoked.",
    CloseCode.BAD_REQUEST: "A frame is not a command of the protocol.",
    CloseCode.STALE: "No connect command arrived in time.",
    CloseCode.PERMISSION_DENIED: "The key has lost the right to this connection.",
}

UNSUBSCRIBE_REASONS = {
    UnsubscribeCode.RIGHT_LOST: "The right to the channel was lost.",
    UnsubscribeCode.STATE_LOST: "Too much was published for this subscriber; subscribe and recover.",
}

ERROR_MESSAGES = {
    ErrorCode.INTERNAL: "internal server error",
    ErrorCode.UNAUTHORIZED: "unauthorized",
    ErrorCode.UNKNOWN_CHANNEL: "unknown channel",
    ErrorCode.PERMISSION_DENIED: "permission denied",
    ErrorCode.METHOD_NOT_FOUND: "method not found",
    ErrorCode.ALREADY_SUBSCRIBED: "already subscribed",
    ErrorCode.LIMIT_EXCEEDED: "limit exceeded",
    ErrorCode.BAD_REQUEST: "bad request",
    ErrorCode.NOT_AVAILABLE: "not available",
    ErrorCode.TOKEN_EXPIRED: "token expired",
    ErrorCode.TOO_MANY_REQUESTS: "too many requests",
    ErrorCode.UNRECOVERABLE_POSITION: "unrecoverable position",
}
_TEMPORARY = (ErrorCode.TOO_MANY_REQUESTS,)
_BY_STATUS = {
    400: ErrorCode.BAD_REQUEST,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.PERMISSION_DENIED,
    404: ErrorCode.UNKNOWN_CHANNEL,
    409: ErrorCode.BAD_REQUEST,
    413: ErrorCode.BAD_REQUEST,
    422: ErrorCode.BAD_REQUEST,
    429: ErrorCode.TOO_MANY_REQUESTS,
}


class CommandError(Exception):
    """A command failed with `code`; `detail` says why. The connection stays open."""

    def __init__(self, code: ErrorCode, detail: str = "", *, is_temporary: bool | None = None) -> None:
        message = f"{ERROR_MESSAGES[code]}: {detail}" if detail else ERROR_MESSAGES[code]
        super().__init__(message)
        self.code = code
        self.message = message
        self.is_temporary = code in _TEMPORARY if is_temporary is None else is_temporary

    @classmethod
    def of(cls, error: ServiceError) -> CommandError:
        """Return the error of a service as the error of the command that called it."""
        if isinstance(error, Overloaded | TooManyAtOnce | RateLimited):
            return cls(ErrorCode.TOO_MANY_REQUESTS, error.detail)
        if error.retryable:
            return cls(ErrorCode.INTERNAL, error.detail, is_temporary=True)
        # A reply has one sentence: the first error is more specific than the summary.
        detail = f"{error.errors[0].pointer}: {error.errors[0].detail}" if error.errors else error.detail
        return cls(_BY_STATUS.get(error.status, ErrorCode.INTERNAL), detail)

    def document(self) -> dict[str, object]:
        """Return the error as it appears in a reply."""
        return {"code": int(self.code), "message": self.message, "temporary": self.is_temporary}


class CloseConnection(Exception):
    """The connection must be closed with this code and reason."""

    def __init__(self, code: CloseCode, reason: str = "") -> None:
        super().__init__(reason or CLOSE_REASONS[code])
        self.code = code
        self.reason = reason or CLOSE_REASONS[code]

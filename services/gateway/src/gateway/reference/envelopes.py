"""The headers of the messages between the services, by the way that a message travels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from contracts import headers
from gateway.reference.schemas import Json

_TYPES: Mapping[str, Json] = {
    headers.SENT_AT: {
        "type": "integer",
        "description": "The time at which the message was sent, in Unix milliseconds.",
    },
    headers.ATTEMPT: {"type": "integer", "minimum": 1, "description": "The number of this attempt, from 1."},
    headers.TENANT: {"type": "string", "description": "The owner of the work."},
    headers.DEADLINE: {
        "type": "integer",
        "description": "The deadline of a request, in Unix milliseconds.",
    },
    headers.SHARE: {
        "type": "string",
        "description": "The owner whose share of the service a request uses; absent if nobody's.",
    },
    headers.REQUEST_ID: {
        "type": "string",
        "description": "The id of the HTTP request that caused the message, if one did.",
    },
    headers.TRACEPARENT: {
        "type": "string",
        "description": "The trace of the message (W3C Trace Context), if it has one.",
    },
    headers.REPLY_STATUS: {
        "type": "string",
        "enum": [headers.REPLY_OK, headers.REPLY_FAILED, headers.REPLY_NOT_BEGUN],
        "description": (
            f"`{headers.REPLY_FAILED}`: the reply is a `Failure`; `{headers.REPLY_NOT_BEGUN}`: it is one, and"
            " the request waited for others of its owner only."
        ),
    },
    headers.ERROR: {"type": "string", "description": "Why the last attempt failed."},
    headers.FIRST_ERROR: {"type": "string", "description": "Why the first attempt failed."},
    headers.UNKNOWN_WAITS: {
        "type": "integer",
        "description": "How often the message has waited for a replica that knows its type.",
    },
    headers.QUEUE: {"type": "string", "description": "The queue from which the message was parked."},
    headers.REASON: {"type": "string", "description": "Why the message was parked: the code of an error."},
    headers.PARKED_AT: {
        "type": "integer",
        "description": "The time at which the message was parked, in Unix milliseconds.",
    },
    "CC": {
        "type": "array",
        "items": {"type": "string"},
        "description": "The queue to which the broker returns the message when it has waited.",
    },
    "x-death": {"type": "array", "description": "The broker's own record, if the broker parked the message."},
}
_SENT = (headers.ATTEMPT, headers.SENT_AT)
_TRACE = (headers.TRACEPARENT, headers.REQUEST_ID)
_FAILED = (headers.FIRST_ERROR, headers.ERROR)
_PARKED = (headers.QUEUE, headers.REASON, *_FAILED, headers.PARKED_AT)


def _headers(required: Iterable[str], optional: Iterable[str]) -> Json:
    named = tuple(required)
    properties = {name: _TYPES[name] for name in (*named, *optional)}
    return {"headers": {"type": "object", "properties": properties, "required": list(named)}}


_DURABLE = (*_SENT, headers.TENANT, *_TRACE, *_FAILED, headers.UNKNOWN_WAITS)
_UNHANDLED = _headers((), (*_DURABLE, *_PARKED, "x-death"))
_UNHANDLED["headers"]["anyOf"] = [{"required": list(_PARKED)}, {"required": ["x-death"]}]

# Message traits by name: the headers of everything that travels in one way.
TRAITS: Mapping[str, Json] = {
    "durable": _headers(_SENT, _DURABLE),
    "live": _headers(_SENT, _TRACE),
    "request": _headers((*_SENT, headers.DEADLINE), (headers.SHARE, *_TRACE)),
    "reply": _headers((headers.REPLY_STATUS,), ()),
    "waiting": _headers(("CC", headers.ATTEMPT, *_FAILED), _DURABLE),
    "parked": _UNHANDLED,
}

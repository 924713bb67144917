"""The answers to invalid WebSocket handshakes."""

from __future__ import annotations

from http import HTTPStatus
from uuid import uuid4

import orjson
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

# The problem types of handshakes that are refused; others are malformed.
_TYPES = {
    HTTPStatus.INTERNAL_SERVER_ERROR: "internal",
    HTTPStatus.REQUEST_URI_TOO_LONG: "uri-too-long",
    HTTPStatus.UPGRADE_REQUIRED: "upgrade-required",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "request-header-fields-too-large",
}


class Handshake(ServerProtocol):
    """Answers an invalid handshake with a problem document."""

    def reject(self, status: StatusLike, text: str) -> Response:
        """Return the answer to a handshake that the parser refuses."""
        is_version = "Sec-WebSocket-Version" in text
        response = super().reject(HTTPStatus.UPGRADE_REQUIRED if is_version else status, text)
        request_id = str(uuid4())
        problem = {
            "type": f"/problems/{_TYPES.get(HTTPStatus(response.status_code), 'malformed-input')}",
            "title": response.reason_phrase,
            "status": response.status_code,
            "detail": text.strip() or "The WebSocket handshake is not valid.",
            "instance": request_id,
        }
        response.body = orjson.dumps(problem, option=orjson.OPT_APPEND_NEWLINE)
        del response.headers["Content-Type"], response.headers["Content-Length"]
        response.headers["Content-Type"] = "application/problem+json"
        response.headers["Content-Length"] = str(len(response.body))
        response.headers["X-Request-Id"] = request_id
        if is_version:
            response.headers["Sec-WebSocket-Version"] = "13"
        return response

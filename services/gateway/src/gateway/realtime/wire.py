"""The WebSocket server protocol under uvicorn, with limits that uvicorn does not have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import orjson
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

from gateway.realtime.codes import CLOSE_REASONS, CloseCode
from gateway.realtime.frames import FrameBudget

EXTENSION = "tickwire.wire"
_LARGEST_MESSAGE = 64 * 1024
_LINGER_S = 1.0
_LONGEST_REASON = 120
# The problem types of handshakes that are refused; others are malformed.
_TYPES = {
    HTTPStatus.REQUEST_URI_TOO_LONG: "uri-too-long",
    HTTPStatus.UPGRADE_REQUIRED: "upgrade-required",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "request-header-fields-too-large",
}


class _Handshake(ServerProtocol):
    """Answers an invalid handshake with a problem document."""

    def reject(self, status: StatusLike, text: str) -> Response:
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


class WebSocketWire(WebSocketsSansIOProtocol):
    """One WebSocket: frames are counted before they are parsed, and a client that does not read is cut off.

    The application gets the wire in the scope's extensions and writes encoded frames to it, without a task or
    queue between a publication and the socket. `on_pause` and `on_resume` report when the client
    reads more slowly than the gateway writes, and `on_size` how many bytes wait here then.
    """

    patience_s = 20.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Handshake(extensions=[], max_size=_LARGEST_MESSAGE, logger=self.logger)
        self.on_pause: Callable[[], None] = _nothing
        self.on_resume: Callable[[], None] = _nothing
        self.on_size: Callable[[int], None] = _nothing
        self._budget = FrameBudget(self.loop.time)
        self._stalled: asyncio.TimerHandle | None = None
        self._is_lingering = False

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of the application."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # A refused handshake is complete: uvicorn would log it as an error, as if it had no response.
            self.handshake_complete = True

    def write_frame(self, frame: bytes) -> None:
        """Write an encoded frame; do nothing after a close."""
        if not self.close_sent and not self.disconnected:
            self.transport.write(frame)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake and end the application's `receive`."""
        # A client that has begun the closing handshake itself has its answer: another close would raise.
        if self.close_sent or self.disconnected or self.conn.state is not State.OPEN:
            return
        short = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": short})
        self.conn.send_close(code, short)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def shutdown(self) -> None:
        """Close for the stop of the server, whatever the state of the connection."""
        if self.conn.state in (State.CONNECTING, State.OPEN):
            super().shutdown()
        else:
            # The closing handshake is under way already: uvicorn would begin another, which raises.
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Handle bytes from the network while their frames are within the budget."""
        if self._is_lingering:
            return
        if self.handshake_initiated and not self._budget.allows(data):
            self._fail(CloseCode.POLICY_VIOLATION)
            return
        if self._budget.is_padded:
            self._fail(CloseCode.PROTOCOL_ERROR)
            return
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # The parser's limits on lines are lower than the server's. uvicorn would leave its answer unsent,
            # and the client waiting.
            self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_connect(self, event: Any) -> None:
        """Start the application, which finds this wire in its scope."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self

    def handle_cont(self, event: Frame) -> None:
        """Store a fragment; ignore an empty one."""
        if event.data or event.fin:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Pass a whole message to the application; text only if it is valid UTF-8."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                for_check = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
                bytes(for_check).decode()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_TEXT)
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """Close as the parser has decided: 1002 for a broken frame, 1009 for one that is too big."""
        sent = self.conn.close_sent
        if sent is None:
            self.transport.close()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._linger()

    def pause_writing(self) -> None:
        """Call `on_pause`; close the connection if the client does not read for too long."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.patience_s, self.transport.abort)
        self.on_pause()
        # Nothing more is written until the client has read this, so it only becomes less.
        self.on_size(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Call `on_resume`: the client has read enough."""
        self._forget_stall()
        super().resume_writing()
        self.on_size(0)
        self.on_resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers: the connection is gone."""
        self._forget_stall()
        self.on_size(0)
        super().connection_lost(exc)

    def _fail(self, code: CloseCode) -> None:
        self.conn.fail(int(code), CLOSE_REASONS[code])
        self.handle_parser_exception()

    def _linger(self) -> None:
        # A socket that is closed with unread bytes is reset, and the peer would not see the close frame, so
        # it gets a moment to read it. What it sends meanwhile is not read, and costs nothing.
        self._is_lingering = True
        if not self.read_paused:
            self.transport.pause_reading()
        self.read_paused = False
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def _nothing(*_: object) -> None:
    """Do nothing: nobody listens."""

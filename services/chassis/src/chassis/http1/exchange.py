"""One request and its answer: the ASGI side of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol

from chassis import logging, metrics
from chassis.errors import ServiceError, Unavailable
from chassis.http1 import refusals
from chassis.http1.head import RequestHead
from chassis.http1.scope import Scope

log = logging.get(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_CONTROL = bytes(octet for octet in range(256) if octet < 0x20 and octet != 0x09)
_BODILESS = (204, 304)
_DISCONNECT = {"type": "http.disconnect"}


class ExchangeConnection(Protocol):
    """The part of a connection that an exchange needs."""

    is_blocked: bool

    @property
    def write(self) -> Callable[[bytes], None]:
        """The function that sends bytes to the client."""

    async def drain(self) -> None:
        """Wait until the client has read enough of what was written."""

    def has_whole_body(self) -> bool:
        """Return whether the request has arrived to its end."""

    def on_body_read(self) -> None:
        """Continue reading: the application has taken what had arrived."""

    def on_response_complete(self) -> None:
        """Begin the next request, or close."""

    def abort(self) -> None:
        """Abort the connection, so that the client sees that the answer is incomplete."""

    def date_line(self) -> bytes:
        """Return the `Date` field line that every answer has."""


class HttpExchange:
    """Passes one request to the application, and its answer to the connection.

    The head of an answer of known length waits for the body, so that both are written at once.
    """

    response_started = False
    response_complete = False
    _is_disconnected = False
    _is_waiting = False
    _is_chunked = False
    _is_end_owed = True
    _remaining: int | None = None
    _changed: asyncio.Event | None = None
    _held = b""

    def __init__(self, wire: ExchangeConnection, head: RequestHead, scope: Scope, *, has_body: bool) -> None:
        self.scope = scope
        self.keep_alive = head.keep_alive
        self.unread = bytearray()
        self._wire = wire
        self._is_http_1_1 = head.version == "1.1"
        self._expects_continue = head.expects_continue
        self._has_more = has_body
        self._has_no_body = head.method == "HEAD"

    @property
    def is_answered(self) -> bool:
        """Whether bytes of the answer have been written, so that it can no longer be replaced."""
        return self.response_started and not self._held

    @property
    def is_body_awaited(self) -> bool:
        """Whether the application waits for the client to send more of the body."""
        return self._is_waiting and self._has_more

    def add_body(self, data: bytes, *, is_complete: bool) -> None:
        """Hold a part of the body for the application."""
        self.unread += data
        self._has_more = not is_complete
        self._wake()

    def drop_rest(self) -> None:
        """Drop the rest of the answer: the client has gone."""
        self._is_disconnected = True

    def disconnect(self) -> None:
        """Tell the application that the client has gone; the rest of its answer is dropped."""
        self.drop_rest()
        self._wake()

    async def run(self, app: Application) -> None:
        """Run the application to its end, whatever it does."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail(Unavailable("The server is stopping; send the request again.", retry_after_s=1))
            raise
        except refusals.AnswerCut as cut:
            log.warning("an answer was cut", path=self.scope["path"], reason=cut.reason, detail=cut.detail)
            metrics.HTTP_REFUSED.labels(cut.reason).inc()
            self._fail(cut)
        except Exception as error:
            log.error("unhandled error in a request", path=self.scope["path"], exc_info=error)
            self._fail(ServiceError("The request failed; the log has the error."))
        else:
            if not self.response_complete and not self._is_disconnected:
                log.error("the application returned without a complete response", path=self.scope["path"])
                self._fail(ServiceError("The request failed; the log has the error."))

    async def receive(self) -> Message:
        """Return the next part of the body, or the disconnect (ASGI)."""
        while not (self._is_disconnected or self.response_complete):
            if self.unread or (self._is_end_owed and not self._has_more):
                self._is_end_owed = self._has_more
                body = bytes(self.unread)
                if body:
                    self.unread.clear()
                    self._wire.on_body_read()
                return {"type": "http.request", "body": body, "more_body": self._has_more}
            if self._expects_continue and not self.response_started:
                self._expects_continue = False
                self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._changed = self._changed or asyncio.Event()
            self._changed.clear()
            self._is_waiting = True
            try:
                await self._changed.wait()
            finally:
                self._is_waiting = False
        return _DISCONNECT.copy()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    async def send(self, message: Message) -> None:
        """Write a part of the answer (ASGI)."""
        if self._wire.is_blocked:
            await self._wire.drain()
        if self._is_disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self._start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            has_more = message.get("more_body", False)
            data = b"" if self._has_no_body else message.get("body", b"")
            if self._is_chunked:
                end = b"" if has_more else b"0\r\n\r\n"
                data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + end
            elif self._remaining is not None and not self._has_no_body:
                self._remaining -= len(data)
                if self._remaining < 0 or (self._remaining > 0 and not has_more):
                    raise RuntimeError("The body of the response does not have the length that it declares.")
            self._flush(data)
            if not has_more:
                self.response_complete = True
                self._wake()
                self._wire.on_response_complete()
        else:
            raise RuntimeError(f"The ASGI message {kind} is out of order.")

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._remaining = None
        parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            name = name.lower()
            if name == b"content-length":
                self._remaining = int(value)
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                continue
            elif name == b"transfer-encoding" or (name == b"connection" and value.lower() != b"upgrade"):
                # Only this server decides on the framing of the answer.
                continue
            parts += (name, b": ", value, b"\r\n")
        block = b"".join(parts)
        # One check of all lines together: each has the two control characters of its end, and no others.
        if len(block) - len(block.translate(None, _CONTROL)) != (len(parts) + 3) // 2:
            raise RuntimeError("A header of the response holds a control character.")
        self._has_no_body = self._has_no_body or status in _BODILESS
        self.response_started = True
        self._is_chunked = self._remaining is None and not self._has_no_body and self._is_http_1_1
        framing = b"transfer-encoding: chunked\r\n" if self._is_chunked else b""
        # The client would have to send the rest of this request before its next one, and nothing reads it.
        self.keep_alive = self.keep_alive and self._wire.has_whole_body()
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self._held = b"".join((block, self._wire.date_line(), framing, end))
        if self._remaining is None:
            # The first part of a stream may come much later.
            self._flush()

    def _flush(self, data: bytes = b"") -> None:
        data, self._held = self._held + data, b""
        if data:
            self._wire.write(data)

    def _fail(self, error: ServiceError) -> None:
        if self._is_disconnected or self.response_complete:
            return
        if self.is_answered:
            self._wire.abort()
            return
        self._held, self.keep_alive = b"", False
        self.response_started = self.response_complete = True
        with_body = self.scope["method"] != "HEAD"
        asked = self.scope["headers"]
        line = self._wire.date_line()
        self._wire.write(refusals.response(error, with_body=with_body, fields=line, asked=asked))
        self._wire.on_response_complete()

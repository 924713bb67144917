"""The bytes of a connection as requests: heads and parts of bodies, each only as far as it has arrived."""

from __future__ import annotations

from chassis.http1.body import Body, body_of
from chassis.http1.head import RequestHead, parse, parse_request_line
from chassis.http1.limits import HEAD_BYTES, REQUEST_LINE_BYTES
from chassis.http1.refusals import HeadTooLarge, RequestRefused, TargetTooLong

_CRLF = b"\r\n"
_END_OF_HEAD = b"\r\n\r\n"


class RequestReader:
    """Cuts what a client sends, which is added to `buffer`, into requests."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self._searched = 0
        self._may_skip_line = True
        self._body: Body | None = None

    @property
    def is_in_body(self) -> bool:
        """Whether the last head has a body that has not been read to its end."""
        return self._body is not None

    @property
    def has_more(self) -> bool:
        """Whether more of a body, or a whole head, has arrived that has not been read."""
        if self.is_in_body:
            return bool(self.buffer)
        return self.buffer.find(_END_OF_HEAD, max(0, self._searched - 3), HEAD_BYTES) >= 0

    @property
    def begins_with_head_request(self) -> bool:
        """Whether the request that could not be parsed is a HEAD, whose answer has no body."""
        return self.buffer.startswith(b"HEAD ")

    def read_body(self) -> bytes:
        """Return the next part of the body; nothing where more bytes are needed. Raises `RequestRefused`."""
        assert self._body is not None
        data = self._body.take(self.buffer)
        if self._body.is_complete:
            self._body = None
        return data

    def read_head(self) -> RequestHead | None:
        """Return the next head, or None where more bytes are needed. Raises `RequestRefused`."""
        buffer = self.buffer
        if self._may_skip_line and buffer.startswith(_CRLF):
            # RFC 9112, 2.2: some clients end a body with one more line.
            del buffer[:2]
            self._may_skip_line, self._searched = False, 0
        end = buffer.find(_END_OF_HEAD, max(0, self._searched - 3), HEAD_BYTES)
        if end < 0:
            self._check_beginning()
            self._searched = len(buffer)
            return None
        raw = bytes(buffer[: end + 4])
        head = parse(raw)
        del buffer[: len(raw)]
        self._may_skip_line, self._searched = True, 0
        self._body = body_of(head.length)
        return head

    def _check_beginning(self) -> None:
        """Refuse a head that cannot become valid, without waiting for its end."""
        buffer = self.buffer
        line_end = buffer.find(_CRLF, 0, REQUEST_LINE_BYTES + 2)
        if line_end < 0 and len(buffer) > REQUEST_LINE_BYTES:
            raise TargetTooLong(
                "request_line", f"The request line may have at most {REQUEST_LINE_BYTES} bytes."
            )
        if line_end > 0 and line_end >= self._searched - 1:
            parse_request_line(bytes(buffer[:line_end]))
        if buffer and buffer != _CRLF[:1] and not buffer[:1].isalpha():
            raise RequestRefused("malformed", "The first line is not a request line of HTTP/1.1.")
        if len(buffer) >= HEAD_BYTES:
            raise HeadTooLarge("header_size", f"The head of a request may have at most {HEAD_BYTES} bytes.")
        if buffer.find(b"\n\n", max(0, self._searched - 1)) >= 0:
            raise RequestRefused("malformed", "The lines of a head must end with CRLF.")

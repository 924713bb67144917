"""Decoders of a request's body, which ends after a known number of bytes or with its last chunk."""

from __future__ import annotations

import re

from chassis.http1.limits import (
    CHUNK_EXCESS_BYTES,
    CHUNK_LINE_BYTES,
    CHUNK_SIZE_DIGITS,
    CHUNKS_A_TURN,
    TRAILER_BYTES,
)
from chassis.http1.refusals import RequestRefused

_CRLF = b"\r\n"
# RFC 9112, 7.1.1, without its spaces before an extension, which only some parsers accept.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,%d})(?:;[\t\x20-\x7e\x80-\xff]*)?" % CHUNK_SIZE_DIGITS)
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class FixedBody:
    """A body of `length` bytes."""

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.is_complete = False

    def take(self, buffer: bytearray) -> bytes:
        """Remove from the front of `buffer` what belongs to the body, and return it."""
        data = bytes(buffer[: self._remaining])
        del buffer[: len(data)]
        self._remaining -= len(data)
        self.is_complete = self._remaining == 0
        return data


class ChunkedBody:
    """A body in chunks. Trailer fields are checked and dropped: nothing here reads them."""

    def __init__(self) -> None:
        self._remaining = 0
        self._excess = 0
        self._trailer_bytes = 0
        self._is_in_chunk = False
        self._is_in_trailer = False
        self.is_complete = False

    def take(self, buffer: bytearray) -> bytes:
        """Remove complete chunks from the front of `buffer`, and return their data.

        Nothing is removed when more bytes are needed to go on. Raises `RequestRefused`.
        """
        parts: list[bytes] = []
        for _ in range(CHUNKS_A_TURN):
            if self.is_complete or not self._take_step(buffer, parts):
                break
        return b"".join(parts)

    def _take_step(self, buffer: bytearray, parts: list[bytes]) -> bool:
        if self._is_in_chunk:
            return self._take_data(buffer, parts)
        end = buffer.find(_CRLF, 0, CHUNK_LINE_BYTES)
        if end < 0:
            # Otherwise a bare LF would pass as a part of a line that is still arriving.
            if len(buffer) >= CHUNK_LINE_BYTES or b"\n" in buffer:
                raise RequestRefused("chunk", "A chunk's line is too long, or does not end with CRLF.")
            return False
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        if self._is_in_trailer:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > TRAILER_BYTES:
                raise RequestRefused("chunk", f"The trailer fields may have at most {TRAILER_BYTES} bytes.")
            if line and _TRAILER.fullmatch(line) is None:
                raise RequestRefused("chunk", "A line of the trailer is not a token, a colon and a value.")
            self.is_complete = not line
            return True
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise RequestRefused("chunk", "A chunk does not begin with its size in hexadecimal digits.")
        size = int(match[1], 16)
        self._excess = max(0, self._excess + len(line) + 2 - 16 - 2 * size)
        if self._excess > CHUNK_EXCESS_BYTES:
            raise RequestRefused("chunk", "The chunks of the body carry more framing than data.")
        self._remaining = size
        self._is_in_chunk, self._is_in_trailer = size > 0, size == 0
        return True

    def _take_data(self, buffer: bytearray, parts: list[bytes]) -> bool:
        if self._remaining > 0:
            data = bytes(buffer[: self._remaining])
            del buffer[: len(data)]
            self._remaining -= len(data)
            parts.append(data)
        if self._remaining > 0 or len(buffer) < len(_CRLF):
            return False
        if not buffer.startswith(_CRLF):
            raise RequestRefused("chunk", "A chunk is longer than its size.")
        del buffer[:2]
        self._is_in_chunk = False
        return True


Body = FixedBody | ChunkedBody


def body_of(length: int | None) -> Body | None:
    """Return the decoder for a body of `length` bytes (None: in chunks), or None where there is no body."""
    if length is None:
        return ChunkedBody()
    return FixedBody(length) if length else None

"""WebSocket frames (RFC 6455) of a server: texts, made once for all subscribers."""

from __future__ import annotations

_TEXT = 0x81


def text_frame(payload: bytes) -> bytes:
    """Return `payload` as one unmasked text frame: the same bytes for every connection."""
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 65_536:
        return bytes((_TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big") + payload

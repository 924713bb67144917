"""Answers of other servers that the gateway requests over HTTP."""

from __future__ import annotations

import httpx


async def read_within(response: httpx.Response, most_bytes: int) -> bytes:
    """Return the body of a streamed answer. Raise `ValueError` as soon as it is longer than `most_bytes`."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > most_bytes:
            raise ValueError(f"the answer has more than {most_bytes} bytes")
    return bytes(body)

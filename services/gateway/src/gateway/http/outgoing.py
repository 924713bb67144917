"""Responses of other servers to HTTP requests of the gateway."""

from __future__ import annotations

import httpx


async def read_within(response: httpx.Response, most_bytes: int) -> bytes:
    """Return the body of a streamed response. Raise `ValueError` as soon as it exceeds `most_bytes`."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > most_bytes:
            raise ValueError(f"the response has more than {most_bytes} bytes")
    return bytes(body)

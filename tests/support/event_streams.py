"""Reading streams of server-sent events."""

from __future__ import annotations

from typing import Any

import orjson


async def status_in(lines: Any, status: str) -> None:
    """Read events until one has `status`."""
    async for line in lines:
        if line.startswith("data: ") and orjson.loads(line[6:])["status"] == status:
            return
    raise AssertionError(f"the stream has ended without {status}")


async def events_of(stream: Any, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the next events with their ids and data."""
    found: list[tuple[str, dict[str, Any]]] = []
    id_ = ""
    async for line in stream.aiter_lines():
        if line.startswith("id: "):
            id_ = line[4:]
        if line.startswith("data: "):
            found.append((id_, orjson.loads(line[6:])))
        if len(found) == count:
            break
    return found

"""Lists that come in pages."""

from __future__ import annotations

from typing import Any

import httpx


async def all_pages(api: httpx.AsyncClient, path: str, *, limit: int, **query: Any) -> list[dict[str, Any]]:
    """Return the elements of all pages of `limit`, in the order of the pages."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = (await api.get(path, params={"limit": limit, **query, **cursor})).json()
        assert len(page["data"]) <= limit
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}

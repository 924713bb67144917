"""Waits for an event, with a limit."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def until_set(event: asyncio.Event, most_s: float) -> bool:
    """Wait until `event` is set, but no longer than `most_s` seconds; return whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(most_s):
            await event.wait()
    return event.is_set()

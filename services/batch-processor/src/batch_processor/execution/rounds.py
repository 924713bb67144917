"""Rounds of the background loops, which outlive the database's absence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chassis import logging, redaction
from chassis.postgres import DATABASE_FAILURES

log = logging.get(__name__)

_PAUSE_S = 1.0


async def attempt(what: str, action: Callable[[], Awaitable[None]]) -> bool:
    """Do `action` and return whether it was done; what the database refuses is left to the next round."""
    try:
        await action()
    except DATABASE_FAILURES as error:
        log.warning("round failed, trying again", what=what, reason=redaction.safe_message(error))
        await asyncio.sleep(_PAUSE_S)
        return False
    return True

"""Rounds of the background loops, which survive outages of the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from chassis import logging, redaction
from chassis.postgres import DATABASE_FAILURES
from chassis.waits import until_set

log = logging.get(__name__)

_PAUSE_S = 1.0
_TOGETHER_S = 0.1
# Polls on half seconds begin so much behind the tick: together in one wake, and over the connections that the
# work of full seconds has used.
BEHIND_S = 0.25


async def attempt(what: str, action: Callable[[], Awaitable[object]]) -> bool:
    """Run `action` and return whether it succeeded; a failure of the database is left to the next round."""
    try:
        await action()
    except DATABASE_FAILURES as error:
        log.warning("background pass failed, retrying", what=what, reason=redaction.safe_message(error))
        await asyncio.sleep(_PAUSE_S)
        return False
    return True


async def wait(wake: asyncio.Event, *, most_s: float, least_s: float = _TOGETHER_S) -> None:
    """Wait until `wake` is set, but no longer than `most_s`; then clear it.

    The wait takes at least `least_s`, so that repeated wake-ups under load are handled together.
    """
    began = time.monotonic()
    # In this order, a loop without wake-ups sleeps only once per round.
    await until_set(wake, most_s)
    await asyncio.sleep(max(0.0, began + least_s - time.monotonic()))
    wake.clear()

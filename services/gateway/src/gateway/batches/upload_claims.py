"""The claims of requests whose bytes still arrive, renewed for as long as the request lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from chassis import logging, supervision
from chassis.errors import Unavailable

log = logging.get(__name__)

# A few of these fit into the time after which a claim counts as that of a dead gateway.
RENEW_EVERY_S = 20.0


@asynccontextmanager
async def renewed(renew: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Call `renew` every 20 seconds during the block, however slowly its bytes arrive."""

    async def go_on() -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                await renew()
            except Unavailable as error:
                # The claim lasts for several intervals, so the next renewal may still be in time.
                log.warning("claim of an upload could not be renewed", reason=error.detail)

    renewing = asyncio.create_task(go_on())
    try:
        yield
    finally:
        await supervision.end([renewing])

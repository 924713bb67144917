"""Gateways that count the requests of their callers together, over windows in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from chassis.supervision import Tasks
from gateway.limits.exchange import LeaseExchange
from gateway.limits.policies import read_policies
from gateway.limits.service import LimitService
from support.rate_windows import RateWindows

_HOUR = "quote=100/3600,send=50/3600"
OWNER_FACTOR = 5


@pytest.fixture
def windows() -> RateWindows:
    return RateWindows()


@pytest.fixture
async def gateways(windows: RateWindows) -> AsyncIterator[Callable[..., LimitService]]:
    """Return a function that opens one more gateway, with the limits of its argument or small ones."""
    tasks = Tasks()

    def open_one(limits: str = _HOUR) -> LimitService:
        exchange = LeaseExchange(windows.ask)
        service = LimitService(cast(Any, None), read_policies(limits), exchange, owner_factor=OWNER_FACTOR)
        number = len(tasks.unfinished)
        tasks.supervise(f"exchange {number}", exchange.run)
        tasks.supervise(f"leases {number}", service.settle)
        return service

    yield open_one
    await tasks.close()

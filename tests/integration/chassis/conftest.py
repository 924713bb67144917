"""A small service of two: one end consumes and answers, the other publishes and asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from chassis.foundation import Foundation
from chassis.settings import Settings
from waiting import until


@asynccontextmanager
async def running(foundation: Foundation) -> AsyncIterator[Foundation]:
    """Open `foundation`, wait until it is ready, and close it."""
    await foundation.open()
    try:
        await until(lambda: foundation.health.reasons() == {}, what=lambda: str(foundation.health.reasons()))
        yield foundation
    finally:
        await foundation.close()


class Bench:
    """Builds foundations on the test's servers and closes them in the end."""

    def __init__(self, broker_url: str, fresh_database: Any, stack: AsyncExitStack) -> None:
        self._broker_url = broker_url
        self._fresh_database = fresh_database
        self._stack = stack

    async def build(self, service: str, *, dsn: str | None = None) -> Foundation:
        """A foundation of `service`, not opened yet."""
        settings = Settings.model_validate(
            {
                "rabbitmq_url": self._broker_url,
                "postgres_dsn": dsn or await self._fresh_database(),
                "shutdown_grace_s": 5,
            }
        )
        return Foundation(settings, service=service, package="sample_service")

    async def run(self, foundation: Foundation) -> Foundation:
        """Open `foundation` until the end of the test."""
        return await self._stack.enter_async_context(running(foundation))


@pytest.fixture
async def bench(broker_url: str, fresh_database: Any) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(broker_url, fresh_database, stack)

"""A small system of two services: one consumes and answers, the other publishes and asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from chassis.runtime import ServiceRuntime
from chassis.settings import Settings
from support.databases import FreshDatabase
from support.waiting import until


@asynccontextmanager
async def running(runtime: ServiceRuntime) -> AsyncIterator[ServiceRuntime]:
    """Open `runtime`, wait until it is ready, and close it."""
    async with runtime:
        await until(lambda: runtime.health.reasons() == {}, what=lambda: str(runtime.health.reasons()))
        yield runtime


class Bench:
    """Builds runtimes on the test's servers and closes them at the end."""

    def __init__(self, broker_url: str, fresh_database: FreshDatabase, stack: AsyncExitStack) -> None:
        self._broker_url = broker_url
        self._fresh_database = fresh_database
        self._stack = stack

    async def build(
        self,
        service: str,
        *,
        dsn: str | None = None,
        package: str = "support.sample_service",
        shutdown_grace_s: float = 5,
    ) -> ServiceRuntime:
        """Return a runtime of `service`, not opened yet."""
        settings = Settings.model_validate(
            {
                "rabbitmq_url": self._broker_url,
                "postgres_dsn": dsn or await self._fresh_database("support.sample_service"),
                "shutdown_grace_s": shutdown_grace_s,
            }
        )
        return ServiceRuntime(settings, service=service, package=package)

    async def run(self, runtime: ServiceRuntime) -> ServiceRuntime:
        """Open `runtime` until the end of the test."""
        return await self._stack.enter_async_context(running(runtime))

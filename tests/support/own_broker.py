"""Gateways with a broker of their own, for tests that wait for events which others also cause."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from native import rabbitmq
from native.memcached import Memcached
from native.postgres import PostgresServer
from support.gateway_stack import House


@asynccontextmanager
async def house_with_own_broker(
    folder: Path, postgres: PostgresServer, memcached: Memcached
) -> AsyncIterator[House]:
    """Yield a house with a broker of its own, whose events and ticks reach no other gateway."""
    async with rabbitmq.start(folder) as broker, AsyncExitStack() as stack:
        yield House(broker, postgres, memcached, stack)

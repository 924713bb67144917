"""A gateway whose webhooks may reach loopback, and a receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from native.memcached import Memcached
from native.postgres import PostgresServer
from support.doubles.receiver import RequestReceiver, receiver
from support.gateway_stack import House, RunningGateway
from support.own_broker import house_with_own_broker


@pytest.fixture(scope="package")
async def hooks_house(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, memcached_server: Memcached
) -> AsyncIterator[House]:
    """Yield a house with a broker of its own: its events reach these gateways only."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    async with house_with_own_broker(folder, postgres_server, memcached_server) as own:
        yield own


@pytest.fixture(scope="package")
async def hooks(hooks_house: House) -> RunningGateway:
    """Return a gateway whose webhooks may reach loopback."""
    return await hooks_house.open(webhook_internal_targets="127.0.0.1")


@pytest.fixture
async def hook(hooks: RunningGateway) -> AsyncIterator[RequestReceiver]:
    """Yield a receiver; what waits in the end is not sent to the next one, and all webhooks go.

    An owner may have few of them, and all tests have the same one.
    """
    async with receiver() as running:
        yield running
    await hooks.database.execute(
        "UPDATE webhook_deliveries SET status = 'withdrawn', finished_at = now() WHERE status = 'pending'"
    )
    for webhook in (await hooks.api.get("/v1/webhooks")).json()["data"]:
        await hooks.api.delete(f"/v1/webhooks/{webhook['id']}")

"""A WebSocket without a key gives way to a newer connection, but not while its key is checked."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from chassis import metrics
from chassis.http1.limits import ConnectionLimits
from support import socket_site
from support.measured import value_of
from support.socket_site import SocketSite
from support.waiting import until

POST = orjson.dumps({"id": 2, "publish": {"channel": "chat:lobby", "data": {"text": "x"}}})


class HeldCalls:
    """Calls of a method of `owner` that wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()
        self._method = getattr(owner, name)
        monkeypatch.setattr(owner, name, self.call)

    async def call(self, *arguments: Any, **options: Any) -> Any:
        self.begun.set()
        await self.let_go.wait()
        return await self._method(*arguments, **options)


@pytest.mark.parametrize("key", ["key-1", None])
async def test_a_client_whose_key_waits_to_be_checked_gives_way_to_nobody(
    monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    gave_way = metrics.HTTP_REFUSED.labels("gave_way")
    before = value_of(gave_way)
    site = SocketSite(limits=ConnectionLimits(most=8, per_address=8, unauthenticated_share=0.25))
    held = HeldCalls(monkeypatch, site.gateway, "authenticate")
    async with socket_site.running(site):
        connecting = asyncio.create_task(connected(site, key))
        await asyncio.wait_for(held.begun.wait(), 20)
        # There are two places for clients without a key: the idle one gives way to the last.
        others = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(2)]
        await until(lambda: value_of(gave_way) > before)
        held.let_go.set()
        await connecting
        for _, writer in others:
            writer.close()


async def connected(site: SocketSite, key: str | None) -> None:
    """Connect with the `key` of the upgrade, or with one in the first message."""
    async with site.opened(key) as client:
        token = {} if key else {"token": "key-1"}
        client.send(orjson.dumps({"id": 1, "connect": token}))
        await client.read_until(b'"id":1')


async def test_a_client_that_has_sent_its_first_message_gives_way_whatever_it_sends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with socket_site.running() as site:
        held = HeldCalls(monkeypatch, site.gateway.chat, "post")
        async with site.opened("key-1") as client:
            await client.connect()
            [wire] = site.wires
            client.send(POST)
            await asyncio.wait_for(held.begun.wait(), 20)
            assert not wire.is_at_work
            held.let_go.set()
            await client.read_until(b'"id":2')

"""A client that answers its pings stays, however long the answers wait here; one that does not is closed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from chassis.errors import DatabaseUnavailable
from gateway.realtime.access import Access
from gateway.realtime.codes import CloseCode
from gateway.realtime.heartbeat import PING_S
from support.doubles.realtime import Client, Gateway


async def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_closed(
    client: Client,
) -> None:
    now = time.monotonic() + PING_S
    client.session.tick(now)
    assert client.frames == [{}]
    await client.session.receive(b"{}")
    client.session.tick(now + 15)
    assert client.closed == []
    for second in range(10):
        client.session.tick(now + PING_S + second)
    assert client.closed == []
    client.session.tick(now + PING_S + 10)
    client.session.tick(now + PING_S + 11)
    assert client.closed[0][0] == CloseCode.NO_PONG


async def test_a_pong_behind_a_command_that_takes_long_is_not_late(
    client: Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, done = time.monotonic() + PING_S, asyncio.Event()

    async def post(*_: object, **__: object) -> None:
        await done.wait()

    monkeypatch.setattr(gateway.chat, "post", post)
    line = b'{"id":9,"publish":{"channel":"chat:lobby","data":{"text":"x"}}}'
    posting = asyncio.create_task(client.session.receive(line))
    await asyncio.sleep(0)
    for second in range(30):
        client.session.tick(now + second)
    done.set()
    await posting
    client.session.tick(now + 30)
    assert client.closed == []
    await client.session.receive(b"{}")
    for second in range(31, 40):
        client.session.tick(now + second)
    assert client.closed == []


async def test_a_ping_that_waits_for_a_slow_reader_is_not_answered_late(client: Client) -> None:
    now = time.monotonic() + PING_S
    client.session.queue.pause()
    for second in range(20):
        client.session.tick(now + second)
    assert (client.frames, client.closed) == ([], [])
    client.session.queue.resume()
    client.session.tick(now + 20)
    assert (client.frames, client.closed) == ([{}], [])
    for second in range(21, 31):
        client.session.tick(now + second)
    assert client.closed[0][0] == CloseCode.NO_PONG


async def test_a_gateway_that_stood_still_itself_reads_the_pongs_first(client: Client) -> None:
    now = time.monotonic() + PING_S
    client.session.tick(now)
    client.session.tick(now + 60)
    assert client.closed == []
    await client.session.receive(b"{}")
    client.session.tick(now + 61)
    assert client.closed == []


async def test_a_connect_that_takes_long_is_no_missing_one(gateway: Gateway, ann: Access) -> None:
    known = asyncio.Event()

    async def authenticate(*_: object) -> Access:
        await known.wait()
        return ann

    client = Client(gateway, None, realtime=replace(gateway.realtime, authenticate=authenticate))
    connecting = asyncio.create_task(client.ask(connect={"token": "slow"}))
    await asyncio.sleep(0)
    now = time.monotonic()
    for second in range(20):
        client.session.tick(now + second)
    known.set()
    assert "client" in await connecting
    assert client.closed == []


async def test_the_time_of_a_long_command_is_none_in_which_the_gateway_stood_still(
    gateway: Gateway, ann: Access
) -> None:
    known = asyncio.Event()

    async def authenticate(*_: object) -> Access:
        await known.wait()
        raise DatabaseUnavailable("The database is away.")

    client = Client(gateway, None, realtime=replace(gateway.realtime, authenticate=authenticate))
    connecting = asyncio.create_task(client.ask(connect={"token": "slow"}))
    await asyncio.sleep(0)
    now = time.monotonic()
    for second in range(12):
        client.session.tick(now + second)
    known.set()
    assert (await connecting)["temporary"]
    client.session.tick(now + 12)
    assert client.closed[0][0] == CloseCode.STALE


async def test_a_gateway_that_stood_still_itself_reads_the_connects_first(gateway: Gateway) -> None:
    client = Client(gateway, None)
    client.session.tick(time.monotonic() + 60)
    assert client.closed == []
    client.session.tick(time.monotonic() + 61)
    assert client.closed[0][0] == CloseCode.STALE

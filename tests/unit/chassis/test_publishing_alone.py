"""A message that is published over a connection of its own waits a bounded time, also for the closing."""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from chassis.broker import publisher, rabbitmq
from chassis.broker.publisher import Publisher, Unconfirmed
from support.effects import cancel
from support.waiting import until


class SilentConnection:
    """A connection to a broker that reads nothing any more."""

    def __init__(self) -> None:
        self.is_asked_for_a_channel = False
        self.is_to_be_closed = False

    async def channel(self, **_: bool) -> None:
        self.is_asked_for_a_channel = True
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.is_to_be_closed = True
        await asyncio.Event().wait()


async def test_a_broker_that_reads_nothing_delays_neither_a_message_nor_the_locks_of_its_row_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = SilentConnection()

    async def connect(_: URL) -> SilentConnection:
        return connection

    monkeypatch.setattr(publisher, "connect", connect)
    monkeypatch.setattr(rabbitmq, "CLOSE_TIMEOUT_S", 0.01)
    async with asyncio.timeout(10):
        with pytest.raises(Unconfirmed):
            await Publisher("amqp://127.0.0.1/").publish_alone(cancel(), timeout_s=0.01)
    assert connection.is_to_be_closed


async def test_an_alarm_while_such_a_connection_is_closed_reaches_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, heard = SilentConnection(), asyncio.Event()

    async def connect(_: URL) -> SilentConnection:
        return connection

    monkeypatch.setattr(publisher, "connect", connect)
    monkeypatch.setattr(rabbitmq, "CLOSE_TIMEOUT_S", 5)
    alone = Publisher("amqp://127.0.0.1/")
    alone.on_unusable = lambda _: heard.set()
    publishing = asyncio.create_task(alone.publish_alone(cancel(), timeout_s=10))
    await until(lambda: connection.is_asked_for_a_channel)
    publishing.cancel()
    await until(lambda: connection.is_to_be_closed)
    alone.end_waits()
    assert heard.is_set()
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)

"""Connections to the broker that reconnect by themselves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeAlias

import aio_pika
import aiormq
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from yarl import URL

from chassis import beats, logging, metrics, redaction
from chassis.broker import properties
from chassis.waits import until_set

log = logging.get(__name__)

# This process gives up a silent broker after three of these, the broker a silent process after two.
HEARTBEAT_S = 5
CONNECT_TIMEOUT_S = 5
# For some thirty declarations, one after the other: a distant broker is not an unavailable one.
_SET_UP_TIMEOUT_S = 30
CLOSE_TIMEOUT_S = 2
# How late a process that only waits for confirms notices an alarm; one that publishes sees it at once.
_LOOK_EVERY_S = 0.5
BLOCKED = "RabbitMQ accepts no messages: its memory or disk alarm is active"

AWAY = (
    OSError,
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    TimeoutError,
    asyncio.InvalidStateError,
)


Opened = Callable[["Link"], Awaitable[None]]
# A URL with a login, or what returns the one of now: a password may be changed while the process runs.
Address: TypeAlias = str | Callable[[], str]


@contextmanager
def rejections_as_errors() -> Iterator[None]:
    """Raise `ConnectionError` when the block was waiting on a channel that closed.

    aiormq raises CancelledError, or a bare Exception: a task that nobody has cancelled would end silently,
    and for good. When the stream ends in the middle of a handshake, it raises StopAsyncIteration.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("the channel was closed") from error
    except Exception as error:
        if type(error) not in (Exception, StopAsyncIteration):
            raise
        raise ConnectionError("the channel was closed") from error


async def cancel_consumer(channel: Channel | None, tag: str | None) -> None:
    """Cancel the consumer `tag`, unless its connection is gone and has ended it."""
    if channel is None or tag is None:
        return
    try:
        with rejections_as_errors():
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await channel.basic_cancel(tag)
    except AWAY as error:
        log.debug("consumer could not be cancelled", reason=redaction.safe_message(error))


class Link:
    """A connection to the broker that is reopened, with all its channels, whenever a part of it breaks.

    `on_open` sets up the channels after each connect; `on_lost` runs after each loss. A channel that the
    broker closes breaks the whole link: one way to recover is enough, and it is always exercised.
    """

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        on_open: Opened,
        on_lost: Callable[[], None] = lambda: None,
        on_blocked: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = address if callable(address) else lambda: address
        self._name = name
        self._on_open = on_open
        self._on_lost = on_lost
        self._on_blocked = on_blocked
        self._connection: aio_pika.Connection | None = None
        self._was_blocked = False
        self._broken = asyncio.Event()
        self._connected = asyncio.Event()
        self._reason: str | None = "not connected yet"
        # Set at the start, because a link that is never lost or blocked would have no series.
        metrics.BROKER_CONNECTED.labels(name).set(0)
        metrics.BROKER_BLOCKED.labels(name).set(0)

    @property
    def url(self) -> URL:
        """The address for a connection that is opened now."""
        return URL(self._address()).update_query(heartbeat=HEARTBEAT_S)

    @property
    def is_connected(self) -> bool:
        """Return whether the connection and its channels are up."""
        return self._connected.is_set()

    @property
    def is_blocked(self) -> bool:
        """Return whether the broker reads nothing from this connection because of a memory or disk alarm."""
        transport = self._connection.transport if self._connection is not None else None
        if transport is None or not self.is_connected:
            return False
        # `ready` waits while the connection is blocked: it either returns at its first step or would wait.
        asking = transport.connection.ready()
        try:
            asking.send(None)
        except StopIteration:
            return False
        asking.close()
        return True

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the link is up; return False when it is not after `timeout_s` seconds."""
        return self.is_connected or await until_set(self._connected, timeout_s)

    def check(self) -> str | None:
        """Return why the link cannot be used, for readiness."""
        return self._reason or (BLOCKED if self.is_blocked else None)

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel; its closing breaks the link."""
        assert self._connection is not None
        opened = await self._connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        channel = await opened.get_underlay_channel()
        assert isinstance(channel, Channel)
        channel.closing.add_done_callback(lambda _: self._broken.set())
        return channel

    @asynccontextmanager
    async def expendable_channel(self) -> AsyncIterator[AbstractChannel]:
        """Open a channel for the block. If the broker closes it, as after a refusal, the link stays up."""
        assert self._connection is not None
        assert self._connection.transport is not None
        channel = await self._connection.transport.connection.channel(publisher_confirms=False)
        yield channel
        await channel.close()

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        while True:
            try:
                await self._hold()
            except Exception as error:
                self._reason = f"cannot connect: {redaction.safe_message(error)}"
                await self._drop()
                raise
            await self._drop()
            # Jitter: the processes of a cluster must not reconnect in one wave.
            await asyncio.sleep(random.uniform(0.5, 1.0))  # noqa: S311 - not a secret

    async def _hold(self) -> None:
        """Connect, and wait until the connection is lost."""
        try:
            await self._connect()
        except AWAY as error:
            self._reason = f"cannot connect: {redaction.safe_message(error)}"
            log.warning("waiting for the broker", link=self._name, reason=self._reason)
            return
        self._look_later()
        try:
            await self._broken.wait()
        finally:
            self._looking.cancel()
        self._reason = "connection lost, reconnecting"
        log.warning("connection to the broker lost", link=self._name)

    def _look_later(self) -> None:
        # Cheaper than a task that waits anew for the loss or the next look, whichever comes first.
        self._looking = asyncio.get_running_loop().call_later(beats.due_in_s(_LOOK_EVERY_S), self._look)

    def _look(self) -> None:
        """Report whether the broker has begun or ceased to block, and look again later."""
        self._look_later()
        is_blocked = self.is_blocked
        if is_blocked == self._was_blocked:
            return
        self._was_blocked = is_blocked
        metrics.BROKER_BLOCKED.labels(self._name).set(is_blocked)
        if is_blocked:
            log.warning("the broker has blocked publishing", link=self._name, reason=BLOCKED)
            self._on_blocked()
        else:
            log.info("the broker accepts messages again", link=self._name)

    def interrupt(self) -> None:
        """Break the link on purpose, so that it reconnects."""
        self._broken.set()

    async def close(self) -> None:
        """Close the connection; `run` must have been cancelled before."""
        await self._drop()

    async def _connect(self) -> None:
        self._broken.clear()
        with rejections_as_errors():
            self._connection = await connect(self.url)
            self._connection.close_callbacks.add(lambda *_: self._broken.set())
            async with asyncio.timeout(_SET_UP_TIMEOUT_S):
                await self._on_open(self)
        self._reason = None
        self._connected.set()
        metrics.BROKER_CONNECTED.labels(self._name).set(1)
        log.info("connected to the broker", link=self._name)

    async def _drop(self) -> None:
        was_connected = self._connected.is_set()
        self._connected.clear()
        metrics.BROKER_CONNECTED.labels(self._name).set(0)
        metrics.BROKER_BLOCKED.labels(self._name).set(0)
        self._was_blocked = False
        if was_connected:
            self._on_lost()
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        await close_quietly(connection)


async def connect(url: URL) -> aio_pika.Connection:
    """Open a connection, within `CONNECT_TIMEOUT_S`.

    Close one that fails to open: aio-pika would otherwise do so when it is garbage-collected, in whatever
    loop runs by then, or in none.
    """
    properties.read_leniently()
    connection = aio_pika.Connection(url)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()
    except BaseException:
        await close_quietly(connection)
        raise
    return connection


async def close_quietly(connection: aio_pika.abc.AbstractConnection) -> None:
    """Close `connection` and ignore errors; do not wait long for it.

    Closing writes a last frame and waits for the answer, which takes very long when the network is cut or the
    broker reads nothing: whoever waits may hold locks.
    """

    async def close() -> None:
        with suppress(Exception):
            await connection.close()

    closing = asyncio.ensure_future(close())
    await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)

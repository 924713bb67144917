"""Connections that come back by themselves, and the publisher that waits for the broker's word."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import aio_pika
import aiormq
from aiormq.channel import Channel
from pamqp.commands import Basic
from yarl import URL

from chassis import logging, metrics, redaction
from chassis.broker.envelope import Outgoing
from chassis.errors import BrokerUnavailable, Overloaded, Unavailable

log = logging.get(__name__)

# A peer without a word is given up after three of these, a process without a word after two.
HEARTBEAT_S = 5
_CONNECT_TIMEOUT_S = 5
# Some thirty declarations, one after the other: a broker that is far away is no broker that is away.
_SET_UP_TIMEOUT_S = 30
_CLOSE_TIMEOUT_S = 2

AWAY = (
    OSError,
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    TimeoutError,
    asyncio.InvalidStateError,
)

Opened = Callable[["Link"], Awaitable[None]]


@contextmanager
def rejections_as_errors() -> Iterator[None]:
    """Raise `ConnectionError` for what was waiting on a channel that closed.

    aiormq rejects it with CancelledError, or with a bare Exception: a task that nobody has cancelled would
    end without a word, and for ever. An end of the stream in the middle of a handshake is StopAsyncIteration.
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
    """Have nothing more delivered to the consumer `tag`; what its connection takes along has ended anyway."""
    if channel is None or tag is None:
        return
    try:
        with rejections_as_errors():
            await channel.basic_cancel(tag, timeout=_CLOSE_TIMEOUT_S)
    except AWAY as error:
        log.debug("cancelling a consumer", reason=redaction.safe_message(error))


class Link:
    """One connection to the broker that is made again, with all its channels, whenever any of it breaks.

    `on_open` sets the channels up after each connect; `on_lost` runs after each loss. A channel that the
    broker closes takes the whole link with it: one way to recover is enough, and it is always exercised.
    """

    def __init__(
        self, url: str, *, name: str, on_open: Opened, on_lost: Callable[[], None] = lambda: None
    ) -> None:
        self._url = URL(url).update_query(heartbeat=HEARTBEAT_S)
        self._name = name
        self._on_open = on_open
        self._on_lost = on_lost
        self._connection: aio_pika.abc.AbstractConnection | None = None
        self._broken = asyncio.Event()
        self._connected = asyncio.Event()
        self._reason: str | None = "not connected yet"

    @property
    def is_connected(self) -> bool:
        """Whether the connection and its channels are up."""
        return self._connected.is_set()

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the link is up; False when it is not after `timeout_s` seconds."""
        if self.is_connected:
            return True
        try:
            await asyncio.wait_for(self._connected.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def check(self) -> str | None:
        """The readiness check: why the link is down."""
        return self._reason

    async def channel(self, *, confirms: bool) -> Channel:
        """A new channel; its closing breaks the link."""
        assert self._connection is not None
        opened = await self._connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        channel = await opened.get_underlay_channel()
        assert isinstance(channel, Channel)
        channel.closing.add_done_callback(lambda _: self._broken.set())
        return channel

    async def run(self) -> None:
        """Keep the link up for ever."""
        while True:
            try:
                await self._hold()
            except Exception as error:
                self._reason = f"cannot connect: {redaction.safe_message(error)}"
                await self._drop()
                raise
            await self._drop()
            # Jitter: the processes of a cluster must not come back in one wave.
            await asyncio.sleep(random.uniform(0.5, 1.0))  # noqa: S311 - not a secret

    async def _hold(self) -> None:
        """Connect, and stay until the connection is lost."""
        try:
            await self._connect()
        except AWAY as error:
            self._reason = f"cannot connect: {redaction.safe_message(error)}"
            log.warning("waiting for the broker", link=self._name, reason=self._reason)
            return
        await self._broken.wait()
        self._reason = "connection lost, connecting again"
        log.warning("lost the broker", link=self._name)

    def interrupt(self) -> None:
        """Break the link on purpose, so that it is made anew."""
        self._broken.set()

    async def close(self) -> None:
        """Close the connection; `run` must have been cancelled before."""
        await self._drop()

    async def _connect(self) -> None:
        self._broken.clear()
        with rejections_as_errors():
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                self._connection = await aio_pika.connect(self._url, timeout=_CONNECT_TIMEOUT_S)
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
        if was_connected:
            self._on_lost()
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        # Left alone after a moment: it writes a farewell, which a network that is cut takes very late.
        closing = asyncio.ensure_future(connection.close())
        closing.add_done_callback(self._closed)
        await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT_S)

    def _closed(self, closing: asyncio.Future[None]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if error is not None:
            log.debug("closing a broken connection", link=self._name, reason=redaction.safe_message(error))


class Publisher:
    """Publishes over one link: confirmed (`publish`) or transient (`send`)."""

    def __init__(self, url: str, *, timeout_s: float = 5, max_unconfirmed: int = 512) -> None:
        self.link = Link(url, name="publish", on_open=self._open, on_lost=self._lost)
        self._timeout_s = timeout_s
        self._unconfirmed = asyncio.Semaphore(max_unconfirmed)
        self._confirmed: Channel | None = None
        self._transient: Channel | None = None
        self.on_lost: Callable[[], None] = lambda: None

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait until publishing is possible."""
        return await self.link.wait_connected(timeout_s)

    async def publish(self, message: Outgoing, *, timeout_s: float | None = None) -> None:
        """Publish and wait until the broker has it for good.

        Raises `Unavailable` when no queue takes it, `Overloaded` when the queue is full, and
        `BrokerUnavailable` when there is no broker or no word in time. In the last case the message may
        have arrived: publishing it again with the same id is harmless, the inbox drops the second.
        """
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s), self._unconfirmed:
                await self._publish_confirmed(message)
        except TimeoutError as error:
            metrics.PUBLISHED.labels(message.exchange, "timeout").inc()
            raise BrokerUnavailable("The broker did not confirm in time.", retry_after_s=2) from error
        metrics.PUBLISHED.labels(message.exchange, "confirmed").inc()
        metrics.PUBLISH_SECONDS.labels(message.exchange).observe(time.perf_counter() - started)

    async def send(self, message: Outgoing) -> None:
        """Hand a transient message over without waiting for a word; nobody is told when it is lost."""
        channel = self._transient
        if channel is None:
            raise BrokerUnavailable("The message broker cannot be reached now.", retry_after_s=2)
        try:
            with rejections_as_errors():
                # Behind a dead connection there is a short queue, and nobody who takes anything from it.
                async with asyncio.timeout(self._timeout_s):
                    await channel.basic_publish(
                        message.body,
                        exchange=message.exchange,
                        routing_key=message.routing_key,
                        properties=message.properties(),
                        wait=False,
                    )
        except AWAY as error:
            raise BrokerUnavailable("The message broker went away.", retry_after_s=2) from error
        # Replies go through the default exchange, whose name is empty: that would be no label at all.
        metrics.PUBLISHED.labels(message.exchange or "default", "sent").inc()

    async def _publish_confirmed(self, message: Outgoing) -> None:
        channel = self._confirmed
        if channel is None:
            raise BrokerUnavailable("The message broker cannot be reached now.", retry_after_s=2)
        metrics.UNCONFIRMED.inc()
        try:
            with rejections_as_errors():
                confirmation = await channel.basic_publish(
                    message.body,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    properties=message.properties(),
                    mandatory=True,
                )
        except aiormq.exceptions.PublishError as error:
            metrics.PUBLISHED.labels(message.exchange, "returned").inc()
            raise Unavailable(
                f"Nobody takes {message.message_type} at the moment.", retry_after_s=5
            ) from error
        except aiormq.exceptions.DeliveryError as error:
            metrics.PUBLISHED.labels(message.exchange, "refused").inc()
            raise Overloaded(f"The queue for {message.message_type} is full.", retry_after_s=5) from error
        except TimeoutError:
            raise
        except AWAY as error:
            metrics.PUBLISHED.labels(message.exchange, "lost").inc()
            raise BrokerUnavailable("The message broker went away.", retry_after_s=2) from error
        finally:
            metrics.UNCONFIRMED.dec()
        if not isinstance(confirmation, Basic.Ack):
            raise Overloaded(f"The queue for {message.message_type} is full.", retry_after_s=5)

    async def _open(self, link: Link) -> None:
        self._confirmed = await link.channel(confirms=True)
        self._transient = await link.channel(confirms=False)

    def _lost(self) -> None:
        self._confirmed = self._transient = None
        self.on_lost()

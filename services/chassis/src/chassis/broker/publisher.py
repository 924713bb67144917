"""The publisher: it waits for the broker's confirm of each message, sent alone or with others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import aiormq
from aiormq.channel import Channel
from pamqp.commands import Basic

from chassis import metrics, redaction
from chassis.broker import bundles
from chassis.broker.burst import Burst, hand_over
from chassis.broker.envelope import Outgoing
from chassis.broker.rabbitmq import (
    AWAY,
    BLOCKED,
    Address,
    Link,
    close_quietly,
    connect,
    rejections_as_errors,
)
from chassis.errors import BrokerUnavailable, Overloaded, Unavailable

_NOT_REACHED = "The message broker cannot be reached."
_UNCONFIRMED = "The message broker did not confirm the message in time."


class Unconfirmed(BrokerUnavailable):
    """The broker did not confirm a message in time; the message may have arrived."""


class ConnectionBroken(BrokerUnavailable):
    """The connection or channel broke with a message, which may be the cause, and may have arrived."""


class Publisher:
    """Publishes over one link: confirmed (`publish`) or transient (`send`)."""

    def __init__(self, address: Address, *, timeout_s: float = 5, max_unconfirmed: int = 512) -> None:
        self.link = Link(
            address, name="publish", on_open=self._open, on_lost=self._lost, on_blocked=self.end_waits
        )
        self._timeout_s = timeout_s
        self._waiting: set[asyncio.Timeout] = set()
        self._unconfirmed = asyncio.Semaphore(max_unconfirmed)
        self._confirmed: Channel | None = None
        self._transient: Channel | None = None
        self.on_unusable: Callable[[BrokerUnavailable], None] = lambda _: None

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait until publishing is possible; return False when it is not after `timeout_s`, or is blocked."""
        return await self.link.wait_connected(timeout_s) and not self.link.is_blocked

    async def publish(self, message: Outgoing, *, timeout_s: float | None = None) -> None:
        """Publish and wait for the broker's confirm.

        Raise `Unavailable` when no queue accepts the message, `Overloaded` when the queue is full, and
        `BrokerUnavailable` when there is no broker, it accepts no messages, or it does not confirm in time.
        In the last case the message may have arrived: publishing it again with the same id is harmless,
        because the inbox drops the second one.
        """
        started = time.perf_counter()
        self._require_unblocked(message)
        waiting = asyncio.timeout(timeout_s or self._timeout_s)
        try:
            async with waiting, self._unconfirmed:
                self._waiting.add(waiting)
                await self._publish_confirmed(message, self._confirmed)
        except TimeoutError as error:
            self._require_unblocked(message)
            metrics.PUBLISHED.labels(message.exchange, "timeout").inc()
            raise Unconfirmed(_UNCONFIRMED, retry_after_s=2) from error
        finally:
            self._waiting.discard(waiting)
        metrics.PUBLISHED.labels(message.exchange, "confirmed").inc()
        metrics.PUBLISH_SECONDS.labels(message.exchange).observe(time.perf_counter() - started)

    async def publish_together(self, messages: Sequence[Outgoing]) -> list[Exception | None]:
        """Publish messages with one write and one wait; return for each the error of `publish`, or None.

        Those to one destination travel in bundles and share their confirm. The caller bounds their number:
        all of them wait at once.
        """
        started = time.perf_counter()
        groups = bundles.group(messages)
        burst = Burst([bundles.wrap([messages[index] for index in group]) for group in groups])
        waiting = asyncio.timeout(self._timeout_s)
        silence: Exception = Unconfirmed(_UNCONFIRMED, retry_after_s=2)
        metrics.UNCONFIRMED.inc(len(messages))
        try:
            self._require_unblocked(messages[0])
            if self._confirmed is None:
                raise BrokerUnavailable(_NOT_REACHED, retry_after_s=2)
            with rejections_as_errors():
                async with waiting:
                    self._waiting.add(waiting)
                    await burst.publish(self._confirmed)
        except TimeoutError:
            if self.link.is_blocked:
                silence = BrokerUnavailable(f"{BLOCKED}; try again later.", retry_after_s=5)
        except (*AWAY, BrokerUnavailable) as error:
            # Its traceback holds this frame: together they would stay until the garbage is collected.
            silence = error.with_traceback(None)
        except Exception as error:  # such as a frame that cannot be read, which ends the connection
            silence = ConnectionError(redaction.safe_message(error))
        finally:
            metrics.UNCONFIRMED.dec(len(messages))
            self._waiting.discard(waiting)
        took_s = time.perf_counter() - started
        # A message that was never sent has not failed by itself.
        unwritten = (
            silence
            if type(silence) is BrokerUnavailable
            else BrokerUnavailable(_NOT_REACHED, retry_after_s=2)
        )
        outcomes: list[Exception | None] = [None] * len(messages)
        for group, failed in zip(groups, burst.errors(silence, unwritten=unwritten), strict=True):
            exchange = messages[group[0]].exchange
            if failed is None:
                metrics.PUBLISHED.labels(exchange, "confirmed").inc(len(group))
                metrics.PUBLISH_SECONDS.labels(exchange).observe(took_s)
                continue
            for index in group:
                outcomes[index] = _failure(messages[index], failed)
        return outcomes

    async def send(self, message: Outgoing) -> None:
        """Hand over a transient message without waiting for a confirm; it may be lost silently."""
        self._require_unblocked(message)
        await self._hand_over(message)
        metrics.PUBLISHED.labels(message.exchange, "sent").inc()

    async def send_together(self, messages: Sequence[Outgoing]) -> None:
        """Hand over transient messages like `send`, with one write for many of them."""
        for message in messages[:1]:
            self._require_unblocked(message)
        async with self._over_transient() as channel:
            sent = await hand_over(channel, messages)
        for message in sent:
            metrics.PUBLISHED.labels(message.exchange, "sent").inc()

    async def probe(self, exchange: str) -> None:
        """Publish a message that reaches no queue: the broker reports an alarm only to publishers."""
        if self.link.is_connected and not self.link.is_blocked:
            with suppress(Unavailable):
                await self._hand_over(Outgoing(exchange, "probe", b"", "probe", "", persistent=False))

    async def _hand_over(self, message: Outgoing) -> None:
        async with self._over_transient() as channel:
            await channel.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                properties=message.properties(),
                wait=False,
            )

    @asynccontextmanager
    async def _over_transient(self) -> AsyncIterator[Channel]:
        """Run the block with the channel of transient messages, in limited time."""
        if self._transient is None:
            raise BrokerUnavailable(_NOT_REACHED, retry_after_s=2)
        try:
            with rejections_as_errors():
                # With a dead connection the short write queue fills up and is never emptied.
                async with asyncio.timeout(self._timeout_s):
                    yield self._transient
        except AWAY as error:
            raise BrokerUnavailable(
                "The connection to the message broker was lost.", retry_after_s=2
            ) from error

    async def publish_alone(self, message: Outgoing, *, timeout_s: float) -> None:
        """Publish over a connection made for this message, so that it cannot break any other.

        Raise what `publish` raises. After `timeout_s` seconds it ends within the time of closing.
        """
        self._require_unblocked(message)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(timeout_s) as waiting, AsyncExitStack() as hearing:
                    # An alarm, of which the shared connection learns, ends the wait for the confirm.
                    self._waiting.add(waiting)
                    # Before the closing, during which the time-out has ended and cannot be changed.
                    hearing.callback(self._waiting.discard, waiting)
                    channel = await self._open_alone(stack)
                    await self._publish_confirmed(message, channel)
            except TimeoutError as error:
                if not waiting.expired():
                    raise
                self._require_unblocked(message)
                metrics.PUBLISHED.labels(message.exchange, "timeout").inc()
                raise Unconfirmed(_UNCONFIRMED, retry_after_s=2) from error
        metrics.PUBLISHED.labels(message.exchange, "confirmed").inc()

    async def _open_alone(self, stack: AsyncExitStack) -> Channel:
        """Open a channel of a connection of its own, which `stack` closes."""
        try:
            with rejections_as_errors():
                connection = await connect(self.link.url)
                stack.push_async_callback(close_quietly, connection)
                opened = await connection.channel(publisher_confirms=True, on_return_raises=True)
                channel = await opened.get_underlay_channel()
        except AWAY as error:
            raise BrokerUnavailable(_NOT_REACHED, retry_after_s=2) from error
        assert isinstance(channel, Channel)
        return channel

    async def _publish_confirmed(self, message: Outgoing, channel: Channel | None) -> None:
        if channel is None:
            raise BrokerUnavailable(_NOT_REACHED, retry_after_s=2)
        with metrics.UNCONFIRMED.track_inprogress():
            try:
                with rejections_as_errors():
                    confirmation = await channel.basic_publish(
                        message.body,
                        exchange=message.exchange,
                        routing_key=message.routing_key,
                        properties=message.properties(),
                        mandatory=True,
                    )
            except TimeoutError:
                raise
            except AWAY as error:
                raise _failure(message, error) from error
        if not isinstance(confirmation, Basic.Ack):
            raise Overloaded(f"The queue for {message.message_type} is full.", retry_after_s=5)

    async def _open(self, link: Link) -> None:
        self._confirmed = await link.channel(confirms=True)
        self._transient = await link.channel(confirms=False)

    def _lost(self) -> None:
        self._confirmed = self._transient = None
        self.on_unusable(
            BrokerUnavailable(
                "The connection to the message broker was lost before the answer arrived.", retry_after_s=2
            )
        )

    def end_waits(self) -> None:
        """Fail all publishes that wait for a confirm, because the broker confirms nothing during an alarm.

        Otherwise they would wait until their time-outs.
        """
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            if not waiting.expired():
                waiting.reschedule(now)
        self.on_unusable(BrokerUnavailable(f"{BLOCKED}; try again later.", retry_after_s=5))

    def _require_unblocked(self, message: Outgoing) -> None:
        if self.link.is_blocked:
            metrics.PUBLISHED.labels(message.exchange, "blocked").inc()
            raise BrokerUnavailable(f"{BLOCKED}; try again later.", retry_after_s=5)


def _failure(message: Outgoing, error: Exception) -> Exception:
    """Return the error for callers when the broker, or the connection to it, failed a message; count it."""
    if isinstance(error, aiormq.exceptions.PublishError):
        metrics.PUBLISHED.labels(message.exchange, "returned").inc()
        return Unavailable(
            f"No queue accepts {message.message_type}: its service is not running.", retry_after_s=5
        )
    if isinstance(error, aiormq.exceptions.DeliveryError):
        metrics.PUBLISHED.labels(message.exchange, "refused").inc()
        return Overloaded(f"The queue for {message.message_type} is full.", retry_after_s=5)
    if isinstance(error, Unconfirmed):
        metrics.PUBLISHED.labels(message.exchange, "timeout").inc()
        return error
    # Waiters on a channel that closes are rejected with a bare Exception.
    if isinstance(error, AWAY) or type(error) is Exception:
        metrics.PUBLISHED.labels(message.exchange, "lost").inc()
        reason = redaction.safe_message(error)
        return ConnectionBroken(f"The connection to the message broker broke: {reason}", retry_after_s=2)
    return error

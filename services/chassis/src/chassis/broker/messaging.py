"""A service's connections to the broker, one to publish and one to consume, and everything that uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from aiormq.channel import Channel

from chassis import beats, logging, metrics, redaction
from chassis.broker import topology as declaring
from chassis.broker.answering import RpcServer
from chassis.broker.consumer import Consumer
from chassis.broker.publisher import Publisher
from chassis.broker.rabbitmq import AWAY, Address, Link, rejections_as_errors
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.health import Health
from chassis.supervision import Tasks
from contracts.topology import Topology, own_exchange

log = logging.get(__name__)

_PROBE_EVERY_S = 5
# Each count costs the broker and the process a wake for each queue. Where a consumer is missing, the next one
# comes sooner, so that its loss is noticed within ten seconds.
_COUNT_EVERY_S = 8
_COUNT_AGAIN_S = 2
_COUNT_WITHIN_S = 5


class Attached(Protocol):
    """A listener on the consuming link, which must be attached again after each connect."""

    async def attach(self, link: Link) -> None:
        """Start listening over a new connection."""

    def lost(self) -> None:
        """Forget the connection, which is gone."""


@dataclass(frozen=True)
class Depth:
    """The messages of a queue that no consumer has taken yet, and the number of its consumers."""

    messages: int
    consumers: int


class Messaging:
    """Two connections, so that the broker's throttling of publishers does not delay acknowledgements."""

    def __init__(self, address: Address, topology: Topology) -> None:
        self.topology = topology
        self.publisher = Publisher(address)
        self.link = Link(address, name="consume", on_open=self._attach, on_lost=self._lost)
        self.rpc = RpcClient(self.publisher)
        # A service that asks nobody has no queue for replies.
        self._listeners: list[Attached] = [self.rpc] if topology.asks else []
        self._consumers: list[Consumer] = []
        self._servers: list[RpcServer] = []
        self._statistics: Channel | None = None
        self._is_counting = True

    def consume(self, consumer: Consumer) -> None:
        """Add a consumer; call this before `start`."""
        self._consumers.append(consumer)
        self._listeners.append(consumer)

    def answer(self, server: RpcServer) -> None:
        """Add a server for requests; call this before `start`."""
        self._servers.append(server)
        self._listeners.append(server)

    def listen(self, attach: Callable[[Link], Awaitable[None]]) -> None:
        """Add anything else that must be set up after each connect; call this before `start`."""
        self._listeners.append(_Hook(attach))

    def start(self, tasks: Tasks, health: Health) -> None:
        """Start connecting and consuming, and report both in readiness."""
        health.add("broker-publish", self.publisher.link.check)
        health.add("broker-consume", self.link.check)
        for consumer in self._consumers:
            health.add(f"consumer-{consumer.queue}", consumer.check)
            health.add_vital(f"progress-{consumer.queue}", consumer.stuck)
            tasks.supervise(f"consumer {consumer.queue}", consumer.run)
        for server in self._servers:
            health.add("rpc", server.check)
        tasks.supervise("queue statistics", self._count_queues)
        tasks.supervise("look for alarms", self._probe)
        tasks.supervise("link publish", self.publisher.link.run)
        tasks.supervise("link consume", self.link.run)

    async def drain(self, deadline: Deadline) -> None:
        """Take no more messages and requests; settle and answer those in progress."""
        # A request queue is deleted with its consumer: counting it would break the link that acknowledges.
        self._is_counting = False
        settling = [consumer.drain(deadline) for consumer in self._consumers]
        answering = [server.drain(deadline) for server in self._servers]
        await asyncio.gather(*settling, *answering)

    async def close(self) -> None:
        """Close both connections; their tasks must have been cancelled before."""
        outcomes = await asyncio.gather(
            self.publisher.link.close(), self.link.close(), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _attach(self, link: Link) -> None:
        channel = await link.channel(confirms=False)
        await declaring.declare(channel, self.topology)
        for queue in self.topology.durable_queues:
            await declaring.bind_where_allowed(link, queue.shared_bindings)
        for listener in self._listeners:
            await listener.attach(link)
        # Set last: counting a queue that is not declared yet would close the channel.
        self._statistics = channel

    async def _probe(self) -> None:
        while True:
            await beats.following(_PROBE_EVERY_S)
            await self.publisher.probe(own_exchange(self.topology.service))

    async def _count_queues(self) -> None:
        """Read periodically how many consumers and messages the service's own queues have."""
        is_missing = False
        while True:
            await beats.following(_COUNT_AGAIN_S if is_missing else _COUNT_EVERY_S)
            is_missing = False
            # A request queue exists only while a consumer answers.
            for queue in self.topology.queues if self._servers else self.topology.durable_queues:
                depth = await self.measure(queue.name)
                if depth is None:
                    continue
                metrics.QUEUE_CONSUMERS.labels(queue.name).set(depth.consumers)
                metrics.QUEUE_MESSAGES.labels(queue.name).set(depth.messages)
                for consumer in (c for c in self._consumers if c.queue == queue.name):
                    is_missing |= consumer.is_missing_among(depth.consumers)

    async def measure(self, queue: str) -> Depth | None:
        """Return the depth of a queue that exists; None when the broker does not answer in time."""
        channel = self._statistics
        if channel is None or not self._is_counting:
            return None
        try:
            # aiormq's own time-outs lose a cancellation that arrives together with the answer.
            with rejections_as_errors():
                async with asyncio.timeout(_COUNT_WITHIN_S):
                    found = await channel.queue_declare(queue, passive=True)
        except AWAY as error:
            log.warning(
                "queue statistics could not be read", queue=queue, reason=redaction.safe_message(error)
            )
            return None
        return Depth(found.message_count or 0, found.consumer_count or 0)

    def _lost(self) -> None:
        self._statistics = None
        for listener in self._listeners:
            listener.lost()


class _Hook:
    def __init__(self, attach: Callable[[Link], Awaitable[None]]) -> None:
        self._attach = attach

    async def attach(self, link: Link) -> None:
        await self._attach(link)

    def lost(self) -> None:
        """Do nothing: a hook keeps no state of a connection."""

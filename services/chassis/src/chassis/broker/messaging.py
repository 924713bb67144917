"""A service's whole tie to the broker: one link publishes, one consumes, and what hangs on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from chassis.broker import topology as declaring
from chassis.broker.answering import RpcServer
from chassis.broker.consumer import Consumer
from chassis.broker.rabbitmq import Link, Publisher
from chassis.broker.rpc import RpcClient
from chassis.health import Health
from chassis.resources import Tasks
from contracts.topology import Topology


class Attached(Protocol):
    """Something that listens over the consuming link and must be attached anew after each connect."""

    async def attach(self, link: Link) -> None:
        """Start listening."""

    def lost(self) -> None:
        """The connection is gone."""


class Messaging:
    """Two connections: a publisher that the broker throttles must not keep acknowledgements from leaving."""

    def __init__(self, url: str, topology: Topology) -> None:
        self.topology = topology
        self.publisher = Publisher(url)
        self.link = Link(url, name="consume", on_open=self._attach, on_lost=self._lost)
        self.rpc = RpcClient(self.publisher)
        self._listeners: list[Attached] = [self.rpc]
        self._consumers: list[Consumer] = []
        self._servers: list[RpcServer] = []

    def consume(self, consumer: Consumer) -> None:
        """Add a consumer; before `start`."""
        self._consumers.append(consumer)
        self._listeners.append(consumer)

    def answer(self, server: RpcServer) -> None:
        """Add an answering side; before `start`."""
        self._servers.append(server)
        self._listeners.append(server)

    def listen(self, attach: Callable[[Link], Awaitable[None]]) -> None:
        """Add anything else that must be set up after each connect; before `start`."""
        self._listeners.append(_Hook(attach))

    def start(self, tasks: Tasks, health: Health) -> None:
        """Start connecting and consuming, and report both in readiness."""
        health.add("broker-publish", self.publisher.link.check)
        health.add("broker-consume", self.link.check)
        for consumer in self._consumers:
            health.add(f"consumer-{consumer.queue}", consumer.check)
            tasks.start(f"consumer {consumer.queue}", consumer.run())
        for server in self._servers:
            health.add("rpc", server.check)
        tasks.start("link publish", self.publisher.link.run())
        tasks.start("link consume", self.link.run())

    async def drain(self, grace_s: float) -> None:
        """Take no more messages and settle those in hand."""
        await asyncio.gather(*(consumer.drain(grace_s) for consumer in self._consumers))

    async def close(self) -> None:
        """Close both connections; their tasks must have been cancelled before."""
        await asyncio.gather(self.publisher.link.close(), self.link.close())

    async def _attach(self, link: Link) -> None:
        await declaring.declare(await link.channel(confirms=False), self.topology)
        for listener in self._listeners:
            await listener.attach(link)

    def _lost(self) -> None:
        for listener in self._listeners:
            listener.lost()


class _Hook:
    def __init__(self, attach: Callable[[Link], Awaitable[None]]) -> None:
        self._attach = attach

    async def attach(self, link: Link) -> None:
        await self._attach(link)

    def lost(self) -> None:
        """Nothing to forget."""

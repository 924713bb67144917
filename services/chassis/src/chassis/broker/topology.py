"""Declares the queues and exchanges of a service by `contracts.topology`, and checks the shared ones."""

from __future__ import annotations

from collections.abc import Iterable

import aiormq
from aiormq.abc import AbstractChannel

from chassis import logging
from chassis.broker.rabbitmq import Link
from contracts.topology import SHARED_EXCHANGES, Binding, Queue, Topology, own_exchange

log = logging.get(__name__)


async def declare(channel: AbstractChannel, topology: Topology) -> None:
    """Declare everything that `topology` owns; a repetition changes nothing.

    A missing shared exchange closes the channel with an error that names it: the broker's definitions have
    not been loaded.
    """
    for exchange in SHARED_EXCHANGES:
        await channel.exchange_declare(exchange.name, passive=True)
    for exchange in topology.exchanges:
        await channel.exchange_declare(exchange.name, exchange_type=exchange.kind, durable=True)
    for rung in topology.rungs:
        await channel.queue_declare(rung.queue, durable=True, arguments={"x-queue-type": "quorum"})
    for queue in topology.durable_queues:
        await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
    for binding in topology.bindings:
        await channel.queue_bind(binding.queue, binding.exchange, routing_key=binding.key)


async def declare_rpc_queue(channel: AbstractChannel, queue: Queue) -> None:
    """Declare an auto-delete queue just before it is consumed; bind it to the exchange of its service."""
    await channel.queue_declare(
        queue.name, durable=True, auto_delete=queue.auto_delete, arguments=dict(queue.arguments)
    )
    await channel.queue_bind(queue.name, own_exchange(queue.service), routing_key=queue.name)


async def bind_where_allowed(link: Link, bindings: Iterable[Binding]) -> None:
    """Bind queues to shared direct exchanges, if the broker allows it.

    By the definitions, these exchanges lead to those of the services, and the services may not do it
    themselves, because they could hear what others get. A broker that has not read these definitions since an
    upgrade has no other way, and allows this one. A message that has both ways reaches its queue once.
    """
    for binding in bindings:
        try:
            async with link.expendable_channel() as channel:
                await channel.queue_bind(binding.queue, binding.exchange, routing_key=binding.key)
        except aiormq.exceptions.ChannelAccessRefused:
            log.debug("the definitions lead to the queue", queue=binding.queue, exchange=binding.exchange)

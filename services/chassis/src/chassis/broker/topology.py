"""Declares the queues and exchanges of a service by `contracts.topology`, and checks the shared ones."""

from __future__ import annotations

from aiormq.abc import AbstractChannel

from contracts.topology import SHARED_EXCHANGES, Queue, Topology


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
    """Declare and bind an auto-delete queue, just before it is consumed."""
    await channel.queue_declare(
        queue.name, durable=True, auto_delete=queue.auto_delete, arguments=dict(queue.arguments)
    )
    for key in queue.keys:
        await channel.queue_bind(queue.name, queue.exchange, routing_key=key)

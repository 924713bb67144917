"""Declares the exchanges, the ladder and a service's own queues, as `contracts.topology` says."""

from __future__ import annotations

from aiormq.abc import AbstractChannel

from contracts.topology import EXCHANGES, LADDER, RETRY, Queue, Rung, Topology


async def declare(channel: AbstractChannel, topology: Topology) -> None:
    """Declare all that `topology` needs; doing it again changes nothing."""
    for exchange in EXCHANGES:
        await channel.exchange_declare(exchange.name, exchange_type=exchange.kind, durable=True)
    for rung in LADDER:
        await _declare_rung(channel, rung)
    for queue in topology.queues:
        if not queue.auto_delete:
            await declare_queue(channel, queue)


async def declare_queue(channel: AbstractChannel, queue: Queue) -> None:
    """Declare one queue and bind it. An auto-delete one is declared just before it is consumed."""
    await channel.queue_declare(
        queue.name, durable=True, auto_delete=queue.auto_delete, arguments=dict(queue.arguments)
    )
    for key in queue.keys:
        await channel.queue_bind(queue.name, queue.exchange, routing_key=key)


async def _declare_rung(channel: AbstractChannel, rung: Rung) -> None:
    await channel.queue_declare(rung.queue, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.queue_bind(rung.queue, RETRY, routing_key=rung.key)

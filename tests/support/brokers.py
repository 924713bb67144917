"""Queues of a broker that several suites share."""

from __future__ import annotations

import aiormq

from contracts.topology import TOPOLOGIES


async def empty(url: str) -> None:
    """Empty all durable queues, so that no test consumes the messages of another."""
    queues = [queue.name for topology in TOPOLOGIES.values() for queue in topology.durable_queues]
    rungs = [rung.queue for topology in TOPOLOGIES.values() for rung in topology.rungs]
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        for name in queues + rungs:
            # A purge goes through the log of the queue, and most are empty.
            if (await channel.queue_declare(name, passive=True)).message_count:
                await channel.queue_purge(name)
    finally:
        await connection.close()

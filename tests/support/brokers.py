"""Queues of a broker that several suites share."""

from __future__ import annotations

import aiormq

from contracts.topology import TOPOLOGIES


async def empty(url: str) -> None:
    """Empty all durable queues, so that no test consumes the messages of another."""
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        for topology in TOPOLOGIES.values():
            rungs = [rung.queue for rung in topology.rungs]
            for name in [queue.name for queue in topology.durable_queues] + rungs:
                await channel.queue_purge(name)
    finally:
        await connection.close()

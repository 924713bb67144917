"""The peer of batches: a Taskiq task that does nothing and keeps no result, on the same broker.

`taskiq_noop.py COUNT` enqueues; `taskiq worker benchmarks.peers.taskiq_noop:broker` starts the worker.
"""

from __future__ import annotations

import asyncio
import os
import sys

from taskiq_aio_pika import AioPikaBroker, Queue, QueueType

from benchmarks.peers import ledger

_SENDERS = 32

broker = AioPikaBroker(
    os.environ["RABBITMQ_URL"],
    qos=int(os.environ["PREFETCH"]),
    task_queues=[Queue(name=os.environ["QUEUE"], type=QueueType.CLASSIC)],
)


async def do_nothing(_: int) -> None:
    """Do an item."""
    ledger.mark_done()


noop = broker.register_task(do_nothing, task_name="noop", queue_name=os.environ["QUEUE"])


async def send(count: int) -> None:
    """Enqueue `count` items; each waits for the broker's confirmation, as the library has it."""
    await broker.startup()
    numbers = iter(range(count))

    async def send_some() -> None:
        for number in numbers:
            await noop.kiq(number)

    ledger.begin()
    await asyncio.gather(*(send_some() for _ in range(_SENDERS)))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[1])))

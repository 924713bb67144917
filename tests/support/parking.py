"""A worker whose messages are parked, and the parked messages with their reasons."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import aiormq
from aiormq.abc import DeliveredMessage

from chassis.broker.envelope import Delivery
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from chassis.postgres import Connection
from chassis.runtime import ServiceRuntime
from contracts.batches import CancelBatch
from contracts.parked import (
    InspectParked,
    ListParked,
    ParkedMessage,
)
from rabbitmq.definitions import DELIVERY_LIMIT
from support.effects import cancel, store
from support.waiting import until

QUEUE = "batch-processor.intake"
SOON = Deadline.after(3600)


class Picky:
    """A handler that refuses messages until it is repaired."""

    def __init__(self) -> None:
        self.is_mended = False

    async def handle(self, connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        if not self.is_mended:
            raise InvalidInput("the handler is broken")
        await store(connection, deliveries)


async def park(worker: ServiceRuntime, *owners: str, already: int = 0) -> list[ParkedMessage]:
    for owner in owners:
        await worker.messaging.publisher.publish(cancel(owner))

    async def all_parked() -> Any:
        page = await worker.parked.page(ListParked(), SOON)
        return page.data if len(page.data) == already + len(owners) else None

    found: list[ParkedMessage] = await until(all_parked)
    return found


async def open_messages(worker: ServiceRuntime) -> list[ParkedMessage]:
    return (await worker.parked.page(ListParked(), SOON)).data


async def parked_ids(worker: ServiceRuntime, at_least: int = 1) -> list[str] | None:
    found = [message.message_id for message in await open_messages(worker)]
    return found if len(found) >= at_least else None


async def header(worker: ServiceRuntime, number: int, name: str) -> object:
    return (await worker.parked.inspect(InspectParked(id=number), SOON)).headers[name]


async def die_with_it_until_the_limit(broker_url: str) -> None:
    """Take the only message of the queue and disconnect, as often as the broker allows."""
    connection = await aiormq.connect(broker_url)
    for _ in range(DELIVERY_LIMIT + 1):
        channel = await connection.channel()
        taken = asyncio.get_running_loop().create_future()

        async def take(message: DeliveredMessage, taken: Any = taken) -> None:
            if not taken.done():
                taken.set_result(message)

        await channel.basic_consume(QUEUE, take)
        await asyncio.wait_for(taken, 20)
        await channel.close()
    await connection.close()


async def command_line(dsn: str, *words: str) -> Any:
    child = await run_command_line(dsn, *words)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


async def run_command_line(dsn: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chassis.parked", *words]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        env={**os.environ, "POSTGRES_DSN": dsn},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

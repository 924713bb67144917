"""`python -m faults.counting`: a service that does nothing but handle commands, to look at its memory."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

from chassis.broker.envelope import Delivery
from chassis.broker.handlers import InTransaction
from chassis.postgres import Connection
from chassis.runtime import ServiceRuntime
from chassis.settings import Settings, load_or_exit
from contracts.batches import INTAKE, CancelBatch
from contracts.topology import BATCH_PROCESSOR


async def _count(connection: Connection, deliveries: Sequence[Delivery[Any]]) -> None:
    await connection.execute("INSERT INTO effects (name) VALUES ($1)", str(len(deliveries)))


async def _run() -> None:
    runtime = ServiceRuntime(
        load_or_exit(Settings), service=BATCH_PROCESSOR, package="support.sample_service"
    )
    runtime.consume(INTAKE, {CancelBatch: InTransaction(_count, group=200)}, prefetch=400)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with runtime:
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_run())

"""The effects of handled messages, which are rows in a table, and the messages that are parked instead."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from prometheus_client import REGISTRY

from chassis.broker.envelope import Delivery, Outgoing, command
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from chassis.postgres import Connection
from chassis.runtime import ServiceRuntime
from contracts.batches import INTAKE, CancelBatch
from contracts.parked import ListParked, ParkedMessage


def cancel(owner: str = "ann") -> Outgoing:
    return command(CancelBatch(batch_id=uuid4(), owner_id=owner))


async def store(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
    await connection.executemany(
        "INSERT INTO effects (name) VALUES ($1)", [(d.message.owner_id,) for d in deliveries]
    )


async def store_unless_bad(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
    """Store the owners, or refuse all of them if one is `bad`."""
    if any(d.message.owner_id == "bad" for d in deliveries):
        raise InvalidInput("bad owner")
    await store(connection, deliveries)


async def effects(runtime: ServiceRuntime) -> list[str]:
    """Return the owners of the handled messages, in their order."""
    async with runtime.postgres.connection() as connection:
        return [row["name"] for row in await connection.fetch("SELECT name FROM effects ORDER BY id")]


async def has_effects(runtime: ServiceRuntime, count: int) -> bool:
    return len(await effects(runtime)) >= count


async def parked(runtime: ServiceRuntime, count: int = 1) -> list[ParkedMessage] | None:
    """Return the parked messages, newest first; None when there are fewer than `count`."""
    page = await runtime.parked.page(ListParked(), Deadline.after(5))
    return page.data if len(page.data) >= count else None


def failures_of_the_consumer() -> float:
    labels = {"task": f"consumer {INTAKE}"}
    return REGISTRY.get_sample_value("tickwire_background_task_failures_total", labels) or 0

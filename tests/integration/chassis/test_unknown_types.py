"""A message of a type that a replica does not know waits for one that does, before it is parked."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from chassis.broker import retries
from chassis.broker.envelope import Delivery, command
from chassis.broker.handlers import Handler, InTransaction
from chassis.postgres import Connection
from chassis.runtime import ServiceRuntime
from contracts.batches import AbandonBatch, CancelBatch
from contracts.message import Message
from contracts.topology import BATCH_PROCESSOR, ladder
from support.bench import Bench
from support.databases import FreshDatabase
from support.effects import parked
from support.waiting import until

QUEUE = "batch-processor.intake"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "ON_UNKNOWN", (0, 0))


def seen(outcome: str) -> float:
    labels = {"queue": QUEUE, "type": "unknown", "outcome": outcome}
    return REGISTRY.get_sample_value("tickwire_messages_consumed_total", labels) or 0


class ProcessorRelease:
    """A release of batch-processor that knows one type, or two."""

    def __init__(self, runtime: ServiceRuntime, *, is_newer: bool) -> None:
        self.runtime = runtime
        self.attempts: dict[str, int] = {}
        note = InTransaction(self._note)
        handlers: dict[type[Message], Handler] = {AbandonBatch: note}
        if is_newer:
            handlers[CancelBatch] = note
        runtime.consume(QUEUE, handlers)

    async def _note(
        self, _: Connection, deliveries: Sequence[Delivery[AbandonBatch] | Delivery[CancelBatch]]
    ) -> None:
        self.attempts.update({delivery.message.owner_id: delivery.attempt for delivery in deliveries})


async def test_a_replica_that_knows_the_type_handles_what_another_does_not_know(
    bench: Bench, fresh_database: FreshDatabase
) -> None:
    dsn, before = await fresh_database(), seen("retry")
    older = ProcessorRelease(await bench.build(BATCH_PROCESSOR, dsn=dsn), is_newer=False)
    await bench.run(older.runtime)
    publish = older.runtime.messaging.publisher.publish
    await publish(command(CancelBatch(batch_id=uuid4(), owner_id="new")))

    async def waits() -> bool:
        return seen("retry") == before + 1

    await until(waits)
    newer = ProcessorRelease(await bench.build(BATCH_PROCESSOR, dsn=dsn), is_newer=True)
    await bench.run(newer.runtime)

    async def is_handled() -> bool:
        return "new" in newer.attempts

    # The broker gives to both in turn.
    await until(is_handled)
    # The tries of those that do not know it are not taken from its ladder.
    assert newer.attempts == {"new": 1}
    assert await parked(newer.runtime) is None


async def test_an_unknown_type_is_parked_after_its_retries_and_delays_no_other(bench: Bench) -> None:
    retried, ended = seen("retry"), seen("park")
    older = ProcessorRelease(await bench.build(BATCH_PROCESSOR), is_newer=False)
    await bench.run(older.runtime)
    unknown = command(CancelBatch(batch_id=uuid4(), owner_id="new"))
    await older.runtime.messaging.publisher.publish(unknown)
    await older.runtime.messaging.publisher.publish(command(AbandonBatch(batch_id=uuid4(), owner_id="known")))

    async def has_passed() -> bool:
        return "known" in older.attempts

    await until(has_passed)
    (message,) = await until(lambda: parked(older.runtime))
    assert (message.reason, message.message_id, message.attempts) == ("unknown-type", unknown.message_id, 1)
    assert "is a rolling upgrade in progress?" in message.last_error
    assert (seen("retry") - retried, seen("park") - ended) == (2, 1)


def test_the_second_wait_is_longer_than_a_roll_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rungs = [retries.rung_of_unknown(waits, ladder(BATCH_PROCESSOR)) for waits in range(3)]
    assert [rung and rung.delay_s for rung in rungs] == [15, 300, None]

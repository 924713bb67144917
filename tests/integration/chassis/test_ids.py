"""Lines that are logged while a message is handled carry the ids of that message and of no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import pytest
import structlog
from structlog.typing import EventDict

from chassis import logging, tracing
from chassis.broker.envelope import Delivery, Outgoing, command
from chassis.broker.handlers import InTransaction
from chassis.errors import InvalidInput
from chassis.postgres import Connection
from chassis.runtime import ServiceRuntime
from contracts import headers as names
from contracts.batches import CancelBatch
from contracts.topology import BATCH_PROCESSOR, GATEWAY
from support.bench import Bench
from support.waiting import until

QUEUE = "batch-processor.intake"
LOG = logging.get(__name__)


async def note(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
    LOG.info("at work", count=len(deliveries))


async def refuse_bad(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
    if any(delivery.message.owner_id == "bad" for delivery in deliveries):
        raise InvalidInput("bad owner")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EventDict]]:
    monkeypatch.setattr(logging.Verbosity, "is_debug", True)
    ids = [structlog.contextvars.merge_contextvars, logging.add_context("test")]
    with structlog.testing.capture_logs(processors=ids) as captured:
        yield captured


def cancel(owner: str = "ann") -> Outgoing:
    with tracing.during(request_id=f"request-of-{owner}"):
        return command(CancelBatch(batch_id=uuid4(), owner_id=owner))


def ids_of(message: Outgoing) -> dict[str, Any]:
    trace_id = message.headers[names.TRACEPARENT].split("-")[1]
    request_id = message.headers[names.REQUEST_ID]
    return {"message_id": message.message_id, "trace_id": trace_id, "request_id": request_id}


def with_event(lines: list[EventDict], event: str) -> list[EventDict]:
    return [line for line in lines if line["event"] == event]


async def waiting(bench: Bench, messages: Sequence[Outgoing]) -> None:
    """Put messages into the queue before there is a consumer, so that they arrive together."""
    gateway: ServiceRuntime = await bench.run(await bench.build(GATEWAY))
    for message in messages:
        await gateway.messaging.publisher.publish(message)


async def consume(bench: Bench, handler: InTransaction) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: handler})
    await bench.run(worker)


async def test_a_message_that_is_handled_alone_is_logged_under_its_ids(
    bench: Bench, lines: list[EventDict]
) -> None:
    messages = [cancel("ann"), cancel("bob")]
    await waiting(bench, messages)
    await consume(bench, InTransaction(note))
    at_work = await until(lambda: _when(with_event(lines, "at work"), 2))
    assert [{k: line[k] for k in ids_of(messages[0])} for line in at_work] == [*map(ids_of, messages)]


async def test_messages_that_are_handled_together_are_logged_without_ids(
    bench: Bench, lines: list[EventDict]
) -> None:
    messages = [cancel(f"owner{number}") for number in range(40)]
    await waiting(bench, messages)
    await consume(bench, InTransaction(note, group=50))
    handled = await until(lambda: _when(with_event(lines, "message handled"), 40))
    together = [line for line in with_event(lines, "at work") if line["count"] > 1]
    assert together, "nothing was handled together"
    assert all(line["messages"] == line["count"] for line in together)
    assert not any({"message_id", "trace_id", "request_id"} & line.keys() for line in together)
    # And each of them has a line of its own.
    assert [{k: line[k] for k in ids_of(messages[0])} for line in handled] == [*map(ids_of, messages)]


async def test_a_message_that_fails_among_others_is_logged_under_its_own_ids(
    bench: Bench, lines: list[EventDict]
) -> None:
    messages = [cancel("a"), cancel("bad"), cancel("b")]
    await waiting(bench, messages)
    await consume(bench, InTransaction(refuse_bad, group=50))
    (failed,) = await until(lambda: with_event(lines, "message failed"))
    assert ids_of(messages[1]).items() <= failed.items()
    assert failed["next"] == "parked"


async def test_a_message_that_cannot_be_read_is_logged_without_its_content(
    bench: Bench, lines: list[EventDict]
) -> None:
    good = cancel()
    poison = Outgoing(
        good.exchange,
        good.routing_key,
        b'{"batch_id":"dear diary"}',
        good.message_type,
        good.message_id,
        good.headers,
    )
    await waiting(bench, [poison])
    await consume(bench, InTransaction(note))
    (refused,) = await until(lambda: with_event(lines, "message failed"))
    assert ids_of(poison).items() <= refused.items()
    assert "batch_id: must be a UUID" in refused["error"]
    assert "diary" not in str(lines)


def _when(found: list[EventDict], count: int) -> list[EventDict] | None:
    return found if len(found) >= count else None

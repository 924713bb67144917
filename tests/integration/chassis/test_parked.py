"""Parked messages are kept with their reason, and can be inspected, replayed and discarded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiormq
import pytest

from chassis import tracing
from chassis.broker.envelope import Outgoing, new_id, stamp
from chassis.broker.handlers import InTransaction
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, NotFound
from chassis.runtime import ServiceRuntime
from contracts.batches import CancelBatch
from contracts.headers import UNKNOWN_WAITS
from contracts.parked import (
    CountParked,
    DiscardParked,
    InspectParked,
    ListParked,
    ParkedChanged,
    ParkedCount,
    ParkedDecided,
    ParkedFilter,
    ParkedPage,
    ReplayParked,
)
from contracts.topology import BATCH_PROCESSOR, EVENTS, GATEWAY, own_exchange, parked_queue
from support.bench import Bench, running
from support.bundled import messages_in
from support.databases import FreshDatabase
from support.effects import cancel, effects
from support.parking import (
    QUEUE,
    SOON,
    Picky,
    command_line,
    die_with_it_until_the_limit,
    header,
    open_messages,
    park,
    parked_ids,
    run_command_line,
)
from support.waiting import until

Hear = Callable[[int], Awaitable[list[ParkedChanged]]]


@pytest.fixture
async def picky() -> Picky:
    return Picky()


@pytest.fixture
async def worker(bench: Bench, picky: Picky) -> ServiceRuntime:
    runtime: ServiceRuntime = await bench.build(BATCH_PROCESSOR)
    runtime.consume(QUEUE, {CancelBatch: InTransaction(picky.handle)})
    runtime.answer({})
    await bench.run(runtime)
    return runtime


@pytest.fixture
async def hear(worker: ServiceRuntime, broker_url: str) -> AsyncIterator[Hear]:
    """Return a function that waits for that many events about parked messages."""
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    queue = (await channel.queue_declare("", exclusive=True)).queue or ""
    await channel.queue_bind(queue, EVENTS, routing_key=ParkedChanged.routing_key)

    async def take(count: int) -> list[ParkedChanged]:
        found: list[ParkedChanged] = []

        async def is_enough() -> bool:
            messages = messages_in(await channel.basic_get(queue, no_ack=True))
            found.extend(ParkedChanged.model_validate_json(message.body) for message in messages)
            return len(found) == count

        await until(is_enough)
        return found

    yield take
    await connection.close()


async def test_a_parked_message_carries_its_reason_and_origin(worker: ServiceRuntime) -> None:
    (message,) = await park(worker, "ann")
    assert (message.queue, message.reason, message.attempts) == (QUEUE, "permanent", 1)
    assert "the handler is broken" in message.last_error
    assert message.first_sent_at is not None
    assert message.parked_at >= message.first_sent_at
    detail = await worker.parked.inspect(InspectParked(id=message.id), SOON)
    assert detail.body["owner_id"] == "ann"


async def test_a_body_that_is_no_json_can_be_inspected(worker: ServiceRuntime) -> None:
    poison = Outgoing("commands", QUEUE, b"\xffno json", "batch.cancel.v1", str(new_id()), stamp())
    await worker.messaging.publisher.publish(poison)

    async def found() -> Any:
        return (await worker.parked.page(ListParked(), SOON)).data

    (message,) = await until(found)
    detail = await worker.parked.inspect(InspectParked(id=message.id), SOON)
    assert detail.body == "�no json"


async def test_a_replayed_message_keeps_its_id_and_has_its_effect_once(
    worker: ServiceRuntime, picky: Picky
) -> None:
    (message,) = await park(worker, "ann")
    picky.is_mended = True
    replay = ReplayParked(wanted=ParkedFilter(ids=[message.id]), actor="test")
    assert (await worker.parked.replay(replay, SOON)).count == 1
    assert (await worker.parked.replay(replay, SOON)).count == 0, "a decision is made once"
    await until(lambda: _has(worker, ["ann"]))
    (decided,) = (await worker.parked.page(ListParked(state="replayed"), SOON)).data
    assert (decided.message_id, decided.decided_by) == (message.message_id, "test")


async def test_messages_are_replayed_by_filter_and_rate(worker: ServiceRuntime, picky: Picky) -> None:
    await park(worker, "a", "b", "c")
    picky.is_mended = True
    wanted = ParkedFilter(queue=QUEUE, reason="permanent")
    decided = await worker.parked.replay(ReplayParked(wanted=wanted, rate_per_s=2, actor="test"), SOON)
    assert decided.count == 3
    async with worker.postgres.connection() as connection:
        waiting = await connection.fetchval("SELECT count(*) FROM outbox WHERE due_at > now()")
    assert waiting >= 1, "the rate holds back what is not due yet"
    await until(lambda: _has(worker, ["a", "b", "c"]))


async def test_a_bulk_action_takes_the_oldest_messages_and_says_how_many_are_left(
    worker: ServiceRuntime,
) -> None:
    parked = await park(worker, "a", "b", "c")
    wanted = ParkedFilter(queue=QUEUE)
    counted = await worker.parked.count(CountParked(wanted=wanted), SOON)
    assert counted == ParkedCount(matching=3, replayable=3)
    discard = DiscardParked(wanted=wanted, most=1, actor="test")
    assert await worker.parked.discard(discard, SOON) == ParkedDecided(count=1, remaining=2)
    left = (await worker.parked.page(ListParked(), SOON)).data
    assert [message.id for message in left] == [message.id for message in parked[1:]]
    replay = ReplayParked(wanted=wanted, most=1, actor="test")
    assert await worker.parked.replay(replay, SOON) == ParkedDecided(count=1, remaining=1)


async def test_a_message_that_fails_again_is_parked_again(worker: ServiceRuntime) -> None:
    (message,) = await park(worker, "ann")
    await worker.parked.replay(ReplayParked(wanted=ParkedFilter(ids=[message.id]), actor="test"), SOON)

    async def parked_again() -> Any:
        page = await worker.parked.page(ListParked(), SOON)
        return page.data

    (again,) = await until(parked_again)
    assert again.message_id == message.message_id
    assert again.id != message.id


async def test_messages_of_the_same_filter_are_replayed_beside_one_without_a_proper_id(
    worker: ServiceRuntime, picky: Picky
) -> None:
    strange = Outgoing("commands", QUEUE, b"{}", "batch.cancel.v1", "no id of ours", stamp())
    await worker.messaging.publisher.publish(strange)
    await until(lambda: parked_ids(worker))
    (message,) = [m for m in await park(worker, "ann", already=1) if m.reason == "permanent"]
    picky.is_mended = True
    replay = ReplayParked(wanted=ParkedFilter(queue=QUEUE), actor="test")
    assert await worker.parked.replay(replay, SOON) == ParkedDecided(count=1, skipped=1)
    await until(lambda: _has(worker, ["ann"]))
    assert await parked_ids(worker) == ["no id of ours"]
    discard = DiscardParked(wanted=ParkedFilter(queue=QUEUE), actor="test")
    assert (await worker.parked.discard(discard, SOON)).count == 1
    (replayed,) = (await worker.parked.page(ListParked(state="replayed"), SOON)).data
    assert replayed.id == message.id


async def test_a_replayed_message_that_kills_its_consumers_is_parked_again(
    bench: Bench, broker_url: str, picky: Picky
) -> None:
    """The broker's own delivery limit, twice: nothing of an earlier parking may make the next a duplicate."""
    first = await bench.build(BATCH_PROCESSOR)
    first.consume(QUEUE, {CancelBatch: InTransaction(picky.handle)})
    async with running(first):
        tracing.begin()
        (refused,) = await park(first, "ann")
        traceparent = await header(first, refused.id, "traceparent")
    keeper = await bench.run(
        await bench.build(BATCH_PROCESSOR, dsn=first.settings.postgres_dsn.get_secret_value())
    )
    known = {refused.id}
    for _ in range(2):
        replay = ReplayParked(wanted=ParkedFilter(queue=QUEUE), actor="test")
        assert (await keeper.parked.replay(replay, SOON)).count == 1
        await die_with_it_until_the_limit(broker_url)
        (again,) = await until(lambda: open_messages(keeper))
        assert again.id not in known
        assert (again.message_id, again.queue) == (refused.message_id, QUEUE)
        assert (again.reason, again.last_error) == (
            "delivery-limit",
            "the consumer died with this message each time",
        )
        assert await header(keeper, again.id, "traceparent") == traceparent
        known.add(again.id)


async def test_a_message_with_any_headers_is_parked_and_can_be_replayed(
    worker: ServiceRuntime, picky: Picky
) -> None:
    odd = {
        "written": "\\u0000",
        "nul": "a\0b",
        "nested": {"a": [{"b": datetime(2026, 1, 2, tzinfo=UTC)}]},
        "bytes": bytearray(b"\xff"),
        "x-original-queue": "q" * 5_000,
        "x-attempt": 10**12,
    }
    message = cancel("ann")
    await worker.messaging.publisher.publish(replace(message, headers={**message.headers, **odd}))
    (stored,) = await until(lambda: open_messages(worker))
    assert await header(worker, stored.id, "written") == "\\u0000"
    assert await header(worker, stored.id, "nul") == "a\ufffdb"
    picky.is_mended = True
    replay = ReplayParked(wanted=ParkedFilter(ids=[stored.id]), actor="test")
    assert (await worker.parked.replay(replay, SOON)).count == 1
    await until(lambda: _has(worker, ["ann"]))


async def test_a_message_that_the_broker_parks_twice_is_stored_once(worker: ServiceRuntime) -> None:
    died = {"queue": QUEUE, "reason": "delivery_limit", "time": datetime(2026, 1, 2, tzinfo=UTC)}
    message = cancel("ann")
    dead = replace(
        message,
        exchange=own_exchange(BATCH_PROCESSOR),
        routing_key=parked_queue(BATCH_PROCESSOR),
        headers={**message.headers, "x-sent-at": 1, "x-death": [died]},
    )
    for _ in range(2):
        await worker.messaging.publisher.publish(dead)
    await worker.messaging.publisher.publish(replace(dead, message_id=str(new_id())))
    assert len(await until(lambda: parked_ids(worker, 2))) == 2
    page = await worker.parked.page(ListParked(), SOON)
    assert {m.parked_at for m in page.data} == {died["time"]}


async def test_a_discarded_message_stays_on_record_for_thirty_days(worker: ServiceRuntime) -> None:
    (message,) = await park(worker, "ann")
    wanted = ParkedFilter(message_type="batch.cancel.v1")
    assert (await worker.parked.discard(DiscardParked(wanted=wanted, actor="test"), SOON)).count == 1
    assert (await worker.parked.page(ListParked(), SOON)).data == []
    (decided,) = (await worker.parked.page(ListParked(state="discarded"), SOON)).data
    assert decided.id == message.id
    assert await effects(worker) == []
    await worker.parked.clean()
    assert len((await worker.parked.page(ListParked(state="discarded"), SOON)).data) == 1
    async with worker.postgres.connection() as connection:
        await connection.execute("UPDATE parked SET decided_at = decided_at - interval '30 days'")
    await worker.parked.clean()
    assert (await worker.parked.page(ListParked(state="discarded"), SOON)).data == []


async def test_an_unreadable_message_is_parked_and_kept(
    worker: ServiceRuntime,
) -> None:
    headers = {"x-attempt": "many", "x-queue": "a\0b", "x-sent-at": 2**62, "x-other": "c\0d"}
    strange = Outgoing(
        own_exchange(BATCH_PROCESSOR), parked_queue(BATCH_PROCESSOR), b"\0", "no\0type", "no\0id", headers
    )
    await worker.messaging.publisher.publish(strange)

    async def found() -> Any:
        return (await worker.parked.page(ListParked(), SOON)).data

    (message,) = await until(found)
    assert (message.message_type, message.message_id) == ("no\ufffdtype", "no\ufffdid")
    assert (message.attempts, message.first_sent_at) == (1, None)


async def test_an_action_without_a_filter_is_refused_rather_than_applied_to_all(
    worker: ServiceRuntime,
) -> None:
    with pytest.raises(InvalidInput):
        await worker.parked.discard(DiscardParked(wanted=ParkedFilter(), actor="test"), SOON)
    with pytest.raises(NotFound):
        await worker.parked.inspect(InspectParked(id=10**12), SOON)


async def test_another_service_can_list_and_discard_parked_messages_over_the_broker(
    worker: ServiceRuntime, bench: Bench
) -> None:
    (message,) = await park(worker, "ann")
    gateway = await bench.run(await bench.build(GATEWAY))
    page = await gateway.messaging.rpc.call(
        ListParked(), ParkedPage, Deadline.after(5), service=BATCH_PROCESSOR
    )
    assert [m.id for m in page.data] == [message.id]
    request = DiscardParked(wanted=ParkedFilter(ids=[message.id]), actor="test")
    decided = await gateway.messaging.rpc.call(
        request, ParkedDecided, Deadline.after(5), service=BATCH_PROCESSOR
    )
    assert decided.count == 1


async def test_the_command_line_does_every_action_without_a_gateway(
    worker: ServiceRuntime, picky: Picky
) -> None:
    kept, given_up = await park(worker, "ann", "bob")
    picky.is_mended = True
    dsn = worker.settings.postgres_dsn.get_secret_value()
    listed = await command_line(dsn, "list", "--reason", "permanent")
    assert [message["id"] for message in listed["data"]] == [kept.id, given_up.id]
    owner = (await command_line(dsn, "inspect", str(kept.id)))["body"]["owner_id"]
    assert owner in ("ann", "bob")
    one = {"count": 1, "skipped": 0, "remaining": 0}
    assert await command_line(dsn, "replay", "--id", str(kept.id), "--rate", "10") == one
    assert await command_line(dsn, "discard", "--queue", QUEUE) == one
    await until(lambda: _has(worker, [owner]))
    (decided,) = (await command_line(dsn, "list", "--state", "discarded"))["data"]
    assert (decided["id"], decided["decided_by"].endswith("(command line)")) == (given_up.id, True)


@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        (["discard"], 1, "Select the messages by"),
        (["inspect", "999999999999"], 1, "There is no parked message"),
        (["list", "--limit", "1000"], 2, "limit: must be less than or equal to 200"),
        (["replay", "--rate", "0", "--id", "1"], 2, "rate_per_s: must be greater than 0"),
        (["mend"], 2, "invalid choice"),
    ],
)
async def test_a_refused_command_says_why(
    fresh_database: FreshDatabase, worker: ServiceRuntime, words: list[str], code: int, printed: str
) -> None:
    child = await run_command_line(worker.settings.postgres_dsn.get_secret_value(), *words)
    assert (child.returncode, printed in child.stderr) == (code, True), child.stderr
    assert "Traceback" not in child.stderr


async def test_a_database_that_is_away_is_named(unused_tcp_port: int) -> None:
    child = await run_command_line(f"postgresql://nobody:hidden@127.0.0.1:{unused_tcp_port}/x", "list")
    assert child.returncode == 1
    assert "database" in child.stderr
    assert "hidden" not in child.stderr


async def _has(worker: ServiceRuntime, names: list[str]) -> bool:
    return sorted(await effects(worker)) == names


async def test_the_fate_of_a_message_is_announced_in_the_transaction_that_changes_it(
    worker: ServiceRuntime, hear: Hear
) -> None:
    ann, bob = await park(worker, "ann", "bob")
    await worker.parked.replay(ReplayParked(wanted=ParkedFilter(ids=[ann.id]), actor="ann"), SOON)
    await until(lambda: parked_ids(worker, 2))
    await worker.parked.discard(DiscardParked(wanted=ParkedFilter(ids=[bob.id]), actor="ann"), SOON)
    heard = await hear(5)
    of_ann = [
        (news.state, news.reason)
        for news in heard
        if [str(id_) for id_ in news.message_ids] == [ann.message_id]
    ]
    of_bob = [
        (news.state, news.reason)
        for news in heard
        if [str(id_) for id_ in news.message_ids] == [bob.message_id]
    ]
    assert of_ann == [("parked", "permanent"), ("replayed", None), ("parked", "permanent")]
    assert of_bob == [("parked", "permanent"), ("discarded", None)]
    for message in (ann, bob):
        times = [news.at for news in heard if [str(id_) for id_ in news.message_ids] == [message.message_id]]
        assert times == sorted(times)


async def test_events_about_parking_and_messages_without_a_valid_id_are_not_announced_when_parked(
    worker: ServiceRuntime, hear: Hear
) -> None:
    for message_id, message_type in ((str(new_id()), ParkedChanged.message_type), ("none", "x.v1")):
        # No newer replica has known the type, so it does not wait for one any more.
        headers = {**stamp(), UNKNOWN_WAITS: 2}
        poison = Outgoing("commands", QUEUE, b"{}", message_type, message_id, headers)
        await worker.messaging.publisher.publish(poison)
    await until(lambda: parked_ids(worker, 2))
    (last,) = [row for row in await park(worker, "ann", already=2) if row.message_type == "batch.cancel.v1"]
    heard = await hear(1)
    assert [str(id_) for id_ in heard[0].message_ids] == [last.message_id]

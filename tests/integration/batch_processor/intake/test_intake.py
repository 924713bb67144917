"""Batches arrive in any order, doubled, damaged or not at all."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from batch_processor.coordination import repository
from batch_processor.intake.handlers import Intake
from batch_processor.resources import Resources
from chassis import queries
from chassis.broker.envelope import Delivery, new_id
from chassis.errors import RemoteFailure
from contracts.batches import (
    INTAKE,
    AbandonBatch,
    AppendItems,
    Batches,
    CancelBatch,
    CreateBatch,
    Item,
    ListBatches,
)
from support.batch_stack import BatchProcessors, Caller, Stage
from support.turns_of_the_loop import turns_of_the_loop
from support.waiting import until


@pytest.fixture
async def service(house: BatchProcessors) -> Resources:
    return await house.start()


async def test_a_batch_with_its_items_runs_to_its_end(service: Resources, caller: Caller) -> None:
    batch_id = await caller.submit("echo", [{"n": 1}, None, "three"])
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.total, batch.counts.succeeded) == ("completed", 3, 3)
    assert [result.result for result in await caller.results(batch_id)] == [{"n": 1}, None, "three"]
    [event] = await caller.finished_events()
    assert (event.batch.id, event.owner_id, event.batch.counts.succeeded) == (batch_id, "ann", 3)


async def test_the_news_of_the_end_of_a_task_has_no_result(service: Resources, caller: Caller) -> None:
    task_id = await caller.submit("echo", ["x" * 1000], kind="task")
    task = await caller.reach(task_id)
    [event] = await caller.finished_events()
    assert (event.batch.id, event.batch.status, event.batch.result) == (task_id, "completed", None)
    assert task.result == "x" * 1000


async def test_a_batch_without_items_is_completed(service: Resources, caller: Caller) -> None:
    batch = await caller.reach(await caller.submit("echo", []))
    assert (batch.status, batch.counts.total) == ("completed", 0)


@pytest.mark.parametrize("seed", range(4))
async def test_a_streamed_upload_arrives_in_any_order_and_doubled(
    service: Resources, caller: Caller, seed: int
) -> None:
    chance = random.Random(seed)
    creation = caller.creation("echo", None)
    id_ = creation.batch_id
    parts = [caller.append(id_, offset, list(range(offset, offset + 100))) for offset in range(0, 1000, 100)]
    messages = [(message, new_id()) for message in (creation, *parts, caller.seal(id_, 1000))]
    # Some twice under the same id (a redelivery), some under another (a resumed upload).
    messages += [(m, i if chance.random() < 0.5 else new_id()) for m, i in chance.sample(messages, 6)]
    chance.shuffle(messages)
    for message, message_id in messages:
        await caller.send(message, message_id=message_id)
    batch = await caller.reach(id_)
    assert (batch.status, batch.counts.succeeded, batch.counts.total) == ("completed", 1000, 1000)
    results = await caller.results(id_, limit=300)
    assert [(r.position, r.custom_id, r.result) for r in results] == [
        (n, f"item-{n}", n) for n in range(1000)
    ]
    assert len(await caller.finished_events()) == 1


async def test_parts_that_overlap_are_stored_once(service: Resources, caller: Caller) -> None:
    creation = caller.creation("echo", None)
    await caller.send(creation)
    await caller.send(caller.append(creation.batch_id, 0, list(range(60))))
    await caller.send(caller.append(creation.batch_id, 40, list(range(40, 100))))
    await caller.send(caller.seal(creation.batch_id, 100))
    batch = await caller.reach(creation.batch_id)
    assert (batch.status, batch.counts.succeeded) == ("completed", 100)


async def test_a_batch_whose_owner_lacks_a_scope_of_the_operation_fails_and_runs_nothing(
    service: Resources, caller: Caller
) -> None:
    mail = {"to": ["a@example.org"], "text": "hello"}
    batch = await caller.reach(await caller.submit("email.send", [mail], scopes=["batches:write"]))
    assert (batch.status, batch.counts.skipped) == ("failed", 1)
    assert batch.error["code"] == "insufficient-scope"
    assert "emails:send" in batch.error["detail"]


@pytest.mark.parametrize("scopes", [["batches:write", "quotes:read"], None])
async def test_a_batch_runs_with_the_scope_of_its_operation_or_from_a_sender_that_names_none(
    service: Resources, caller: Caller, scopes: list[str] | None
) -> None:
    batch = await caller.reach(await caller.submit("guarded", [1], scopes=scopes))
    assert (batch.status, batch.counts.succeeded) == ("completed", 1)


async def test_an_upload_is_refused_by_the_scopes_that_its_seal_carries(
    service: Resources, caller: Caller
) -> None:
    id_ = new_id()
    await caller.send(caller.append(id_, 0, [1, 2]))
    seal = caller.seal(id_, 2, operation="guarded").model_copy(update={"scopes": ["batches:write"]})
    await caller.send(seal)
    batch = await caller.reach(id_)
    assert (batch.status, batch.error["code"]) == ("failed", "insufficient-scope")


async def test_two_items_with_the_same_custom_id_fail_the_batch(service: Resources, caller: Caller) -> None:
    creation = caller.creation("echo", None).model_copy(
        update={"items": [Item(custom_id="a", payload=1), Item(custom_id="a", payload=2)]}
    )
    await caller.send(creation)
    batch = await caller.reach(creation.batch_id)
    assert (batch.status, batch.error["code"]) == ("failed", "duplicate-custom-id")
    assert "'a' on lines 1 and 2" in batch.error["detail"]


async def test_a_large_upload_is_checked_after_its_intake_and_names_the_first_ten_repetitions(
    service: Resources, caller: Caller
) -> None:
    """Seven thousand items, of which twelve ids come twice and one three times, below an empty line."""
    id_ = new_id()
    names = [f"item-{n}" for n in range(7000)]
    for n in range(12):
        names[3000 + 5 * n] = names[100 * n]
    names[6999] = names[0]
    for start in range(0, 7000, 500):
        items = [Item(custom_id=name, payload=1) for name in names[start : start + 500]]
        run = AppendItems(batch_id=id_, owner_id="ann", offset=start, items=items)
        if start >= 500:
            run = run.model_copy(update={"lines": list(range(start + 2, start + 502))})
        await caller.send(run)
    await caller.send(caller.seal(id_, 7000, operation="counted"))
    batch = await caller.reach(id_)
    assert (batch.status, batch.counts.skipped) == ("failed", 7000)
    assert batch.error["code"] == "duplicate-custom-id"
    assert "'item-0' on 3 lines from 1 to 7001; 'item-100' on lines 101 and 3007;" in batch.error["detail"]
    assert "'item-900' on lines 902 and 3047. Nothing was run." in batch.error["detail"]
    assert "item-1000" not in batch.error["detail"]
    assert len(await caller.finished_events()) == 1


async def test_while_a_large_upload_is_checked_others_are_taken_in_and_it_can_be_cancelled(
    service: Resources, caller: Caller
) -> None:
    id_ = new_id()
    async with caller.database.acquire() as connection, connection.transaction():
        # As long as this is held, the check seems to be under way elsewhere.
        await connection.execute(queries.of("batch_processor")["lock_validation"], id_)
        await _upload(caller, id_, 2_500)
        checked = await caller.reach(id_, "validating")
        assert checked.next is not None
        assert checked.next.what == "the comparison of its custom ids"
        assert checked.next.by is not None
        assert checked.next.by > datetime.now(UTC)
        await until(lambda: REGISTRY.get_sample_value("tickwire_batches_validating") == 1)
        late = "UPDATE batches SET validating_since = now() - interval '11 min' WHERE id = $1"
        await caller.database.execute(late, id_)
        await until(lambda: REGISTRY.get_sample_value("tickwire_batches_overdue") == 1)
        other = await caller.reach(await caller.submit("echo", [1, 2]), timeout_s=5)
        assert other.status == "completed"
        await caller.send(CancelBatch(batch_id=id_, owner_id="ann"))
        batch = await caller.reach(id_, timeout_s=5)
    assert (batch.status, batch.counts.cancelled) == ("cancelled", 2_500)


async def test_large_uploads_without_repetitions_run_after_their_check(
    service: Resources, caller: Caller
) -> None:
    ids = [new_id() for _ in range(3)]
    for id_, count in zip(ids, (4_000, 2_500, 2_001), strict=True):
        await _upload(caller, id_, count)
    for id_ in ids:
        batch = await caller.reach(id_)
        assert (batch.status, batch.counts.succeeded) == ("completed", batch.counts.total)


async def test_an_upload_with_missing_items_fails(service: Resources, caller: Caller) -> None:
    creation = caller.creation("echo", None)
    await caller.send(creation)
    await caller.send(caller.append(creation.batch_id, 0, [0, 1]))
    await caller.send(caller.append(creation.batch_id, 5, [5, 6]))
    await caller.send(caller.seal(creation.batch_id, 4))
    batch = await caller.reach(creation.batch_id)
    assert (batch.status, batch.error["code"]) == ("failed", "inconsistent-upload")


async def test_an_abandoned_upload_is_gone_and_takes_nothing_more(service: Resources, caller: Caller) -> None:
    creation = caller.creation("echo", None)
    id_ = creation.batch_id
    await caller.send(creation)
    await caller.send(caller.append(id_, 0, [0, 1]))
    await caller.reach(id_, "open")
    await caller.send(AbandonBatch(batch_id=id_, owner_id="ann"))
    await until(lambda: _status(caller, id_, "abandoned"))
    await caller.send(caller.append(id_, 2, [2, 3]))
    await caller.send(caller.seal(id_, 4))
    await caller.submit("echo", [1])
    with pytest.raises(RemoteFailure, match="no batch"):
        await caller.get(id_)
    await service.coordinator.remove()
    assert await caller.database.fetchval("SELECT count(*) FROM items WHERE batch_id = $1", id_) == 0


async def test_an_upload_that_is_never_sealed_expires(house: BatchProcessors, caller: Caller) -> None:
    await house.start(upload_expires_s=1)
    creation = caller.creation("echo", None)
    await caller.send(creation)
    await caller.send(caller.append(creation.batch_id, 0, [0, 1]))
    batch = await caller.reach(creation.batch_id, "expired")
    assert (batch.counts.total, batch.counts.skipped) == (2, 2)
    assert [event.batch.status for event in await caller.finished_events()] == ["expired"]


async def test_an_upload_says_when_it_expires_and_is_overdue_after_that(
    house: BatchProcessors, caller: Caller
) -> None:
    await house.start()
    creation = caller.creation("echo", None)
    id_, statement = creation.batch_id, "SELECT appended_at FROM batches WHERE id = $1"
    await caller.send(creation)
    opened = await caller.reach(id_, "open")
    begun = await caller.database.fetchval(statement, id_)
    await caller.send(caller.append(id_, 0, [0, 1]))

    async def is_stored() -> bool:
        return (await caller.get(id_)).counts.total == 2

    await until(is_stored)
    appended = await caller.database.fetchval(statement, id_)
    shown = await caller.get(id_)
    listed = (await caller.ask(ListBatches(owner_id="ann"), Batches)).data[0]
    for view, since in ((opened, begun), (shown, appended), (listed, appended)):
        assert view.next is not None
        assert view.next.by == since + timedelta(days=1)
    assert appended > begun
    async with caller.database.acquire() as connection:
        # Never committed, so the coordinator ends nothing in between.
        transaction = connection.transaction()
        await transaction.start()
        for column, age, late in (
            ("appended_at", 82_800, 0),
            ("appended_at", 90_000, 1),
            ("expires_at", 1, 1),
        ):
            await connection.execute(
                f"UPDATE batches SET created_at = now() - interval '2 days',"
                f" {column} = now() - make_interval(secs => {age})"
            )
            assert late == await repository.count_overdue(
                connection,
                begun_within_s=600,
                validated_within_s=600,
                upload_expires_s=86_400,
                cancelled_within_s=60,
            )
        await transaction.rollback()


async def test_an_upload_that_is_never_sealed_is_kept_while_it_grows(
    house: BatchProcessors, caller: Caller
) -> None:
    service = await house.start()
    creation = caller.creation("echo", None)
    await caller.send(creation)
    await caller.send(caller.append(creation.batch_id, 0, [0, 1]))
    await caller.reach(creation.batch_id, "open")
    moved = "UPDATE batches SET created_at = now() - interval '2 days', appended_at = now() - $1::interval"
    await caller.database.execute(moved, timedelta(hours=23))
    await service.coordinator.expire()
    assert (await caller.get(creation.batch_id)).status == "open"
    await caller.database.execute(moved, timedelta(hours=25))
    await service.coordinator.expire()
    assert (await caller.reach(creation.batch_id)).status == "expired"


async def test_a_cancel_that_overtakes_its_batch_is_not_forgotten(service: Resources, caller: Caller) -> None:
    creation = caller.creation("echo", [1, 2, 3])
    await caller.send(CancelBatch(batch_id=creation.batch_id, owner_id="ann"))
    await until(lambda: _status(caller, creation.batch_id, "open"))
    await caller.send(creation)
    batch = await caller.reach(creation.batch_id)
    assert (batch.status, batch.counts.cancelled, batch.counts.total) == ("cancelled", 3, 3)
    assert len(await caller.finished_events()) == 1


async def test_a_message_for_a_batch_of_another_owner_is_parked(service: Resources, caller: Caller) -> None:
    before = _parked()
    batch_id = await caller.submit("echo", [1])
    await caller.reach(batch_id)
    await caller.send(CancelBatch(batch_id=batch_id, owner_id="eve"))
    await until(lambda: _parked() == before + 1)
    assert (await caller.get(batch_id)).status == "completed"


async def test_a_task_carries_its_only_result(service: Resources, caller: Caller) -> None:
    batch = await caller.reach(await caller.submit("echo", [{"answer": 42}], kind="task"))
    assert (batch.kind, batch.status, batch.result) == ("task", "completed", {"answer": 42})


async def test_a_task_that_fails_carries_its_error(service: Resources, caller: Caller) -> None:
    batch = await caller.reach(await caller.submit("grumpy", [3], kind="task"))
    assert (batch.status, batch.result) == ("failed", None)
    assert batch.error == {"code": "conflict", "detail": "divisible by three"}


async def test_a_task_waits_for_its_time(service: Resources, caller: Caller) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1)
    batch = await caller.reach(await caller.submit("echo", [1], kind="task", not_before=due))
    assert batch.started_at is not None
    assert batch.started_at >= due


async def test_integers_of_any_size_and_odd_names_survive(service: Resources, caller: Caller) -> None:
    creation = CreateBatch(
        batch_id=new_id(),
        owner_id="ann",
        operation="echo",
        accepted_at=datetime.now(UTC),
        items=[Item(custom_id="a\x00b", payload=10**30), Item(custom_id="ä ☃", payload="\x00\u2028")],
    )
    await caller.send(creation)
    await caller.reach(creation.batch_id, "completed")
    rows = await caller.database.fetch("SELECT result FROM results ORDER BY position")
    assert [row["result"] for row in rows] == [str(10**30), '"\\u0000\u2028"']
    names = await caller.database.fetch("SELECT custom_id FROM items ORDER BY position")
    assert [row["custom_id"] for row in names] == ["a\ufffdb", "ä ☃"]


async def _upload(caller: Caller, id_: UUID, count: int) -> None:
    for start in range(0, count, 500):
        await caller.send(caller.append(id_, start, [1] * min(500, count - start)))
    await caller.send(caller.seal(id_, count))


async def _status(caller: Caller, batch_id: Any, status: str) -> bool:
    return bool(
        await caller.database.fetchval("SELECT status FROM batches WHERE id = $1", batch_id) == status
    )


def _parked() -> float:
    labels = {"queue": INTAKE, "type": CancelBatch.message_type, "outcome": "park"}
    return REGISTRY.get_sample_value("tickwire_messages_consumed_total", labels) or 0


async def test_the_event_loop_is_not_held_up_while_items_of_an_upload_are_stored(
    service: Resources, caller: Caller
) -> None:
    intake = Intake(Stage().operations, chunk_size=100)

    async def longest_turn(runs: int) -> int:
        id_ = new_id()
        messages = [caller.append(id_, 500 * run, range(500)) for run in range(runs)]
        given = [Delivery(m, new_id(), 1, "ann", {}, m.model_dump_json().encode()) for m in messages]
        async with service.runtime.postgres.transaction() as connection, turns_of_the_loop() as most_calls:
            await intake.append(connection, given)
        return most_calls()

    one, eight = [await longest_turn(runs) for runs in (1, 8)]
    # Without a pause it is eight times as long.
    assert eight < 3 * one

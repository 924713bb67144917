"""Rights that an owner has lost do not come back with work that was on its way meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from batch_processor.rights import lost_rights
from batch_processor.rights.lost_rights import KNOWN_WITHIN, Loss
from batch_processor.sources import copying
from chassis.broker.envelope import new_id
from contracts.batches import AppendItems, CreateBatch, FollowUp, LimitOwner, RetryBatch, SealBatch, Source
from contracts.items import Item
from support.batch_engine import BatchEngine
from support.waiting import until

BOTH = ["batches:write", "quotes:read"]
ONE = ["batches:write"]
THEN = FollowUp(operation="guarded", payload="1")


def before() -> datetime:
    """Return a time long enough before now for a gateway to know what has changed since."""
    return datetime.now(UTC) - 3 * KNOWN_WITHIN


async def lose(engine: BatchEngine, *, at: datetime | None = None, left: Sequence[str] = tuple(ONE)) -> None:
    """Let ann lose all but some rights, and limit all that has arrived."""
    await engine.handle(LimitOwner(owner_id="ann", scopes=list(left), limited_at=at))
    await engine.deliver(LimitOwner)


async def ended(engine: BatchEngine, batch_id: UUID) -> tuple[str, str | None, set[str]]:
    """Return the status of a batch, its error, and its scopes."""
    batch = await engine.get(batch_id)
    assert batch is not None
    return batch.status, batch.error_code, set(batch.scopes or ())


async def follow_up_of(engine: BatchEngine) -> UUID:
    """Return the id of the only task that is on its way to be made."""
    [row] = await engine.fetch("SELECT body FROM outbox WHERE message_type = $1", CreateBatch.message_type)
    return UUID(json.loads(row["body"])["batch_id"])


async def test_a_follow_up_that_is_on_its_way_when_its_owner_loses_a_right_is_made_without_it(
    engine: BatchEngine,
) -> None:
    await engine.give("ann", scopes=BOTH, on_finished=THEN)
    await engine.work(succeeds=True)
    task_id = await follow_up_of(engine)
    await lose(engine)
    await engine.deliver(CreateBatch)
    assert await ended(engine, task_id) == ("failed", "insufficient-scope", set(ONE))


async def test_a_follow_up_of_a_batch_that_ends_between_the_loss_and_its_message_is_made_without_it(
    engine: BatchEngine,
) -> None:
    await engine.give("ann", scopes=BOTH, on_finished=THEN, accepted_at=before() - KNOWN_WITHIN)
    await engine.work(succeeds=True)
    task_id = await follow_up_of(engine)
    # The role changed before the end, and the message came late.
    await lose(engine, at=before())
    await engine.deliver(CreateBatch)
    assert await ended(engine, task_id) == ("failed", "insufficient-scope", set(ONE))


async def test_a_follow_up_of_work_that_was_accepted_with_a_right_that_came_back_has_it(
    engine: BatchEngine,
) -> None:
    await lose(engine, at=before())
    await engine.give("ann", scopes=BOTH, on_finished=THEN)
    await engine.work(succeeds=True)
    task_id = await follow_up_of(engine)
    await engine.deliver(CreateBatch)
    assert await ended(engine, task_id) == ("queued", None, set(BOTH))


@pytest.mark.parametrize("kind", ["task", "batch", "upload"])
@pytest.mark.parametrize("is_known_at_once", [True, False])
async def test_work_that_was_accepted_before_a_loss_and_arrives_after_it_is_refused(
    engine: BatchEngine, kind: str, is_known_at_once: bool
) -> None:
    """The gateway that accepted it may have learned of the loss a few seconds late."""
    at = before()
    await lose(engine, at=at)
    accepted_at = at + (timedelta(seconds=-1) if is_known_at_once else KNOWN_WITHIN / 2)
    if kind == "upload":
        batch_id = new_id()
        await engine.handle(AppendItems(batch_id=batch_id, owner_id="ann", offset=0, items=[Item(payload=1)]))
        await engine.handle(
            SealBatch(
                batch_id=batch_id,
                owner_id="ann",
                operation="guarded",
                accepted_at=accepted_at,
                scopes=BOTH,
                total=1,
            )
        )
    else:
        batch_id = await engine.give(
            "ann", kind=kind, operation="guarded", accepted_at=accepted_at, scopes=BOTH
        )
    assert await ended(engine, batch_id) == ("failed", "insufficient-scope", set(ONE))
    others = await engine.give("bob", operation="guarded", accepted_at=accepted_at, scopes=BOTH)
    assert await ended(engine, others) == ("queued", None, set(BOTH))
    later = await engine.give("ann", operation="guarded", scopes=BOTH)
    assert await ended(engine, later) == ("queued", None, set(BOTH))


async def test_a_batch_that_waits_for_the_items_of_another_when_a_right_is_lost_runs_none_of_them(
    engine: BatchEngine,
) -> None:
    source = Source(batch_id=await engine.give("ann"))
    await engine.work(succeeds=True)
    waiting = await engine.give("ann", operation="guarded", items=None, source=source, scopes=BOTH)
    await lose(engine)
    late = await engine.give(
        "ann", operation="guarded", items=None, source=source, scopes=BOTH, accepted_at=before()
    )
    filling = copying.Sources(engine.postgres, engine.intake, operations=["guarded"], begun=lambda: None)
    while await filling.copy():
        pass
    assert await ended(engine, waiting) == ("cancelled", "insufficient-scope", set(ONE))
    assert await ended(engine, late) == ("failed", "insufficient-scope", set(ONE))


async def test_a_retry_that_was_asked_for_before_a_loss_and_arrives_after_it_runs_nothing(
    engine: BatchEngine,
) -> None:
    guarded, free = [
        await engine.give(
            "ann",
            operation=name,
            scopes=BOTH,
            on_finished=THEN,
            accepted_at=before() - KNOWN_WITHIN,
        )
        for name in ("guarded", "echo")
    ]
    await engine.work(succeeds=False)
    await engine.execute("DELETE FROM outbox")
    await lose(engine, at=before())
    for batch_id in (guarded, free):
        await engine.handle(
            RetryBatch(
                batch_id=batch_id,
                owner_id="ann",
                scopes=BOTH,
                requested_at=before() - timedelta(seconds=1),
            )
        )
    await engine.coordinator.redrive()
    assert (await ended(engine, guarded))[0] == "completed"
    assert (await ended(engine, free))[::2] == ("queued", set(ONE))
    # The right has come back since: a retry of now has it, and so has what follows.
    await engine.handle(
        RetryBatch(batch_id=guarded, owner_id="ann", scopes=BOTH, requested_at=datetime.now(UTC))
    )
    await engine.coordinator.redrive()
    assert (await ended(engine, guarded))[::2] == ("queued", set(BOTH))


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_loss_and_work_that_arrives_meanwhile_wait_for_each_other(
    engine: BatchEngine, is_first: bool
) -> None:
    """Whichever is first: the work is refused, or is found by the step that limits what has arrived."""
    loss = Loss("ann", datetime.now(UTC), ONE)
    limit = LimitOwner(owner_id="ann", scopes=ONE, limited_at=loss.lost_at, is_noted=True)

    async def note() -> None:
        async with engine.postgres.transaction() as connection:
            await lost_rights.note(connection, loss)

    async with engine.postgres.transaction() as connection:
        if is_first:
            await lost_rights.note(connection, loss)
            other = asyncio.ensure_future(engine.give("ann", operation="guarded", scopes=BOTH))
            await until(lambda: is_waiting(engine))
        else:
            create = CreateBatch(
                batch_id=new_id(),
                owner_id="ann",
                operation="guarded",
                accepted_at=loss.lost_at,
                scopes=BOTH,
                items=[Item(payload=1)],
            )
            await engine.create_in(connection, create)
            noting = asyncio.ensure_future(note())
            await until(lambda: is_waiting(engine))
    if is_first:
        batch_id = await other
    else:
        await noting
        batch_id = create.batch_id
    await engine.handle(limit)
    status, code, scopes = await ended(engine, batch_id)
    assert (code, scopes) == ("insufficient-scope", set(ONE))
    assert status == ("failed" if is_first else "cancelling")


async def test_a_late_message_of_a_loss_limits_nothing_that_was_accepted_after_the_right_came_back(
    engine: BatchEngine,
) -> None:
    old = await engine.give("ann", operation="guarded", accepted_at=before(), scopes=BOTH)
    new = await engine.give("ann", operation="guarded", scopes=BOTH)
    await lose(engine, at=before())
    assert (await ended(engine, old))[1:] == ("insufficient-scope", set(ONE))
    assert await ended(engine, new) == ("queued", None, set(BOTH))


async def test_only_losses_that_took_more_than_the_last_one_are_kept_beside_it(
    engine: BatchEngine,
) -> None:
    at = before()
    for number, left in enumerate(([], BOTH, ONE, BOTH, ONE)):
        await lose(engine, at=at + timedelta(seconds=number), left=left)
    rows = await engine.fetch("SELECT lost_at, scopes_left FROM lost_rights ORDER BY lost_at")
    assert [(row["lost_at"] - at, row["scopes_left"]) for row in rows] == [
        (timedelta(), []),
        (timedelta(seconds=4), ONE),
    ]


async def is_waiting(engine: BatchEngine) -> bool:
    """Return whether a statement waits for a lock."""
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await engine.fetch(waits))

"""The coordinator takes owners in turn: nobody waits for all that another one cancels or retries."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from uuid import UUID

import pytest

from batch_processor.coordination import coordinator, owner_turns, repository
from batch_processor.intake.validation import Problem, Validation
from batch_processor.sources.copying import Sources
from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from chassis.postgres import Connection
from contracts.batches import CancelBatch, CreateBatch, PauseBatch, ResumeBatch, RetryBatch, Source
from contracts.pauses import PauseWork, ResumeWork
from support.batch_engine import BatchEngine
from support.waiting import until

# More than one step cancels.
_MANY = 200


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "CANCEL_STEP", 60)


async def test_a_small_batch_is_cancelled_before_large_ones_of_another_owner(engine: BatchEngine) -> None:
    for order in itertools.permutations(["ann", "ann", "bob"]):
        ids = [(owner, await engine.give(owner, items=1 if owner == "bob" else _MANY)) for owner in order]
        for owner, id_ in ids:
            await engine.handle(CancelBatch(batch_id=id_, owner_id=owner))
        await engine.coordinator.cancel()
        ended = await engine.fetch("SELECT owner_id FROM batches ORDER BY finished_at LIMIT 1")
        assert [row["owner_id"] for row in ended] == ["bob"], order
        await engine.execute("DELETE FROM batches")


async def test_the_first_batch_of_each_owner_is_found_before_the_second_of_any(engine: BatchEngine) -> None:
    for owner in ["ann"] * 150 + ["bob", "cid", "bob"]:
        await engine.give(owner)
    await engine.execute("UPDATE batches SET status = 'cancelling', retry_codes = '{}'")
    async with engine.postgres.connection() as connection:
        for find in (repository.cancelling, repository.retrying):
            found = await find(connection, but=[], after="")
            assert [*found.values()] == ["ann", "bob", "cid", "ann", "bob"] + ["ann"] * 95
            others = await find(connection, but=list(found)[:3], after="")
            assert [*others.values()][:3] == ["ann", "bob", "ann"]
        await connection.execute("UPDATE batches SET status = 'queued', expires_at = now() - interval '1 s'")
        lapsed = await repository.lapsed(connection, but=[], after="")
        await connection.execute(
            "UPDATE batches SET status = 'open', appended_at = NULL, created_at = now() - interval '2 days'"
        )
        expired = await repository.expired_uploads(connection, expires_s=86_400, but=[], after="ann")
    assert {*list(lapsed.values())[:3]} == {"ann", "bob", "cid"}
    assert [*expired.values()] == ["bob", "cid", "ann", "bob"] + ["ann"] * 96


async def test_every_owner_has_a_step_however_long_one_of_another_takes(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_turns, "TURN_S", 0)
    for owner in ("ann", "ann", "bob"):
        batch_id = await engine.give(owner)
        await engine.handle(CancelBatch(batch_id=batch_id, owner_id=owner))
    for _ in range(2):
        await engine.coordinator.cancel()
    ended = await engine.fetch("SELECT owner_id FROM batches WHERE status = 'cancelled' ORDER BY owner_id")
    assert [row["owner_id"] for row in ended] == ["ann", "bob"]


@pytest.mark.parametrize("order", [CancelBatch, RetryBatch])
async def test_every_owner_has_a_step_however_many_others_have_much_to_do(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch, order: type[CancelBatch | RetryBatch]
) -> None:
    """More of them than one look finds."""
    monkeypatch.setattr(owner_turns, "TURN_S", 0)
    monkeypatch.setattr(repository, "MOST_FOUND", 2)
    monkeypatch.setattr(coordinator, "REDRIVE_STEP", 60)
    owners = ["ann", "bob", "cid", "dan", "eve"]
    for owner in owners:
        batch_id = await engine.give(owner, items=_MANY)
        if order is RetryBatch:
            await engine.execute("DELETE FROM chunks")
            await engine.execute(
                "INSERT INTO results (batch_id, position, status, attempts, error_code) "
                "SELECT $1, position, 'failed', 1, 'x' FROM generate_series(0, 199) AS position",
                batch_id,
            )
            await engine.execute(
                "UPDATE batches SET status = 'completed', failed = 200, finished_at = now() WHERE id = $1",
                batch_id,
            )
        await engine.handle(order(batch_id=batch_id, owner_id=owner))
    for _ in owners:
        await engine.coordinator.redrive()
        await engine.coordinator.cancel()
    steps = await engine.fetch("SELECT owner_id, cancelled, total - failed AS redriven FROM batches")
    done = {row["owner_id"]: row["redriven"] if order is RetryBatch else row["cancelled"] for row in steps}
    assert done == dict.fromkeys(owners, 60)


async def test_the_sweep_does_not_wait_until_all_of_a_paused_batch_is_held(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "TURN_S", 0)
    monkeypatch.setattr(coordinator, "STEER_STEP", 10)
    batch_id = await engine.give("ann", items=_MANY)
    await engine.handle(PauseBatch(batch_id=batch_id, owner_id="ann"))
    await engine.coordinator.steer()
    held = "SELECT count(*) FROM chunks WHERE state = 'held'"
    assert [tuple(row) for row in await engine.fetch(held)] == [(10,)]
    going_on = asyncio.create_task(engine.coordinator.maintain_forever())

    async def all_are_held() -> bool:
        return [tuple(row) for row in await engine.fetch(held)] == [(67,)]

    await until(all_are_held)
    going_on.cancel()


@pytest.mark.parametrize("paused_by", ["its owner", "an administrator"])
async def test_owners_share_a_step_that_holds_or_releases_chunks(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch, paused_by: str
) -> None:
    monkeypatch.setattr(coordinator, "TURN_S", 0)
    monkeypatch.setattr(coordinator, "STEER_STEP", 12)
    many = {"ann": 2 * _MANY, "bob": 12, "cid": 3}
    ids = [(owner, await engine.give(owner, items=items)) for owner, items in many.items()]
    is_held = "SELECT owner_id, count(*) FILTER (WHERE state = 'held') FROM chunks GROUP BY 1 ORDER BY 1"

    async def held() -> list[int]:
        return [row["count"] for row in await engine.fetch(is_held)]

    if paused_by == "its owner":
        for owner, id_ in ids:
            await engine.handle(PauseBatch(batch_id=id_, owner_id=owner))
    else:
        pause = PauseWork(kind="operation", name="echo", reason="", paused_by="key")
        await engine.pauses.pause(pause, Deadline.after(5))
    await engine.coordinator.steer()
    assert await held() == [4, 4, 1]
    await engine.execute("UPDATE chunks SET state = 'held'")
    if paused_by == "its owner":
        for owner, id_ in ids:
            await engine.handle(ResumeBatch(batch_id=id_, owner_id=owner))
    else:
        await engine.pauses.resume(ResumeWork(kind="operation", name="echo"), Deadline.after(5))
    await engine.coordinator.steer()
    assert await held() == [134 - 4, 0, 0]


async def test_every_owner_has_a_chunk_released_however_many_there_are(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More owners than a step has chunks: none is always among those that are left out."""
    monkeypatch.setattr(coordinator, "STEER_STEP", 3)
    monkeypatch.setattr(coordinator, "TURN_S", 0)
    owners = [f"owner {number}" for number in range(6)]
    for owner in owners:
        await engine.give(owner, items=3 * _MANY)
    await engine.execute("UPDATE chunks SET state = 'held'")
    released = "SELECT DISTINCT owner_id FROM chunks WHERE state = 'ready'"
    for _ in range(40):
        await engine.coordinator.steer()
    assert {row["owner_id"] for row in await engine.fetch(released)} == set(owners)


async def test_the_next_round_goes_on_with_holding_what_an_administrator_has_paused(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "TURN_S", 0)
    monkeypatch.setattr(coordinator, "STEER_STEP", 10)
    await engine.give("ann", items=_MANY)
    pause = PauseWork(kind="operation", name="echo", reason="", paused_by="key")
    await engine.pauses.pause(pause, Deadline.after(5))
    for held in (10, 20):
        await engine.coordinator.steer()
        found = await engine.fetch("SELECT count(*) FROM chunks WHERE state = 'held'")
        assert [tuple(row) for row in found] == [(held,)]


async def test_what_takes_longer_than_a_turn_goes_on_after_the_other_steps(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_turns, "TURN_S", 0)
    batch_id = await engine.give("ann", items=_MANY)
    await engine.handle(CancelBatch(batch_id=batch_id, owner_id="ann"))
    await engine.coordinator.cancel()
    batch = await engine.get(batch_id)
    assert batch is not None
    assert batch.cancelled == 60
    engine.coordinator.wake_for_orders()
    going_on = asyncio.create_task(engine.coordinator.maintain_forever())

    async def has_ended() -> bool:
        batch = await engine.get(batch_id)
        return batch is not None and batch.status == "cancelled" and batch.cancelled == _MANY

    await until(has_ended)
    going_on.cancel()


async def test_an_upload_is_compared_before_the_second_of_another_owner(engine: BatchEngine) -> None:
    compared: list[UUID] = []

    async def begin(connection: Connection, batch_id: UUID, problem: Problem | None) -> None:
        assert problem is None
        compared.append(batch_id)
        await connection.execute("UPDATE batches SET status = 'queued' WHERE id = $1", batch_id)

    for _ in range(12):
        await engine.give("ann")
    wanted = await engine.give("bob", items=3)
    await engine.execute("UPDATE batches SET status = 'validating', validating_since = now()")
    validation = Validation(engine.postgres, begin, operations=["echo"], begun=lambda: None)
    for _ in range(2):
        assert await validation.check("oldest")
    assert wanted in compared


async def test_no_upload_waits_for_ever_while_small_ones_of_others_arrive(engine: BatchEngine) -> None:
    async def begin(connection: Connection, batch_id: UUID, problem: Problem | None) -> None:
        assert problem is None
        await connection.execute("UPDATE batches SET status = 'queued' WHERE id = $1", batch_id)

    async def upload(owner: str, *, items: int) -> UUID:
        id_ = await engine.give(owner, items=items)
        await engine.execute("UPDATE batches SET status = 'validating' WHERE id = $1", id_)
        return id_

    wanted = await upload("cid", items=3)
    for _ in range(4):
        await upload("bob", items=2)
    validation = Validation(engine.postgres, begin, operations=["echo"], begun=lambda: None)
    for _ in range(2):
        # The other lane sets the circle back to before `bob` each time.
        await upload("ann", items=1)
        assert await validation.check("smallest")
        assert await validation.check("oldest")
    batch = await engine.get(wanted)
    assert batch is not None
    assert batch.status == "queued"


async def test_a_batch_is_filled_before_the_second_of_another_owner(engine: BatchEngine) -> None:
    ids: dict[str, UUID] = {}
    for owner in ("ann", "ann", "ann", "bob"):
        source = await engine.give(owner)
        await engine.execute(
            "UPDATE batches SET status = 'completed', finished_at = now() WHERE id = $1", source
        )
        creation = CreateBatch(
            batch_id=new_id(),
            owner_id=owner,
            operation="echo",
            accepted_at=datetime.now(UTC),
            source=Source(batch_id=source),
        )
        await engine.handle(creation)
        ids[owner] = creation.batch_id
    sources = Sources(engine.postgres, engine.intake, operations=["echo"], begun=lambda: None)
    for _ in range(2):
        assert await sources.copy()
    batch = await engine.get(ids["bob"])
    assert batch is not None
    assert batch.status == "completed"

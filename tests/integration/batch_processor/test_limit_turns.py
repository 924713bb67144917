"""Owners take turns at their limits, however many batches with limits one of them has."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from batch_processor.limits import admission
from chassis.broker.envelope import new_id
from contracts.batches import CreateBatch, PauseBatch
from contracts.items import Item
from support.batch_engine import Engine


async def give(engine: Engine, owner: str, count: int) -> list[UUID]:
    """Store batches of two items of which one may run at a time."""
    ids = [new_id() for _ in range(count)]
    for id_ in ids:
        creation = CreateBatch(
            batch_id=id_,
            owner_id=owner,
            operation="capped",
            accepted_at=datetime.now(UTC),
            options={"max_concurrency": 1},
            items=[Item(payload=1), Item(payload=2)],
        )
        await engine.handle(creation)
    return ids


async def passed(engine: Engine, ids: list[UUID]) -> int:
    count = "SELECT count(*) AS n FROM chunks WHERE state = 'ready' AND batch_id = ANY($1::uuid[])"
    [row] = await engine.fetch(count, ids)
    return int(row["n"])


async def test_the_next_pass_considers_a_batch_beside_very_many_of_another_owner(engine: Engine) -> None:
    await give(engine, "ann", 210)
    # What `capped` lets run is there for all.
    await engine.execute("UPDATE batches SET operation = 'echo'")
    await engine.admission.admit()
    wanted = await give(engine, "bob", 1)
    await engine.execute("UPDATE batches SET operation = 'echo'")
    # Also behind gates of both that sort before its own.
    await engine.execute("UPDATE chunks SET gate = 'z' || gate WHERE batch_id = $1", wanted[0])
    await engine.admission.admit()
    assert await passed(engine, wanted) == 1


async def test_passes_reach_all_queues_of_an_owner_also_behind_those_that_cannot_begin(
    engine: Engine,
) -> None:
    ids = await give(engine, "ann", 130)
    await engine.execute("UPDATE batches SET operation = 'echo'")
    for paused in ids[:5]:
        await engine.handle(PauseBatch(batch_id=paused, owner_id="ann"))
    for _ in range(3):
        await engine.admission.admit()
    assert await passed(engine, ids) == 125


async def test_more_owners_than_a_pass_considers_have_their_turns_one_after_the_other(
    engine: Engine,
) -> None:
    owners = [f"owner{number:03}" for number in range(admission._QUEUES + 20)]  # noqa: SLF001 - the bound
    ids = [id_ for owner in owners for id_ in await give(engine, owner, 2)]
    await engine.execute("UPDATE batches SET operation = 'echo'")
    for _ in range(4):
        await engine.admission.admit()
    assert await passed(engine, ids) == len(ids)

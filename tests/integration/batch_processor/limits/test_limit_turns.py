"""Owners take turns at their limits, however many batches with limits one of them has."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from uuid import UUID

import pytest

from batch_processor.limits import admission, repository
from chassis.broker.envelope import new_id
from contracts.batches import CreateBatch, PauseBatch
from contracts.items import Item
from support.batch_engine import BatchEngine


async def give(engine: BatchEngine, owner: str, count: int) -> list[UUID]:
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


async def passed(engine: BatchEngine, ids: list[UUID]) -> int:
    count = "SELECT count(*) AS n FROM chunks WHERE state = 'ready' AND batch_id = ANY($1::uuid[])"
    [row] = await engine.fetch(count, ids)
    return int(row["n"])


async def test_the_next_pass_considers_a_batch_beside_very_many_of_another_owner(engine: BatchEngine) -> None:
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
    engine: BatchEngine,
) -> None:
    ids = await give(engine, "ann", 130)
    await engine.execute("UPDATE batches SET operation = 'echo'")
    for paused in ids[:5]:
        await engine.handle(PauseBatch(batch_id=paused, owner_id="ann"))
    for _ in range(3):
        await engine.admission.admit()
    assert await passed(engine, ids) == 125


async def test_more_owners_than_a_pass_considers_have_their_turns_one_after_the_other(
    engine: BatchEngine,
) -> None:
    owners = [f"owner{number:03}" for number in range(admission.QUEUES + 20)]
    ids = [id_ for owner in owners for id_ in await give(engine, owner, 2)]
    await engine.execute("UPDATE batches SET operation = 'echo'")
    for _ in range(4):
        await engine.admission.admit()
    assert await passed(engine, ids) == len(ids)


async def test_every_owner_has_its_turn_at_a_shared_limit_with_room_for_few_a_pass(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "QUEUES", 10)
    # One gate of each is all that a pass considers; all wait for what `capped` lets run.
    ids = {owner: await give(engine, owner, 3 if owner == "zoe" else 1) for owner in [*"abcdef", "zoe"]}
    await engine.execute("UPDATE chunks SET number = -1, remaining = 1000, last_position = 999")
    begun: Counter[str] = Counter()
    for _ in range(14):
        await engine.admission.admit()
        begun.update({owner: await passed(engine, own) for owner, own in ids.items()})
        await engine.execute("DELETE FROM chunks WHERE state = 'ready'")
    assert set(+begun) == set(ids)
    assert max(begun.values()) <= 2 * min(begun.values())


async def test_a_pass_reads_some_chunks_in_total_however_many_owners_wait(engine: BatchEngine) -> None:
    for owner in "abcde":
        [id_] = await give(engine, owner, 1)
        await engine.execute(
            "INSERT INTO chunks (batch_id, number, first_position, last_position, state, owner_id, gate, "
            "remaining, due_at) SELECT batch_id, 100 + n, 0, 1, state, owner_id, gate, 2, due_at "
            "FROM chunks, generate_series(1, 30) AS n WHERE batch_id = $1",
            id_,
        )

    async def read(owners: str, chunks: int) -> int:
        async with engine.postgres.connection() as connection:
            found, last = await repository.find_waiting(
                connection, dict.fromkeys(owners, ""), lambda *_: ((), 1), most=1, chunks=chunks
            )
        assert not last
        return sum(len(queue.chunks) for queue in found)

    assert [await read("abcde", 60), await read("ab", 60), await read("abcde", 4)] == [60, 60, 40]

"""Limits on running items and on items begun per second: over two workers, on real servers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from batch_processor.execution.claims import RemainingItems
from batch_processor.execution.running_chunk import ItemFailure, Outcomes
from batch_processor.execution.settlement import ChunkReport
from chassis.broker.envelope import new_id
from contracts.batches import CreateBatch, Item, PauseBatch, ResumeBatch, RetryBatch
from support.batch_engine import PERIOD_S, BatchEngine
from support.batch_stack import ALL, BatchProcessors, Caller, Stage
from support.waiting import until


@pytest.fixture
async def workers(house: BatchProcessors) -> None:
    """Start two workers, and a coordinator in the first of them."""
    await house.start()
    await house.start(roles=("worker",))


async def most_within(caller: Caller, key: str, window_s: float) -> int:
    """Return the most items that were charged to `key` within any `window_s` seconds."""
    rows = await caller.database.fetch("SELECT at, items FROM charges WHERE key = $1 ORDER BY at", key)
    charges: list[tuple[datetime, int]] = [(row["at"], row["items"]) for row in rows]
    window = timedelta(seconds=window_s)
    return max(sum(n for at, n in charges if start <= at < start + window) for start, _ in charges)


async def test_two_workers_together_have_no_more_items_of_a_batch_at_work_than_it_allows(
    workers: None, caller: Caller, stage: Stage
) -> None:
    limited = await caller.submit("measured", list(range(60)), options={"max_concurrency": 4})
    batch = await caller.reach(limited)
    assert (batch.status, batch.counts.succeeded) == ("completed", 60)
    assert stage.most_at_work[limited] == 4
    assert set(stage.runs.values()) == {1}
    assert [limit.model_dump(exclude_none=True) for limit in batch.limits] == [
        {"key": "batch", "max_concurrency": 4}
    ]
    results = await caller.results(limited)
    assert [result.result for result in results] == list(range(60))


async def test_two_workers_together_begin_no_more_items_in_any_second_than_the_rate_allows(
    workers: None, caller: Caller, stage: Stage
) -> None:
    options = {"rate_limit": {"items": 15, "per_s": 1}}
    batches = [await caller.submit("counted", list(range(40)), options=options) for _ in range(2)]
    for batch_id in batches:
        batch = await caller.reach(batch_id)
        assert (batch.status, batch.counts.succeeded) == ("completed", 40)
        assert batch.started_at is not None
        assert batch.finished_at is not None
        # 40 items are the rooms of three seconds: the first at once, the last after two.
        assert (batch.finished_at - batch.started_at).total_seconds() > 1.5
        key = f"batch:{batch_id}"
        assert await most_within(caller, key, 1) <= 15
        total = await caller.database.fetchval("SELECT sum(items) FROM charges WHERE key = $1", key)
        assert total == 40


async def test_an_operation_and_a_named_key_are_limited_over_all_batches_and_owners(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    limits = "provider:test=20/1,provider:test=5,operation:counted=1"
    await house.start(limits=limits)
    await house.start(roles=("worker",), limits=limits)
    waiting = []
    for owner in ("ann", "bob"):
        caller.owner = owner
        waiting += [(owner, await caller.submit("capped", list(range(12)))) for _ in range(2)]
    for caller.owner, batch_id in waiting:
        batch = await caller.reach(batch_id)
        assert batch.counts.succeeded == 12
        assert batch.limits[0].key == "operation:capped"
    assert stage.most_at_work[ALL] == 3
    keyed = []
    for owner in ("ann", "bob"):
        caller.owner = owner
        keyed.append((owner, await caller.submit("keyed", list(range(30)))))
    for caller.owner, batch_id in keyed:
        assert (await caller.reach(batch_id)).counts.succeeded == 30
    assert stage.most_at_work[ALL] == 5
    assert await most_within(caller, "provider:test", 1) <= 20
    # Fairly: both begin at once, and neither waits for the end of the other.
    started = await caller.database.fetch(
        "SELECT started_at, finished_at FROM batches WHERE operation = 'keyed' ORDER BY id"
    )
    assert started[1]["started_at"] < started[0]["finished_at"]


async def test_a_limit_that_is_used_up_delays_nobody_else_and_is_named_as_the_reason_to_wait(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    await house.start(worker_concurrency=2)
    slow = {"rate_limit": {"items": 1, "per_s": 3600}, "priority": "high"}
    limited = await caller.submit("counted", list(range(5_00)), options=slow)
    await until(lambda: stage.runs.total() == 1)
    others = [await caller.submit("echo", [1, 2, 3]) for _ in range(3)]
    for other in others:
        assert (await caller.reach(other)).status == "completed"

    async def says_so() -> bool:
        batch = await caller.get(limited)
        return batch.next is not None and batch.next.what == "its limits let more items begin"

    await until(says_so)
    assert stage.runs.total() == 1
    # A paused batch begins nothing, and a resumed one waits for its limits like before.
    await caller.send(PauseBatch(batch_id=limited, owner_id="ann"))
    await caller.reach(limited, "paused")
    await caller.send(ResumeBatch(batch_id=limited, owner_id="ann"))
    await caller.reach(limited, "running")
    await asyncio.sleep(0.5)
    assert stage.runs.total() == 1


async def test_each_attempt_counts_under_the_rate(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    await house.start()
    options = {"rate_limit": {"items": 100, "per_s": 60}}
    batch = await caller.reach(await caller.submit("flaky", [0, 1, 2], options=options))
    assert batch.counts.succeeded == 3
    charged = await caller.database.fetchval("SELECT sum(items) FROM charges")
    assert charged == stage.runs.total() == 1 + 2 + 3


async def test_work_that_waits_when_its_operation_gets_a_limit_is_limited_too(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    async with house.running(roles=("coordinator",)):
        early = await caller.submit("keyed", list(range(30)))
        await caller.reach(early, "queued")
    await house.start(limits="provider:test=2")
    assert (await caller.reach(early)).counts.succeeded == 30
    assert stage.most_at_work[early] == 2


async def let_three_begin(engine: BatchEngine, *, of: int) -> None:
    """Give a batch of so many items, three of which may begin in a period, and let them through."""
    rate = {"rate_limit": {"items": 3, "per_s": PERIOD_S}}
    items = [Item(payload=n) for n in range(of)]
    await engine.handle(
        CreateBatch(
            batch_id=new_id(), owner_id="ann", operation="echo", accepted_at=datetime.now(UTC),
            items=items, options=rate,
        )
    )  # fmt: skip
    await engine.admission.admit()


async def test_the_rest_of_a_chunk_that_came_back_counts_item_by_item(engine: BatchEngine) -> None:
    """Two chunks, of three and two items: the first comes back with two left when the next period begins."""
    await let_three_begin(engine, of=5)
    [first] = await engine.claim(most=4, for_any=4)
    assert [item.position for item in first.items] == [0, 1, 2]
    await engine.store([ChunkReport(first.claim, "ready", Outcomes(positions=[0], results=["0"]))])
    await engine.execute("DELETE FROM charges")
    await engine.admission.admit()
    claimed = await engine.claim(most=4, for_any=4)
    assert sum(len(loaded.items) for loaded in claimed) == 3
    assert not {item.position for loaded in claimed for item in loaded.items} & {0}


async def test_a_worker_taken_for_dead_has_nothing_left_of_a_chunk_that_was_cut_since(
    engine: BatchEngine,
) -> None:
    await let_three_begin(engine, of=3)
    [lost] = await engine.claim(most=1, for_any=1)
    await engine.execute("UPDATE chunks SET leased_until = now() - interval '1 s'")
    await engine.coordinator.sweep()
    # There is room for one of the three items.
    await engine.execute("UPDATE charges SET items = 2")
    await engine.admission.admit()
    [piece] = await engine.claim(most=4, for_any=4)
    assert [item.position for item in piece.items] == [0]
    assert await engine.store([ChunkReport(lost.claim, "running")]) == {}
    again = [RemainingItems.of([0, 1, 2], 2)]
    assert await engine.store([ChunkReport(lost.claim, "done", Outcomes(), rests=again)]) == {}
    chunks = await engine.fetch("SELECT remaining FROM chunks ORDER BY 1")
    assert [row["remaining"] for row in chunks] == [1, 2]


async def test_items_that_are_retried_pass_in_as_many_pieces_as_there_is_room_for(
    engine: BatchEngine,
) -> None:
    """Three failed items of an operation that has two of a chunk at work at a time, and three in all."""
    id_, items = new_id(), [Item(payload=n) for n in range(3)]
    await engine.handle(
        CreateBatch(
            batch_id=id_, owner_id="ann", operation="capped", accepted_at=datetime.now(UTC), items=items
        )
    )

    async def end(*, succeeds: bool) -> None:
        await engine.admission.admit()
        while claimed := await engine.claim(most=1, for_any=1):
            [loaded] = claimed
            positions = [item.position for item in loaded.items]
            if succeeds:
                outcomes = Outcomes(positions, [item.payload for item in loaded.items])
            else:
                outcomes = Outcomes(failures=[ItemFailure(position, "early", "no") for position in positions])
            await engine.store([ChunkReport(loaded.claim, "done", outcomes)])
            await engine.admission.admit()

    await end(succeeds=False)
    await engine.handle(RetryBatch(batch_id=id_, owner_id="ann"))
    await engine.coordinator.redrive()
    await engine.execute("DELETE FROM charges")
    await end(succeeds=True)
    found = await engine.get(id_)
    assert found is not None
    assert (found.status, found.succeeded, found.failed) == ("completed", 3, 0)
    assert await engine.fetch("SELECT * FROM chunks") == []

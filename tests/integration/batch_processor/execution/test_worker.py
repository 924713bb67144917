"""Chunks run once, are retried, cancelled, given back and brought back."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from prometheus_client import REGISTRY

from batch_processor.execution import claim_repository
from batch_processor.execution.worker import ChunkTiming
from chassis.errors import DatabaseUnavailable
from contracts.batches import CancelBatch
from support.batch_stack import BatchProcessors, Caller, Stage
from support.waiting import until


async def test_failed_items_are_listed_and_counted_by_code(house: BatchProcessors, caller: Caller) -> None:
    await house.start()
    batch_id = await caller.submit("grumpy", list(range(30)))
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.succeeded, batch.counts.failed) == ("completed", 20, 10)
    assert batch.errors == {"conflict": 10}
    failed = await caller.results(batch_id, status="failed", limit=3)
    assert [result.position for result in failed] == list(range(0, 30, 3))
    assert {result.error.code for result in failed if result.error} == {"conflict"}


async def test_retryable_failures_are_tried_again_and_the_attempts_recorded(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    await house.start()
    batch_id = await caller.submit("flaky", [0, 1, 2, 3] * 5)
    batch = await caller.reach(batch_id)
    assert (batch.counts.succeeded, batch.counts.failed) == (15, 5)
    assert batch.errors == {"service-unavailable": 5}
    results = await caller.results(batch_id)
    assert [result.attempts for result in results] == [1, 2, 3, 3] * 5
    assert [stage.runs[batch_id, n] for n in range(20)] == [1, 2, 3, 3] * 5
    assert len(await caller.finished_events()) == 1


async def test_two_workers_run_each_item_once(house: BatchProcessors, caller: Caller, stage: Stage) -> None:
    for _ in range(2):
        await house.start()
    ids = [await caller.submit("counted", list(range(250))) for _ in range(8)]
    for batch_id in ids:
        assert (await caller.reach(batch_id)).counts.succeeded == 250
    assert (len(stage.runs), set(stage.runs.values())) == (8 * 250, {1})
    assert len(await caller.finished_events()) == 8


async def test_a_cancel_in_the_middle_stops_before_the_next_item(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    service = await house.start(worker_concurrency=2)
    service.worker.timing = ChunkTiming(checkpoint_s=0.05)
    batch_id = await caller.submit("gated", list(range(1000)))
    await stage.begun.wait()
    await caller.send(CancelBatch(batch_id=batch_id, owner_id="ann"))
    batch = await caller.reach(batch_id)
    assert batch.status == "cancelled"
    assert (batch.counts.cancelled, batch.counts.total) == (1000, 1000)
    # Two chunks at a time, two items in each: nothing else was begun.
    assert len(stage.runs) <= 4
    results = await caller.results(batch_id)
    assert [(r.position, r.status) for r in results] == [(n, "cancelled") for n in range(1000)]
    assert {r.position for r in results if r.attempts} == {position for _, position in stage.runs}
    assert [event.batch.status for event in await caller.finished_events()] == ["cancelled"]


async def test_items_that_finished_before_the_cancel_are_kept(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    service = await house.start(worker_concurrency=1)
    service.worker.timing = ChunkTiming(checkpoint_s=0.05)
    stage.free = 12
    batch_id = await caller.submit("gated", list(range(25)))
    await stage.begun.wait()
    await until(lambda: _results(caller, batch_id, 12))
    await caller.send(CancelBatch(batch_id=batch_id, owner_id="ann"))
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.succeeded, batch.counts.cancelled) == ("cancelled", 12, 13)
    assert {r.position for r in await caller.results(batch_id, status="succeeded")} == set(range(12))


async def test_results_are_stored_while_a_chunk_still_runs(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    service = await house.start()
    service.worker.timing = ChunkTiming(checkpoint_s=0.05)
    stage.free = 2
    batch_id = await caller.submit("gated", list(range(4)))
    await until(lambda: _results(caller, batch_id, 2))
    batch = await caller.get(batch_id)
    assert (batch.status, batch.counts.succeeded, batch.counts.running) == ("running", 2, 2)
    stage.go.set()
    await caller.reach(batch_id)
    assert await caller.database.fetchval("SELECT count(*) FROM chunks") == 0


async def test_a_stopping_worker_gives_its_chunk_to_another(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    async with house.running():
        batch_id = await caller.submit("gated", list(range(10)))
        await stage.begun.wait()
    stage.go.set()
    await house.start()
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.succeeded) == ("completed", 10)
    assert len(await caller.finished_events()) == 1


async def test_a_worker_that_was_overtaken_stores_nothing(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    await house.start()
    batch_id = await caller.submit("gated", [1, 2])
    await stage.begun.wait()
    # As if another worker had claimed the chunk after the lease.
    await caller.database.execute("UPDATE chunks SET run = run + 1")
    stage.go.set()
    await until(lambda: stage.runs[batch_id, 1])
    await caller.database.execute("UPDATE chunks SET leased_until = now() - interval '1 s'")
    batch = await caller.reach(batch_id)
    assert (batch.counts.succeeded, batch.counts.total) == (2, 2)
    assert len(await caller.finished_events()) == 1


async def test_a_poisoned_item_of_a_real_worker_fails_and_its_neighbours_go_on(
    house: BatchProcessors, caller: Caller
) -> None:
    service = await house.start()
    batch_id = await caller.submit("poisonous", list(range(8)))
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.succeeded, batch.counts.failed) == ("completed", 4, 4)
    failed = await caller.results(batch_id, status="failed")
    assert [(r.position, r.attempts) for r in failed] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert "bad \\\\ud800 name" in str(failed[0].error)
    assert not service.runtime.health.reasons()


async def test_a_chunk_that_lost_its_worker_goes_on_in_halves(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    coordinator = await house.start(roles=("coordinator",))
    batch_id = await caller.submit("counted", list(range(7)))
    await _lose_worker(coordinator, caller)
    await house.start(roles=("worker",))
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.succeeded) == ("completed", 7)
    assert set(stage.runs.values()) == {1}
    assert await caller.database.fetchval("SELECT chunk_count FROM batches") == 3
    assert len(await caller.finished_events()) == 1


async def test_an_item_that_lost_three_workers_fails_without_a_fourth(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    coordinator = await house.start(roles=("coordinator",))
    batch_id = await caller.submit("counted", [1])
    for _ in range(3):
        await _lose_worker(coordinator, caller)
    await house.start(roles=("worker",))
    batch = await caller.reach(batch_id)
    assert (batch.counts.failed, batch.errors) == (1, {"worker-died": 1})
    assert not stage.runs
    assert await caller.database.fetchval("SELECT count(*) FROM chunks") == 0


async def test_a_claim_that_broke_off_in_a_living_worker_is_not_a_lost_one(
    house: BatchProcessors, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await house.start()
    service.worker.timing = ChunkTiming(checkpoint_s=0.05)
    load, failures = claim_repository.load, iter([DatabaseUnavailable("away")] * 4)

    async def fail_at_first(*arguments: Any) -> Any:
        for failure in failures:
            raise failure
        return await load(*arguments)

    monkeypatch.setattr(claim_repository, "load", fail_at_first)
    batch_id = await caller.submit("counted", [1])
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.succeeded) == ("completed", 1)
    assert await caller.database.fetchval("SELECT count(*) FROM chunks") == 0


async def test_a_small_batch_does_not_wait_for_a_large_one(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    await house.start(worker_concurrency=2)
    large = await caller.submit("counted", list(range(8_000)))
    small = await caller.submit("counted", [1])
    await caller.reach(small)
    assert (await caller.get(large)).status in ("validating", "queued", "running")
    await caller.reach(large)


async def test_overdue_batches_are_counted(house: BatchProcessors, caller: Caller) -> None:
    coordinator = await house.start(roles=("coordinator",))
    await caller.submit("counted", [1])
    stuck, at_work = await caller.submit("counted", [1]), await caller.submit("counted", [1])
    await until(lambda: _ready_chunks(caller, 3))
    late = "UPDATE batches SET accepted_at = now() - interval '11 min'"
    await caller.database.execute(late)
    await caller.database.execute("UPDATE batches SET status = 'running' WHERE id = $1", stuck)
    await caller.database.execute("DELETE FROM chunks WHERE batch_id = $1", stuck)
    # A worker that lives has it, and does not end what is cancelled.
    held = "UPDATE chunks SET state = 'running', leased_until = now() + interval '1 h' WHERE batch_id = $1"
    await caller.database.execute(held, at_work)
    cancelled = (
        "UPDATE batches SET status = 'cancelling', cancelling_since = now() - $2::interval WHERE id = $1"
    )
    for since, overdue in ((timedelta(seconds=30), 2), (timedelta(seconds=61), 3)):
        await caller.database.execute(cancelled, at_work, since)
        coordinator.coordinator.wake()
        await until(partial(_is_overdue, overdue))


def _is_overdue(count: int) -> bool:
    return REGISTRY.get_sample_value("tickwire_batches_overdue") == count


async def _lose_worker(coordinator: Any, caller: Caller) -> None:
    """Let a worker that dies claim the chunk, and let its lease end."""
    await until(lambda: _ready_chunks(caller, 1))
    lost = await caller.database.fetchval("SELECT lost FROM chunks")
    await caller.database.execute(
        "UPDATE chunks SET state = 'running', run = run + 1, leased_until = now() - interval '1 s'"
    )
    coordinator.coordinator.wake()
    await until(lambda: _lost_more(caller, lost))


async def _ready_chunks(caller: Caller, least: int) -> bool:
    count = await caller.database.fetchval("SELECT count(*) FROM chunks WHERE state = 'ready'")
    return bool(count >= least)


async def _lost_more(caller: Caller, lost: int) -> bool:
    return bool(await caller.database.fetchval("SELECT lost > $1 FROM chunks", lost))


async def _results(caller: Caller, batch_id: Any, least: int) -> bool:
    count = await caller.database.fetchval("SELECT count(*) FROM results WHERE batch_id = $1", batch_id)
    return bool(count >= least)


async def test_free_slots_share_what_is_left_of_a_chunk_of_long_items_after_its_turn(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    """Ten items in one chunk, which has two of them at work at a time."""
    await house.start(worker_concurrency=8)
    batch_id = await caller.submit("slow", list(range(10)))
    assert (await caller.reach(batch_id)).counts.succeeded == 10
    assert stage.most_at_work[batch_id] > 2
    assert {stage.runs[batch_id, position] for position in range(10)} == {1}


async def test_items_that_have_not_begun_do_not_wait_for_those_at_work_after_a_turn(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    """Ten items in one chunk, two at a time, none of which ends before all have begun."""
    await house.start(worker_concurrency=8)
    batch_id = await caller.submit("gated", list(range(10)))
    await until(lambda: len(stage.runs) == 10)
    kept = "SELECT sum(remaining) FROM chunks WHERE batch_id = $1"
    assert await caller.database.fetchval(kept, batch_id) == 10
    stage.go.set()
    assert (await caller.reach(batch_id)).counts.succeeded == 10
    assert {stage.runs[batch_id, position] for position in range(10)} == {1}


async def test_a_deadlock_while_results_are_stored_costs_no_item_a_second_run(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    """The database ends the first transaction that stores results."""
    await house.start()
    await caller.database.execute(
        """
        CREATE SEQUENCE stored;
        CREATE FUNCTION fail_at_first() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('stored') = 1 THEN
                RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01';
            END IF;
            RETURN NULL;
        END
        $$;
        CREATE TRIGGER fail_at_first AFTER INSERT ON results EXECUTE FUNCTION fail_at_first();
        """
    )
    batch_id = await caller.submit("counted", list(range(20)))
    assert (await caller.reach(batch_id)).counts.succeeded == 20
    assert await caller.database.fetchval("SELECT last_value FROM stored") == 2
    assert set(stage.runs.values()) == {1}


async def test_what_was_stored_before_a_deadlock_among_single_reports_runs_once(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    """The report on two chunks fails, then the first is stored, as five chunks, and the second is not."""
    await house.start(worker_concurrency=16)
    ids = [await caller.submit("gated", list(range(10))) for _ in range(2)]
    await until(lambda: {batch_id for batch_id, _ in stage.runs} == set(ids))
    await caller.database.execute(
        """
        CREATE SEQUENCE cut;
        CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            nth int := nextval('cut');
        BEGIN
            IF nth = 1 THEN
                RAISE EXCEPTION 'a fault of one of them';
            ELSIF nth = 6 THEN
                RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01';
            END IF;
            RETURN NULL;
        END
        $$;
        CREATE TRIGGER fail_twice AFTER INSERT ON chunks EXECUTE FUNCTION fail_twice();
        """
    )
    await until(lambda: len(stage.runs) == 20)
    stage.go.set()
    for batch_id in ids:
        assert (await caller.reach(batch_id)).counts.succeeded == 10
    assert set(stage.runs.values()) == {1}


async def test_a_command_that_cannot_be_stored_harms_no_other_chunk_at_work(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    await house.start()
    stage.held = {1}
    neighbour = await caller.submit("held", [0, 1])
    await caller.reach(neighbour, "running")
    careless = await caller.submit("careless", ["bad", "good"])
    given_up = "SELECT count(*) > 1 OR max(lost) > 0 FROM chunks WHERE batch_id = $1"
    await until(lambda: caller.database.fetchval(given_up, careless))
    renewed = "SELECT leased_until > $2 FROM chunks WHERE batch_id = $1 AND run = 1 AND lost = 0"
    lease = await caller.database.fetchval("SELECT leased_until FROM chunks WHERE batch_id = $1", neighbour)
    await until(lambda: caller.database.fetchval(renewed, neighbour, lease))
    stage.go.set()
    assert (await caller.reach(neighbour)).counts.succeeded == 2
    await caller.reach(careless)
    ended = [(one.status, one.error and one.error.code) for one in await caller.results(careless)]
    assert ended == [("failed", "worker-died"), ("succeeded", None)]

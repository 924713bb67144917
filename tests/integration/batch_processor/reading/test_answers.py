"""Requests about batches are answered to their owner only."""

from __future__ import annotations

import pytest

from batch_processor.resources import Resources
from chassis.broker.envelope import new_id
from chassis.errors import RemoteFailure
from contracts.batches import (
    BatchCounts,
    Batches,
    BatchFilter,
    CountBatches,
    ListBatches,
    ListResults,
    Results,
)
from support.batch_stack import BatchProcessors, Caller, Stage


@pytest.fixture
async def service(house: BatchProcessors) -> Resources:
    return await house.start()


async def test_another_owner_finds_nothing(service: Resources, caller: Caller) -> None:
    batch_id = await caller.submit("echo", [1])
    await caller.reach(batch_id)
    caller.owner = "eve"
    for question in (caller.get(batch_id), caller.results(batch_id)):
        with pytest.raises(RemoteFailure) as caught:
            await question
        assert (caught.value.code, caught.value.status) == ("batch-not-found", 404)
    assert (await caller.ask(ListBatches(owner_id="eve"), Batches)).data == []
    assert (await caller.ask(CountBatches(owner_id="eve"), BatchCounts)).counts == {}


async def test_a_batch_that_does_not_exist_is_not_found(service: Resources, caller: Caller) -> None:
    with pytest.raises(RemoteFailure, match="no batch"):
        await caller.get(new_id())


async def test_a_task_is_not_a_batch(service: Resources, caller: Caller) -> None:
    task = await caller.submit("echo", [1], kind="task")
    await caller.reach(task)
    with pytest.raises(RemoteFailure, match="no batch"):
        await caller.get(task, kind="batch")


async def test_batches_are_listed_newest_first_page_by_page(service: Resources, caller: Caller) -> None:
    ids = [await caller.submit("echo", [n]) for n in range(5)]
    for batch_id in ids:
        await caller.reach(batch_id)
    first = await caller.ask(ListBatches(owner_id="ann", limit=3), Batches)
    rest = await caller.ask(ListBatches(owner_id="ann", limit=3, cursor=first.next_cursor), Batches)
    assert [batch.id for batch in (*first.data, *rest.data)] == ids[::-1]
    assert rest.next_cursor is None
    assert (await caller.ask(ListBatches(owner_id="ann", kind="task"), Batches)).data == []
    assert (await caller.ask(CountBatches(owner_id="ann"), BatchCounts)).counts == {"completed": 5}


async def test_batches_are_chosen_by_the_errors_of_their_items(service: Resources, caller: Caller) -> None:
    grumpy = await caller.submit("grumpy", [1, 3])
    for batch_id in (grumpy, await caller.submit("poisonous", [0, 9]), await caller.submit("echo", [1])):
        await caller.reach(batch_id)
    for codes, found, count in ((["conflict"], [grumpy], 1), (["timeout"], [], 0), ([], None, 3)):
        wanted = BatchFilter(failure_codes=codes)
        page = await caller.ask(ListBatches(owner_id="ann", wanted=wanted), Batches)
        assert len(page.data) == count
        assert found is None or [batch.id for batch in page.data] == found
        counted = await caller.ask(CountBatches(owner_id="ann", wanted=wanted), BatchCounts)
        assert sum(counted.counts.values()) == count


async def test_items_without_a_result_are_pending_or_running(
    service: Resources, caller: Caller, stage: Stage
) -> None:
    batch_id = await caller.submit("gated", list(range(300)))
    await stage.begun.wait()
    batch = await caller.reach(batch_id, "running")
    assert batch.counts.running + batch.counts.pending == 300
    running = await caller.results(batch_id, status="running")
    pending = await caller.results(batch_id, status="pending", limit=70)
    assert running
    assert sorted(r.position for r in (*running, *pending)) == list(range(300))
    assert await caller.results(batch_id) == []
    stage.go.set()
    await caller.reach(batch_id)
    assert len(await caller.results(batch_id)) == 300


async def test_a_page_of_tasks_fits_into_a_message_with_their_results_as_they_were_stored(
    service: Resources, caller: Caller
) -> None:
    ids = [await caller.submit("echo", ["x" * 250_000], kind="task") for _ in range(6)]
    for task_id in ids:
        await caller.reach(task_id)
    await caller.database.execute("UPDATE results SET result = '1.10' WHERE batch_id = $1", ids[5])
    found: list[bytes] = []
    cursor: str | None = None
    for counted in (4, 2):
        request = ListBatches(owner_id="ann", kind="task", limit=200, cursor=cursor)
        page = await caller.ask_for_bytes(request)
        cursor = Batches.model_validate_json(page).next_cursor
        found += [b'{"id":' + row for row in page.split(b'{"id":')[1:]]
        assert (page.count(b'"result":'), len(page) < 2**20) == (counted, True)
    assert cursor is None
    assert b'"result":1.10}' in found[0]
    assert [str(id_).encode() in row for id_, row in zip(ids[::-1], found, strict=True)] == [True] * 6


async def test_a_forged_cursor_is_refused(service: Resources, caller: Caller) -> None:
    batch_id = await caller.submit("echo", [1])
    await caller.reach(batch_id)
    for cursor in ("x", "-1", "99999999999", "\u0663"):
        with pytest.raises(RemoteFailure, match="cursor"):
            await caller.ask(ListResults(batch_id=batch_id, owner_id="ann", cursor=cursor), Results)
        with pytest.raises(RemoteFailure, match="cursor"):
            await caller.ask(ListBatches(owner_id="ann", cursor=cursor), Batches)


async def test_a_page_of_large_results_is_shorter_than_asked_for(service: Resources, caller: Caller) -> None:
    payloads = [{"n": n, "text": "x" * 100_000} for n in range(20)]
    creation = caller.creation("echo", None)
    await caller.send(creation)
    for offset in range(0, 20, 5):
        await caller.send(caller.append(creation.batch_id, offset, payloads[offset : offset + 5]))
    await caller.send(caller.seal(creation.batch_id, 20))
    await caller.reach(creation.batch_id)
    request = ListResults(batch_id=creation.batch_id, owner_id="ann")
    first = await caller.ask(request, Results)
    assert (len(first.data), first.next_cursor) == (7, "6")
    assert [result.result for result in await caller.results(creation.batch_id)] == payloads

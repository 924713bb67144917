"""The items of a batch, the errors of their attempts, and errors summed up."""

from __future__ import annotations

import pytest

from batch_processor.batches.batch_repository import MOST_CODES
from batch_processor.execution.running_chunk import ItemFailure, Outcomes
from batch_processor.execution.settlement import ChunkReport
from batch_processor.intake import handlers
from batch_processor.reading import repository
from batch_processor.resources import Resources
from chassis.errors import RemoteFailure
from contracts.batch_items import ErrorSummaries, Items, ListErrors, ListItems
from contracts.batches import CancelBatch, GetBatch, Item, ListResults, Results
from support.batch_engine import BatchEngine
from support.batch_stack import BatchProcessors, Caller
from support.waiting import until


@pytest.fixture
async def service(house: BatchProcessors) -> Resources:
    return await house.start()


async def test_items_come_back_as_sent_with_the_error_of_every_attempt(
    service: Resources, caller: Caller
) -> None:
    creation = caller.creation("flaky", None).model_copy(
        update={"items": [Item(custom_id="a", payload=0), Item(payload=2), Item(custom_id="c", payload=5)]}
    )
    await caller.send(creation)
    await caller.reach(creation.batch_id)
    page: Items = await caller.ask(ListItems(batch_id=creation.batch_id, owner_id="ann", limit=2), Items)
    first, second = page.data
    assert (first.custom_id, first.payload, first.status, first.failed_attempts) == ("a", 0, "succeeded", [])
    assert [(one.code, one.detail) for one in second.failed_attempts] == [
        ("service-unavailable", "attempt 1"),
        ("service-unavailable", "attempt 2"),
    ]
    rest = await caller.ask(
        ListItems(batch_id=creation.batch_id, owner_id="ann", cursor=page.next_cursor), Items
    )
    (last,) = rest.data
    assert (last.status, last.error.detail, len(last.failed_attempts)) == ("failed", "attempt 3", 2)
    assert rest.next_cursor is None


async def test_a_page_of_items_with_long_errors_fits_into_a_message(
    service: Resources, caller: Caller
) -> None:
    batch_id = await caller.submit("echo", list(range(500)))
    await caller.reach(batch_id)
    await caller.database.execute(
        """
        INSERT INTO attempts (batch_id, position, nth, code, detail)
        SELECT $1, position, nth, 'late', repeat('x', 1000)
        FROM generate_series(0, 499) AS position, generate_series(1, 3) AS nth
        """,
        batch_id,
    )
    found: list[int] = []
    cursor: str | None = None
    while cursor is not None or not found:
        request = ListItems(batch_id=batch_id, owner_id="ann", limit=1000, cursor=cursor)
        answer = await caller.ask_for_bytes(request)
        assert len(answer) < 2**20
        page = Items.model_validate_json(answer)
        assert {len(item.failed_attempts) for item in page.data} == {3}
        found += [item.position for item in page.data]
        cursor = page.next_cursor
    assert found == list(range(500))


async def test_a_task_says_which_attempts_failed_in_its_answer_and_at_its_end(
    service: Resources, caller: Caller
) -> None:
    ends = {await caller.submit("flaky", [n], kind="task"): ("completed", "failed")[n > 2] for n in (2, 5)}
    for task_id, status in ends.items():
        task = await caller.reach(task_id)
        assert task.status == status
        assert [one.detail for one in task.failed_attempts] == ["attempt 1", "attempt 2"]
    reported = {event.batch.id: event.batch.failed_attempts for event in await caller.finished_events()}
    assert [len(reported[task_id]) for task_id in ends] == [2, 2]


async def test_errors_are_summed_up_by_code_with_the_first_items(service: Resources, caller: Caller) -> None:
    batch_id = await caller.submit("grumpy", list(range(20)))
    await caller.reach(batch_id)
    found: ErrorSummaries = await caller.ask(ListErrors(batch_id=batch_id, owner_id="ann"), ErrorSummaries)
    (summary,) = found.data
    assert (summary.code, summary.items) == ("conflict", 7)
    assert [(one.position, one.detail) for one in summary.samples] == [
        (position, "divisible by three") for position in (0, 3, 6)
    ]
    fine = await caller.submit("echo", [1])
    await caller.reach(fine)
    assert (await caller.ask(ListErrors(batch_id=fine, owner_id="ann"), ErrorSummaries)).data == []


async def test_errors_with_certain_codes_are_found_beside_very_many_others(engine: BatchEngine) -> None:
    """Of an operation that has a code for each item, for instance."""
    batch_id = await engine.give("ann", items=120)
    for loaded in await engine.claim(most=40, for_any=40):
        failures = [
            ItemFailure(item.position, "rare" if item.position == 60 else f"code-{item.position % 110}", "no")
            for item in loaded.items
        ]
        await engine.store([ChunkReport(loaded.claim, "done", Outcomes(failures=failures))])
    async with engine.postgres.connection() as connection:
        shown = await repository.sum_up_errors(connection, batch_id, codes=(), samples=3)
        found = await repository.sum_up_errors(
            connection, batch_id, codes=["rare", "code-3", "none"], samples=0
        )
    assert len(shown) == MOST_CODES
    assert "rare" not in {error.code for error in shown}
    assert [(error.code, error.items, error.samples) for error in found] == [
        ("code-3", 2, []),
        ("rare", 1, []),
    ]


async def test_items_of_a_batch_that_never_ran_say_so(
    service: Resources, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no other replica that could know the operation.
    monkeypatch.setattr(handlers, "TRIES_LEFT_TO_OTHERS", 0)
    refused = await caller.submit("no.such", [1, 2])
    await caller.reach(refused)
    page: Items = await caller.ask(ListItems(batch_id=refused, owner_id="ann"), Items)
    assert [item.status for item in page.data] == ["skipped", "skipped"]
    upload = caller.creation("echo", None)
    await caller.send(upload)
    await caller.send(caller.append(upload.batch_id, 0, [1, 2, 3]))
    await caller.send(CancelBatch(batch_id=upload.batch_id, owner_id="ann"))
    await caller.reach(upload.batch_id)

    async def are_shown() -> bool:
        # The cancel may have overtaken them.
        shown = await caller.ask(ListItems(batch_id=upload.batch_id, owner_id="ann"), Items)
        return [item.status for item in shown.data] == ["cancelled"] * 3

    await until(are_shown)


async def test_a_result_of_a_task_comes_as_it_was_stored(service: Resources, caller: Caller) -> None:
    task = await caller.submit("echo", [1], kind="task")
    await caller.reach(task)
    await caller.database.execute("UPDATE results SET result = $1", '{"price": 1.10, "n": 1e5}')
    answer = await caller.ask_for_bytes(GetBatch(batch_id=task, owner_id="ann", kind="task"))
    assert answer.endswith(b'"result":{"price": 1.10, "n": 1e5}}')


async def test_results_and_items_are_those_of_a_batch_and_of_its_owner(
    service: Resources, caller: Caller
) -> None:
    task = await caller.submit("echo", [1], kind="task")
    batch = await caller.submit("echo", [1])
    await caller.reach(task)
    await caller.reach(batch)
    for question, reply in (
        (ListResults(batch_id=task, owner_id="ann"), Results),
        (ListItems(batch_id=task, owner_id="ann"), Items),
        (ListErrors(batch_id=task, owner_id="ann"), ErrorSummaries),
        (ListItems(batch_id=batch, owner_id="eve"), Items),
        (ListErrors(batch_id=batch, owner_id="eve"), ErrorSummaries),
    ):
        with pytest.raises(RemoteFailure) as caught:
            await caller.ask(question, reply)
        assert caught.value.status == 404

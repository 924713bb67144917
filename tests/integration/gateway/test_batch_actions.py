"""Actions on all batches that fit a filter, against a double of batch-processor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from chassis.deadlines import Deadline
from contracts.batch_items import ErrorSummaries, ErrorSummary, ListErrors
from contracts.batches import (
    INTAKE,
    Batch,
    BatchCounts,
    Batches,
    BatchStatus,
    CountBatches,
    Counts,
    GetBatch,
    ListBatches,
)
from contracts.topology import BATCH_PROCESSOR
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

FAILED = [UUID(int=1), UUID(int=2)]


class LateBatches:
    """Plays batch-processor, which has two batches with late items and three without."""

    async def count(self, request: CountBatches, _: Deadline) -> BatchCounts:
        return BatchCounts(counts={"completed": 2 if request.wanted.failure_codes == ["timeout"] else 5})

    async def get(self, request: GetBatch, _: Deadline) -> Batch:
        return Batch(
            id=request.batch_id,
            kind=request.kind,
            operation="guarded",
            status="completed",
            counts=Counts(failed=1),
            errors={"timeout": 1},
            accepted_at=datetime.now(UTC),
        )

    async def list_guarded(self, request: ListBatches, deadline: Deadline) -> Batches:
        return Batches(
            data=[await self.get(GetBatch(batch_id=FAILED[0], owner_id=request.owner_id), deadline)]
        )

    async def list(self, request: ListBatches, _: Deadline) -> Batches:
        assert (request.wanted.failure_codes, request.wanted.with_failures) == (["timeout"], True)
        some = Batch(
            id=FAILED[0],
            kind="batch",
            operation="echo",
            status="completed",
            counts=Counts(),
            accepted_at=datetime.now(UTC),
        )
        return Batches(data=[some.model_copy(update={"id": id_}) for id_ in FAILED])


async def test_all_batches_with_some_errors_are_retried_for_these_errors_only(house: House) -> None:
    double = LateBatches()
    await house.double(BATCH_PROCESSOR, {CountBatches: double.count, ListBatches: double.list})
    listener = await house.open()
    await house.purge(INTAKE)
    tried = await listener.api.post("/v1/batches/retry?code=timeout&dry_run=true")
    effect = {"matched": 2, "changed": 2, "complete": True, "next_cursor": None, "exact": True}
    assert tried.json() == {**effect, "dry_run": True}
    done = await listener.api.post("/v1/batches/retry?code=timeout&operation=echo")
    assert done.json() == {**effect, "dry_run": False}
    messages = await house.take(INTAKE, 2)
    assert [message["_"]["type"] for message in messages] == ["batch.retry.v1"] * 2
    assert {message["batch_id"] for message in messages} == {str(id_) for id_ in FAILED}
    assert [message["codes"] for message in messages] == [["timeout"]] * 2
    refused = await listener.api.post("/v1/batches/retry?code=not%20a%20code")
    assert_problem(refused, 422, "invalid-input", "/code/0")
    assert_problem(await listener.api.post("/v1/batches/cancel?code=timeout"), 422, "invalid-input", "/code")


async def test_what_is_changed_has_matched_also_if_it_moves_on_while_it_is_counted(house: House) -> None:
    class Hasty(LateBatches):
        async def count(self, request: CountBatches, _: Deadline) -> BatchCounts:
            return BatchCounts(counts={})

    double = Hasty()
    await house.double(BATCH_PROCESSOR, {CountBatches: double.count, ListBatches: double.list})
    listener = await house.open()
    done = (await listener.api.post("/v1/batches/retry?code=timeout")).json()
    assert (done["matched"], done["changed"]) == (2, 2)


async def test_what_matches_is_counted_only_for_a_key_that_may_read_batches(house: House) -> None:
    double = LateBatches()
    await house.double(
        BATCH_PROCESSOR,
        {CountBatches: double.count, ListBatches: double.list_guarded, GetBatch: double.get},
    )
    listener = await house.open()
    await house.purge(INTAKE)
    one = f"/v1/batches/{FAILED[0]}/retry"
    async with listener.client(await listener.new_key("batches:write")) as writer:
        for way in (one, "/v1/batches/retry", "/v1/batches/cancel", "/v1/tasks/pause"):
            query = {} if way == one else {"operation": "guarded"}
            refused = await writer.post(way, params={**query, "dry_run": "true"})
            assert_problem(refused, 403, "forbidden")
            assert "batches:read" in refused.headers["www-authenticate"]
            done = (await writer.post(way, params=query)).json()
            assert done == {"changed": 1, "dry_run": False, "complete": True} | (
                {} if way == one else {"next_cursor": None}
            )


async def test_an_error_that_a_batch_does_not_list_is_retried(house: House) -> None:
    """A batch lists its most frequent errors only."""

    class Varied(LateBatches):
        async def get(self, request: GetBatch, deadline: Deadline) -> Batch:
            found = await super().get(request, deadline)
            errors = {f"code-{n}": 3 for n in range(100)}
            counts = Counts(total=302, failed=302)
            return found.model_copy(update={"operation": "echo", "errors": errors, "counts": counts})

        async def errors(self, request: ListErrors, _: Deadline) -> ErrorSummaries:
            found = {"rare": 2, "code-7": 3}
            return ErrorSummaries(
                data=[ErrorSummary(code=code, items=found[code], samples=[]) for code in request.codes]
            )

    double = Varied()
    await house.double(BATCH_PROCESSOR, {GetBatch: double.get, ListErrors: double.errors})
    listener = await house.open()
    await house.purge(INTAKE)
    path = f"/v1/batches/{FAILED[0]}/retry"
    tried = await listener.api.post(f"{path}?code=rare,code-7&dry_run=true")
    assert (tried.json()["matched"], tried.json()["dry_run"]) == (5, True)
    done = await listener.api.post(f"{path}?code=rare")
    assert (done.json()["matched"], done.json()["changed"]) == (2, 2)
    (message,) = await house.take(INTAKE)
    assert (message["_"]["type"], message["codes"]) == ("batch.retry.v1", ["rare"])


async def test_a_resumed_batch_is_queued_or_running_as_it_was_before(house: House) -> None:
    class Paused(LateBatches):
        started_at: datetime | None = None

        async def get(self, request: GetBatch, deadline: Deadline) -> Batch:
            found = await super().get(request, deadline)
            return found.model_copy(update={"status": "paused", "started_at": self.started_at})

    double = Paused()
    await house.double(BATCH_PROCESSOR, {GetBatch: double.get})
    listener = await house.open()
    path = f"/v1/batches/{uuid4()}/resume"
    assert (await listener.api.post(path)).json()["status"] == "queued"
    double.started_at = datetime.now(UTC)
    assert (await listener.api.post(path)).json()["status"] == "running"


async def test_what_is_past_its_deadline_is_not_retried(house: House) -> None:
    class Late(LateBatches):
        async def get(self, request: GetBatch, deadline: Deadline) -> Batch:
            found = await super().get(request, deadline)
            return found.model_copy(update={"operation": "echo", "expires_at": datetime.now(UTC)})

    double = Late()
    await house.double(
        BATCH_PROCESSOR,
        {CountBatches: double.count, ListBatches: double.list_guarded, GetBatch: double.get},
    )
    listener = await house.open()
    await house.purge(INTAKE)
    refused = assert_problem(await listener.api.post(f"/v1/batches/{FAILED[0]}/retry"), 409, "conflict")
    assert "could run until" in refused["detail"]
    assert (await listener.api.post("/v1/batches/retry?operation=echo")).json()["changed"] == 0
    assert await house.depth(INTAKE) == 0


async def test_a_waiting_task_moves_to_a_time_before_it_expires_only(house: House) -> None:
    class Waiting(LateBatches):
        async def get(self, request: GetBatch, deadline: Deadline) -> Batch:
            found = await super().get(request, deadline)
            times = {"run_at": found.accepted_at, "expires_at": found.accepted_at + timedelta(hours=2)}
            return found.model_copy(update={"operation": "echo", "status": "queued", **times})

    double = Waiting()
    await house.double(BATCH_PROCESSOR, {GetBatch: double.get})
    listener = await house.open()
    now, path = datetime.now(UTC), f"/v1/tasks/{FAILED[0]}"
    late = await listener.api.patch(path, json={"run_at": f"{now + timedelta(hours=3)}"})
    assert_problem(late, 422, "invalid-input", "/run_at")
    moved = await listener.api.patch(path, json={"run_at": f"{now + timedelta(hours=1)}"})
    assert moved.status_code == 202, moved.text


async def test_a_validation_counts_the_items_of_a_source(house: House) -> None:
    class Ended(LateBatches):
        async def get(self, request: GetBatch, deadline: Deadline) -> Batch:
            found = await super().get(request, deadline)
            return found.model_copy(update={"counts": Counts(total=7, succeeded=4, failed=3)})

    double = Ended()
    await house.double(BATCH_PROCESSOR, {GetBatch: double.get})
    listener = await house.open()
    for status, items in (("succeeded", 4), ("failed", 3), ("cancelled", 0)):
        body = {"operation": "echo", "source": {"batch_id": str(FAILED[0]), "status": status}}
        checked = await listener.api.post("/v1/batches?validate=only", json=body)
        assert (checked.status_code, checked.json()["items"]) == (200, items)


async def test_a_retry_needs_the_scopes_of_the_operation_whoever_made_the_batch(house: House) -> None:
    listener, lesser, whole = await _with_guarded_operation(house, LateBatches())
    ways = [
        f"/v1/batches/{FAILED[0]}/retry",
        f"/v1/tasks/{FAILED[0]}/retry",
        "/v1/batches/retry?operation=guarded",
        "/v1/tasks/retry?operation=guarded",
    ]
    async with listener.client(lesser) as client:
        for way in ways:
            for params in ({"dry_run": "true"}, {}):
                refused = await client.post(
                    way, params={**httpx.QueryParams(way.partition("?")[2]), **params}
                )
                assert_problem(refused, 403, "forbidden")
                assert "emails:send" in refused.headers["www-authenticate"]
    async with listener.client(whole) as client:
        for way in ways:
            assert (await client.post(way)).json()["changed"] == 1
    messages = await house.take(INTAKE, 4)
    # What follows the end has the rights of whoever retried.
    scopes = ["batches:read", "batches:write", "emails:send"]
    assert [message["scopes"] for message in messages] == [scopes] * 4
    assert await house.depth(INTAKE) == 0


async def test_letting_work_run_needs_the_scopes_of_its_operation_whoever_made_it(house: House) -> None:
    class Paused(LateBatches):
        async def get(self, request: GetBatch, deadline: Deadline) -> Batch:
            found = await super().get(request, deadline)
            return found.model_copy(update={"status": "paused", "version": 3})

    listener, lesser, whole = await _with_guarded_operation(house, Paused())
    id_, operation = FAILED[0], "operation=guarded"
    runs = [
        f"/v1/{kind}{way}"
        for kind in ("batches", "tasks")
        for way in (f"/{id_}/resume", f"/resume?{operation}")
    ]
    moved: dict[str, Any] = {"json": {"run_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}}
    async with listener.client(lesser) as client:
        for way in runs:
            refused = await client.post(way)
            assert_problem(refused, 403, "forbidden")
            assert "emails:send" in refused.headers["www-authenticate"]
        assert_problem(await client.patch(f"/v1/tasks/{id_}", **moved), 403, "forbidden")
        # What only keeps work from running needs none.
        assert (await client.post(f"/v1/batches/{id_}/pause")).is_success
        assert (await client.post(f"/v1/batches/{id_}/cancel")).is_success
    async with listener.client(whole) as client:
        for way in runs:
            assert (await client.post(way)).is_success, way
        assert (await client.patch(f"/v1/tasks/{id_}", **moved)).is_success
    done = [message["_"]["type"] for message in await house.take(INTAKE, 7)]
    assert sorted(done) == ["batch.cancel.v1", "batch.move.v1", "batch.pause.v1", *["batch.resume.v1"] * 4]


@pytest.mark.parametrize("status", ["paused", "completed"])
async def test_an_action_shows_a_task_whole_only_to_a_key_that_may_read_it(
    house: House, status: BatchStatus
) -> None:
    class Secret(LateBatches):
        async def get(self, request: GetBatch, deadline: Deadline) -> Batch:
            found = await super().get(request, deadline)
            return found.model_copy(update={"status": status, "version": 3, "metadata": {"of": "Ann"}})

    listener, *_ = await _with_guarded_operation(house, Secret())
    writer = await listener.new_key("batches:write", user_id=1)
    way = f"/v1/tasks/{FAILED[0]}/cancel"
    assert (await listener.api.post(way)).json()["metadata"] == {"of": "Ann"}
    async with listener.client(writer) as client:
        answer = (await client.post(way)).json()
        # A repetition, too, for which another key has the whole answer.
        repeated = {"idempotency-key": uuid4().hex}
        assert (await listener.api.post(way, headers=repeated)).json()["metadata"] == {"of": "Ann"}
        again = await client.post(way, headers=repeated)
    assert again.headers["idempotent-replayed"] == "true"
    for shown in (answer, again.json()):
        assert (shown["id"], shown["counts"], shown["detail_available"]) == (str(FAILED[0]), None, False)
        assert {"metadata", "errors", "result"}.isdisjoint(shown)


@pytest.mark.parametrize(("action", "status"), [("retry", "completed"), ("resume", "paused")])
async def test_a_bulk_action_is_refused_whole_if_an_operation_is_gone_and_says_how_to_choose_others(
    house: House, action: str, status: BatchStatus
) -> None:
    class Mixed(LateBatches):
        async def list_guarded(self, request: ListBatches, deadline: Deadline) -> Batches:
            wanted = request.wanted.operations or ["guarded", "gone"]
            found = await self.get(GetBatch(batch_id=FAILED[0], owner_id=request.owner_id), deadline)
            some = [{"id": UUID(int=n), "operation": name} for n, name in enumerate(wanted)]
            return Batches(data=[found.model_copy(update={**one, "status": status}) for one in some])

    listener, _, whole = await _with_guarded_operation(house, Mixed())
    async with listener.client(whole) as client:
        for params in ({"dry_run": "true"}, {}):
            refused = await client.post(f"/v1/batches/{action}", params={"status": status, **params})
            detail = assert_problem(refused, 422, "unknown-operation", "/operation")["detail"]
            assert "There is no operation 'gone'" in detail
            assert detail.endswith("choose others with the parameter operation.")
        assert await house.depth(INTAKE) == 0
        assert (await client.post(f"/v1/batches/{action}?operation=guarded")).json()["changed"] == 1
    assert len(await house.take(INTAKE, 1)) == 1


async def test_a_dry_run_is_as_incomplete_as_the_real_one_would_be(house: House) -> None:
    """Of 1,500 batches one call cancels a thousand, and the next one those behind them."""

    async def count(request: CountBatches, _: Deadline) -> BatchCounts:
        first, end = int(request.before or 0), int(request.until or 1500)
        return BatchCounts(counts={"running": end - first}, exact=request.until is None)

    async def page(request: ListBatches, _: Deadline) -> Batches:
        first, most = int(request.cursor or 0), 1500
        some = Batch(
            id=FAILED[0], kind="batch", operation="echo", status="running", counts=Counts(),
            accepted_at=datetime.now(UTC),
        )  # fmt: skip
        last = min(first + request.limit, most)
        data = [some.model_copy(update={"id": UUID(int=n)}) for n in range(first, last)]
        return Batches(data=data, next_cursor=str(last) if last < most else None)

    await house.double(BATCH_PROCESSOR, {CountBatches: count, ListBatches: page})
    listener = await house.open()
    await house.purge(INTAKE)
    part = {"matched": 1000, "changed": 1000, "complete": False, "next_cursor": "1000", "exact": False}
    rest = {"matched": 500, "changed": 500, "complete": True, "next_cursor": None, "exact": True}
    way = "/v1/batches/cancel?operation=echo"
    assert (await listener.api.post(f"{way}&dry_run=true")).json() == {**part, "dry_run": True}
    tried = await listener.api.post(f"{way}&dry_run=true&cursor=1000")
    assert tried.json() == {**rest, "dry_run": True}
    assert await house.depth(INTAKE) == 0
    assert (await listener.api.post(way)).json() == {**part, "dry_run": False}
    assert (await listener.api.post(f"{way}&cursor=1000")).json() == {**rest, "dry_run": False}
    assert len(await house.take(INTAKE, 1500)) == 1500


async def test_an_action_says_what_happens_next_and_by_when(house: House) -> None:
    async def running(request: GetBatch, _: Deadline) -> Batch:
        return Batch(
            id=request.batch_id,
            kind=request.kind,
            operation="echo",
            status="queued",
            counts=Counts(total=1),
            accepted_at=datetime.now(UTC) - timedelta(days=1),
        )

    await house.double(BATCH_PROCESSOR, {GetBatch: running})
    listener = await house.open()
    before, task = datetime.now(UTC), f"/v1/tasks/{uuid4()}"
    later = {"run_at": (before + timedelta(days=1)).isoformat()}
    for answer in (
        await listener.api.post(f"/v1/batches/{uuid4()}/cancel"),
        await listener.api.post(f"/v1/batches/{uuid4()}/pause"),
        await listener.api.patch(task, json=later),
    ):
        follows = answer.json()["next"]
        by = datetime.fromisoformat(follows["by"])
        assert follows["what"] == "batch-processor takes it over"
        assert before + timedelta(seconds=60) <= by <= datetime.now(UTC) + timedelta(seconds=60)


async def _with_guarded_operation(house: House, double: LateBatches) -> tuple[RunningGateway, str, str]:
    """Return a listener, a key without the scope of the operation `guarded`, and one that has it."""
    await house.double(
        BATCH_PROCESSOR,
        {CountBatches: double.count, ListBatches: double.list_guarded, GetBatch: double.get},
    )
    listener = await house.open()
    await listener.database.execute(
        "INSERT INTO operations (name, description, item_schema, required_scopes)"
        " VALUES ('guarded', '', '{}', '{emails:send}')"
    )
    await house.purge(INTAKE)
    user = await listener.new_user()
    lesser = await listener.new_key("batches:read", "batches:write", user_id=user)
    whole = await listener.new_key("batches:read", "batches:write", "emails:send", user_id=user)
    return listener, lesser, whole

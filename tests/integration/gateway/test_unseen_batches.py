"""What a key that may not read batches learns from the refusal of an action on all that match."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from contracts.batches import Batch, BatchCounts, Batches, CountBatches, Counts, ListBatches
from contracts.topology import BATCH_PROCESSOR
from support.gateway_stack import House
from support.problems import assert_problem


@pytest.mark.parametrize("action", ["retry", "resume"])
async def test_a_refusal_is_the_same_whether_or_not_something_matches(house: House, action: str) -> None:
    matching: list[Batch] = []

    async def listed(_: ListBatches, __: Deadline) -> Batches:
        return Batches(data=matching)

    async def count(_: CountBatches, __: Deadline) -> BatchCounts:
        return BatchCounts(counts={})

    await house.double(BATCH_PROCESSOR, {ListBatches: listed, CountBatches: count})
    listener = await house.open()
    await listener.database.execute(
        "INSERT INTO operations (name, description, item_schema, required_scopes)"
        " VALUES ('free', '', '{}', '{}'), ('guarded', '', '{}', '{emails:send}')"
    )
    guarded = Batch(
        id=new_id(),
        kind="batch",
        operation="guarded",
        status="completed" if action == "retry" else "paused",
        counts=Counts(failed=1),
        accepted_at=datetime.now(UTC),
    )
    path, anything = f"/v1/batches/{action}", {"created_after": "2026-01-01T00:00:00Z"}
    async with listener.client(await listener.new_key("batches:write")) as writer:
        for query, scope in ((anything, "batches:read"), ({"operation": "guarded"}, "emails:send")):
            details = set()
            for found in ([], [guarded]):
                matching[:] = found
                refused = await writer.post(path, params=query)
                details.add(assert_problem(refused, 403, "forbidden")["detail"])
                assert scope in refused.headers["www-authenticate"]
            assert len(details) == 1
        matching.clear()
        done = await writer.post(path, params={**anything, "operation": "free"})
        assert done.json()["changed"] == 0

"""An administrator pauses operations and owners: audited, and the same however often it is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from chassis.deadlines import Deadline
from contracts.pauses import ListPauses, Pause, Pauses, PauseWork, ResumeWork
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem


class Kept:
    """Stands in for batch-processor, which keeps the pauses."""

    def __init__(self) -> None:
        self.pauses: dict[tuple[str, str], Pause] = {}

    async def list(self, _: ListPauses, __: Deadline) -> Pauses:
        return Pauses(data=list(self.pauses.values()))

    async def pause(self, request: PauseWork, deadline: Deadline) -> Pauses:
        pause = Pause(**request.model_dump(exclude={"type"}), paused_at=datetime.now(UTC))
        self.pauses.setdefault((request.kind, request.name), pause)
        return await self.list(ListPauses(), deadline)

    async def resume(self, request: ResumeWork, deadline: Deadline) -> Pauses:
        self.pauses.pop((request.kind, request.name), None)
        return await self.list(ListPauses(), deadline)


@pytest.fixture
async def listener(house: House) -> RunningGateway:
    kept = Kept()
    answers: Any = {ListPauses: kept.list, PauseWork: kept.pause, ResumeWork: kept.resume}
    await house.double("batch-processor", answers)
    listener = await house.open()
    await listener.database.execute(
        "INSERT INTO operations (name, description, item_schema, required_scopes)"
        " VALUES ('echo', '', '{}', '{}')"
    )
    return listener


async def test_an_administrator_pauses_and_resumes_operations_and_owners(listener: RunningGateway) -> None:
    path = "/v1/admin/pauses/operations/echo"
    paused = await listener.api.put(path, json={"reason": "the provider is down"})
    assert paused.status_code == 200, paused.text
    assert (paused.json()["kind"], paused.json()["name"]) == ("operation", "echo")
    again = await listener.api.put(path, json={"reason": "something else"})
    assert again.json() == paused.json()
    assert (await listener.api.put("/v1/admin/pauses/owners/1", json={})).status_code == 200
    listed = (await listener.api.get("/v1/admin/pauses")).json()
    assert [(row["kind"], row["name"]) for row in listed["data"]] == [("operation", "echo"), ("owner", "1")]
    for _ in range(2):
        assert (await listener.api.delete(path)).status_code == 204
        assert (await listener.api.delete("/v1/admin/pauses/owners/1")).status_code == 204
    assert (await listener.api.get("/v1/admin/pauses")).json() == {"data": [], "next_cursor": None}
    rows = await listener.database.fetch(
        "SELECT action, target FROM audit_entries WHERE action LIKE 'work.%' ORDER BY id LIMIT 3"
    )
    assert [tuple(row) for row in rows] == [
        ("work.paused", "operation:echo"),
        ("work.paused", "operation:echo"),
        ("work.paused", "owner:1"),
    ]


async def test_only_administrators_may_pause_and_only_existing_operations_and_owners(
    listener: RunningGateway,
) -> None:
    assert_problem(await listener.api.put("/v1/admin/pauses/operations/nope", json={}), 404, "not-found")
    assert (await listener.api.put("/v1/admin/pauses/owners/999", json={})).status_code == 404
    refused = await listener.api.put("/v1/admin/pauses/owners/1", json={"reason": 5})
    assert assert_problem(refused, 422, "invalid-input")["errors"][0]["pointer"] == "/reason"
    key = await listener.new_key("batches:read", "batches:write")
    async with listener.client(key) as other:
        assert_problem(await other.get("/v1/admin/pauses"), 403, "forbidden")
        assert_problem(await other.put("/v1/admin/pauses/owners/1", json={}), 403, "forbidden")
        assert_problem(await other.delete("/v1/admin/pauses/owners/1"), 403, "forbidden")

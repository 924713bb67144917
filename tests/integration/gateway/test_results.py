"""The results of a batch over HTTP: as pages, or all of them as lines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from chassis.deadlines import Deadline
from chassis.errors import NotFound
from contracts import batches
from contracts.topology import BATCH_PROCESSOR
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

NOW = datetime(2026, 1, 2, 15, 30, tzinfo=UTC)
ID = "018f0000-0000-7000-8000-000000000000"


class BatchProcessor:
    """A batch-processor that has a batch of three results."""

    def __init__(self, id_: str) -> None:
        self.id = UUID(id_)
        self.status: batches.BatchStatus = "running"

    async def get(self, request: batches.GetBatch, _: Deadline) -> batches.Batch:
        if request.batch_id != self.id:
            raise NotFound("No such batch.")
        return batches.Batch(
            id=self.id,
            kind="batch",
            operation="echo",
            status=self.status,
            counts=batches.Counts(total=3),
            accepted_at=NOW,
        )

    async def results(self, request: batches.ListResults, _: Deadline) -> batches.Results:
        if request.batch_id != self.id:
            raise NotFound("No such batch.")
        position = int(request.cursor or 0)
        row = batches.Result(position=position, status="succeeded", result={"n": position})
        following = str(position + 1) if position < 2 else None
        return batches.Results(data=[row], next_cursor=following, complete=False)


async def test_results_come_as_a_page_or_all_as_lines(listener: RunningGateway, house: House) -> None:
    id_ = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    fresh = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    double = BatchProcessor(id_)
    await house.double(BATCH_PROCESSOR, {batches.GetBatch: double.get, batches.ListResults: double.results})
    page = (await listener.api.get(f"/v1/batches/{id_}/results?limit=1")).json()
    assert (len(page["data"]), page["next_cursor"]) == (1, "1")
    ways: list[dict[str, Any]] = [
        {"params": {"format": "ndjson"}},
        {"headers": {"accept": "application/x-ndjson"}},
    ]
    for how in ways:
        lines = await listener.api.get(f"/v1/batches/{id_}/results", **how)
        assert lines.headers["content-type"] == "application/x-ndjson"
        assert lines.headers["x-results-complete"] == "false"
        assert [line.count('"n"') for line in lines.text.splitlines()] == [1, 1, 1]
    head = await listener.api.head(f"/v1/batches/{id_}/results?format=ndjson")
    assert (head.status_code, head.headers["content-type"]) == (200, "application/x-ndjson")
    # Accepted, and not yet known there.
    empty = await listener.api.get(f"/v1/batches/{fresh}/results")
    assert (empty.status_code, empty.json()) == (200, {"data": [], "next_cursor": None, "complete": False})
    assert_problem(await listener.api.get(f"/v1/batches/{ID}/results"), 404, "not-found")
    cancelled = await listener.api.post(f"/v1/batches/{id_}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelling")
    await until(lambda: _has_cancel(house, id_))


async def _has_cancel(house: House, id_: str) -> bool:
    [message] = await house.take("batch-processor.intake")
    return bool(message["_"]["type"] == "batch.cancel.v1" and message["batch_id"] == id_)

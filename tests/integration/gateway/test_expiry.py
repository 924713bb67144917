"""What could not run in time is refused, and so are actions on what is not stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

BATCH = {"operation": "echo", "items": [1]}
TASK = {"operation": "echo", "payload": {"n": 1}, "delay_s": 60}


async def test_work_that_would_expire_before_it_begins_is_refused(
    listener: RunningGateway, house: House
) -> None:
    await house.purge("batch-processor.intake")
    ended, years = {"expires_at": "2026-01-01T00:00:00Z"}, {"expires_at": "2099-01-01T00:00:00Z"}
    soon = {"expires_at": f"{datetime.now(UTC) + timedelta(seconds=30)}"}
    lines = {"content": b'{"payload":1}\n', "headers": {"content-type": "application/x-ndjson"}}
    refused: list[tuple[str, dict[str, Any]]] = [
        ("/v1/batches", {"json": BATCH | ended}),
        ("/v1/batches?validate=only", {"json": BATCH | ended}),
        ("/v1/batches?open=true", {"json": {"operation": "echo"} | ended}),
        (f"/v1/batches?operation=echo&expires_at={ended['expires_at']}", lines),
        ("/v1/tasks", {"json": TASK | ended}),
        ("/v1/tasks", {"json": TASK | soon}),
        ("/v1/tasks", {"json": {"operation": "echo", "run_at": "2099-01-01T00:00:00Z"} | years}),
    ]
    for path, body in refused:
        answer = await listener.api.post(path, **body)
        assert_problem(answer, 422, "invalid-input", "/expires_at")
    assert await house.depth("batch-processor.intake") == 0


async def test_an_action_on_a_task_says_whether_it_is_stored_later_or_never(listener: RunningGateway) -> None:
    accepted = await listener.api.post("/v1/tasks", json={"operation": "echo", "delay_s": 60})
    path, move = accepted.headers["location"], {"run_at": "2099-01-01T00:00:00Z"}
    for answer in (await listener.api.patch(path, json=move), await listener.api.post(f"{path}/pause")):
        assert "is not stored yet" in assert_problem(answer, 409, "conflict")["detail"]
        assert answer.headers["retry-after"] == "2"
    parked = "UPDATE acceptances SET status = 'parked' WHERE id = $1"
    await listener.database.execute(parked, UUID(accepted.json()["id"]))
    for answer in (await listener.api.patch(path, json=move), await listener.api.post(f"{path}/pause")):
        assert " is parked" in assert_problem(answer, 409, "conflict")["detail"]

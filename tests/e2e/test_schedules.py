"""A schedule from HTTP to the result of its run, and a run that its maker has lost the right to make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from support.waiting import until

BODY = {
    "name": "e2e",
    "cron": "30 9 * * MON-FRI",
    "time_zone": "America/New_York",
    "template": {"operation": "echo", "payload": {"price": 1}, "metadata": {"report": "daily"}},
}


async def last_run(api: httpx.AsyncClient, path: str, *statuses: str) -> dict[str, Any]:
    async def found() -> Any:
        run = (await api.get(path)).json()["last_run"]
        return run if run["status"] in statuses else None

    run: dict[str, Any] = await until(found, timeout_s=30)
    return run


@pytest.fixture
async def path(api: httpx.AsyncClient) -> AsyncIterator[str]:
    made = await api.post("/v1/schedules", json=BODY)
    assert made.status_code == 201, made.text
    yield made.headers["location"]
    await api.delete(made.headers["location"], headers={"if-match": "*"})


async def test_a_run_makes_a_task_and_its_history_reports_the_end(api: httpx.AsyncClient, path: str) -> None:
    begun = await api.post(f"{path}/run")
    assert begun.status_code == 202, begun.text
    # At once, whatever the way of the run is.
    assert (await last_run(api, path, "fired", "accepted", "ended"))["id"] == begun.json()["id"]
    run = await last_run(api, path, "ended")
    assert (run["id"], run["trigger"], run["outcome"]) == (begun.json()["id"], "manual", "completed")
    task = (await api.get(begun.headers["location"])).json()
    assert (task["status"], task["result"]) == ("completed", {"price": 1})
    assert task["metadata"] == {
        "report": "daily",
        "schedule_id": path.rsplit("/", 1)[1],
        "due_at": f"{run['due_at'][:19]}Z",
    }


async def test_a_run_whose_key_was_revoked_is_refused_in_its_history(
    api: httpx.AsyncClient, path: str
) -> None:
    wanted = {"name": "short-lived", "scopes": ["schedules:write", "batches:write"], "user_id": 1}
    key = (await api.post("/v1/api-keys", json=wanted)).json()
    headers = {"Authorization": f"Bearer {key['key']}", "If-Match": "*"}
    changed = await api.patch(path, json={"name": "by another key"}, headers=headers)
    assert changed.status_code == 200, changed.text
    assert (await api.delete(f"/v1/api-keys/{key['id']}")).status_code == 204
    assert (await api.post(f"{path}/run")).status_code == 202
    run = await last_run(api, path, "refused")
    assert run["code"] == "forbidden"
    assert "revoked" in run["detail"]

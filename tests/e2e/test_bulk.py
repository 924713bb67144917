"""Tasks and batches that are listed, counted and cancelled by a filter."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx

from support.waiting import until


async def _delayed(api: httpx.AsyncClient, count: int) -> tuple[set[str], str]:
    """Accept tasks that wait for an hour; return their ids and a moment before them."""
    earlier = (await api.post("/v1/tasks", json={"operation": "echo"})).raise_for_status().json()["id"]
    ids = set()
    for _ in range(count):
        body = {"operation": "echo", "payload": str(uuid4()), "delay_s": 3600}
        ids.add((await api.post("/v1/tasks", json=body)).raise_for_status().json()["id"])
    before = (await api.get(f"/v1/tasks/{earlier}")).json()["accepted_at"]
    return ids, before


async def _listed(api: httpx.AsyncClient, **query: Any) -> set[str]:
    page = (await api.get("/v1/tasks", params={"limit": 200, **query})).raise_for_status().json()
    return {task["id"] for task in page["data"]}


async def test_delayed_tasks_are_listed_and_cancelled_by_a_filter(api: httpx.AsyncClient) -> None:
    ids, before = await _delayed(api, 3)
    choice = {"status": "queued", "operation": "echo", "created_after": before}

    async def all_are_listed() -> bool:
        return ids <= await _listed(api, **choice)

    await until(all_are_listed)
    assert not ids & await _listed(api, status="completed,failed")
    assert not ids & await _listed(api, created_before=before)
    tried = await api.post("/v1/tasks/cancel", params={**choice, "dry_run": "true"})
    assert tried.status_code == 200, tried.text
    assert tried.json()["changed"] == tried.json()["matched"] >= 3
    assert ids <= await _listed(api, **choice)
    done = (await api.post("/v1/tasks/cancel", params=choice)).raise_for_status().json()
    assert (done["dry_run"], done["complete"]) == (False, True)
    assert done["changed"] >= 3

    async def all_are_cancelled() -> bool:
        return ids <= await _listed(api, status="cancelled")

    await until(all_are_cancelled)
    again = (await api.post("/v1/tasks/cancel", params=choice)).raise_for_status().json()
    assert (again["matched"], again["changed"]) == (0, 0)


async def test_one_delayed_task_is_cancelled(api: httpx.AsyncClient) -> None:
    ids, _ = await _delayed(api, 1)
    (id_,) = ids
    assert (await api.post(f"/v1/tasks/{id_}/cancel")).status_code == 202

    async def is_cancelled() -> bool:
        return bool((await api.get(f"/v1/tasks/{id_}")).json()["status"] == "cancelled")

    await until(is_cancelled)
    assert (await api.post(f"/v1/batches/{id_}/cancel")).status_code == 404


async def test_a_bulk_action_without_a_filter_is_refused(api: httpx.AsyncClient) -> None:
    for path in ("/v1/tasks/cancel", "/v1/batches/cancel"):
        refused = await api.post(path)
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-input")
        assert "status" in refused.text
    unknown = await api.get("/v1/batches", params={"status": "sleeping"})
    assert unknown.status_code == 422

"""Tasks and batches that are listed, counted and cancelled by a filter."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx

from support.waiting import until

_GOOD = {"symbol": "AAPL", "indicators": ["rsi:14"]}
# They fail at once, with `invalid-item`, as only the operation sees it, and with `unknown-symbol`.
_INVALID = {**_GOOD, "start": "2006-02-01", "end": "2006-01-01"}
_UNKNOWN = {**_GOOD, "symbol": "NOT.KNOWN"}


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


async def _batch(api: httpx.AsyncClient, *payloads: dict[str, Any], **changes: Any) -> str:
    body = {"operation": "stock.indicators", "items": [{"payload": payload} for payload in payloads]}
    return f"/v1/batches/{(await api.post('/v1/batches', json={**body, **changes})).json()['id']}"


async def _reached(api: httpx.AsyncClient, path: str, *statuses: str, other_than: Any = "") -> Any:
    """Return the batch once it has one of the statuses, and another end than `other_than`."""

    async def found() -> Any:
        batch = (await api.get(path)).raise_for_status().json()
        is_reached = batch["counts"] and batch["status"] in statuses
        return batch if is_reached and batch["finished_at"] != other_than else None

    return await until(found, timeout_s=30)


async def _all(api: httpx.AsyncClient, action: str, changed: int, **query: Any) -> None:
    """Act on all batches that match; a dry run before has reported the same, and changed nothing."""
    tried = await api.post(f"/v1/batches/{action}", params={**query, "dry_run": "true"})
    done = (await api.post(f"/v1/batches/{action}", params=query)).raise_for_status().json()
    assert tried.raise_for_status().json() == {**done, "dry_run": True}
    assert (done["changed"], done["complete"], done["dry_run"]) == (changed, True, False)


async def test_batches_are_retried_by_a_filter_and_only_their_items_with_that_error_run_again(
    api: httpx.AsyncClient,
) -> None:
    _, before = await _delayed(api, 0)
    mixed, unknown, good = (
        await _batch(api, _INVALID, _UNKNOWN, _GOOD),
        await _batch(api, _UNKNOWN),
        await _batch(api, _GOOD),
    )
    choice = {"operation": "stock.indicators", "created_after": before}
    first = await _reached(api, mixed, "completed")
    alone, whole = await _reached(api, unknown, "completed"), await _reached(api, good, "completed")
    await _all(api, "retry", 0, **choice, code="no-such-error")
    await _all(api, "retry", 1, **choice, code="invalid-item")
    again = await _reached(api, mixed, "completed", other_than=first["finished_at"])
    assert again["errors"] == first["errors"] == {"invalid-item": 1, "unknown-symbol": 1}
    assert await _ran(api, mixed) == [2, 1, 1]
    await _all(api, "retry", 2, **choice)
    await _reached(api, mixed, "completed", other_than=again["finished_at"])
    await _reached(api, unknown, "completed", other_than=alone["finished_at"])
    assert (await _ran(api, mixed), await _ran(api, unknown)) == ([3, 2, 1], [2])
    assert (await api.get(good)).json()["finished_at"] == whole["finished_at"]


async def _ran(api: httpx.AsyncClient, path: str) -> list[int]:
    """Return how often each item has run: the errors of earlier attempts, and the last one."""
    rows = (await api.get(f"{path}/items")).raise_for_status().json()["data"]
    return [len(row["failed_attempts"]) + 1 for row in rows]


async def test_batches_are_paused_resumed_and_cancelled_by_a_filter(api: httpx.AsyncClient) -> None:
    _, before = await _delayed(api, 0)
    choice = {"operation": "stock.indicators", "created_after": before}
    # They cannot end meanwhile: only one item may begin within the hour.
    limits = {"rate_limit": {"items": 1, "per_s": 3600}}
    paths = [await _batch(api, _GOOD, _GOOD, options=limits) for _ in range(2)]
    for path in paths:
        await _reached(api, path, "queued", "running")
    await _all(api, "pause", 2, **choice)
    for path in paths:
        await _reached(api, path, "paused")
    await _all(api, "pause", 0, **choice)
    await _all(api, "resume", 2, **choice)
    for path in paths:
        await _reached(api, path, "queued", "running")
    await _all(api, "cancel", 2, **choice)
    for path in paths:
        assert (await _reached(api, path, "cancelled"))["counts"]["cancelled"] >= 1
    await _all(api, "cancel", 0, **choice)


async def test_a_bulk_action_without_a_filter_is_refused(api: httpx.AsyncClient) -> None:
    for path in ("/v1/tasks/cancel", "/v1/batches/cancel"):
        refused = await api.post(path)
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-input")
        assert "status" in refused.text
    unknown = await api.get("/v1/batches", params={"status": "sleeping"})
    assert unknown.status_code == 422

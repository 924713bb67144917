"""Batches and tasks are paused, resumed, retried, moved, waited for and followed by another."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import httpx

from support.problems import assert_problem
from support.waiting import until

ENDED = ("completed", "failed", "cancelled", "expired")
LATER = {"delay_s": 3600}


async def reached(api: httpx.AsyncClient, path: str, *statuses: str) -> dict[str, Any]:
    async def found() -> Any:
        thing = (await api.get(path)).raise_for_status().json()
        return thing if thing["status"] in (statuses or ENDED) and thing["counts"] else None

    thing: dict[str, Any] = await until(found, timeout_s=30)
    return thing


async def task(api: httpx.AsyncClient, **body: Any) -> str:
    accepted = await api.post("/v1/tasks", json={"operation": "echo", **body})
    assert accepted.status_code == 202, accepted.text
    return f"/v1/tasks/{accepted.json()['id']}"


async def test_a_task_is_paused_moved_and_resumed(api: httpx.AsyncClient) -> None:
    path = await task(api, payload=7, metadata={"order": "4711"}, **LATER)
    waiting = await reached(api, path, "queued")
    assert waiting["metadata"] == {"order": "4711"}
    assert (await api.post(f"{path}/pause")).json()["status"] == "paused"
    await reached(api, path, "paused")
    # To ask twice is no error.
    assert (await api.post(f"{path}/pause")).status_code == 202
    due = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    moved = await api.patch(path, json={"run_at": due}, headers={"Idempotency-Key": f'"{uuid4()}"'})
    assert moved.status_code == 202, moved.text
    assert (await api.post(f"{path}/resume")).json()["status"] == "queued"
    done = await reached(api, path)
    assert (done["status"], done["result"]) == ("completed", 7)
    for action in ("pause", "resume"):
        assert_problem(await api.post(f"{path}/{action}"), 409, "conflict")
    assert_problem(await api.patch(path, json={"run_at": due}), 409, "conflict")


async def test_waiting_work_is_rescheduled_only_by_a_caller_that_has_read_its_time(
    api: httpx.AsyncClient,
) -> None:
    soon, later = ((datetime.now(UTC) + timedelta(hours=hours)).isoformat() for hours in (2, 3))
    letter = {"to": ["reader@example.com"], "subject": "s", "text": "t", "send_at": soon}
    email = f"/v1/emails/{(await api.post('/v1/emails', json=letter)).json()['id']}"
    for path, field in ((await task(api, **LATER), "run_at"), (email, "send_at")):
        await until(partial(_has_version, api, path))
        seen = (await api.get(path)).headers["etag"]
        assert (await api.get(path, headers={"if-none-match": seen})).status_code == 304
        moved = await api.patch(path, json={field: later}, headers={"if-match": seen})
        assert moved.status_code in (200, 202), moved.text
        await until(partial(_has_version, api, path, other_than=seen))
        stale = await api.patch(path, json={field: later}, headers={"if-match": seen})
        assert_problem(stale, 412, "precondition-failed")
        current = {"if-match": (await api.get(path)).headers["etag"]}
        assert (await api.patch(path, json={field: later}, headers=current)).status_code in (200, 202)


async def _has_version(api: httpx.AsyncClient, path: str, *, other_than: str = "") -> bool:
    """Return whether the owner of a mail or a task has stored it at another time."""
    answer = await api.get(path)
    found, before = answer.headers.get("etag", ""), other_than
    return found.split(".")[0] not in ("", before.split(".")[0]) and answer.json().get("recipients") != []


async def test_a_failed_task_is_retried_and_shows_how_often(api: httpx.AsyncClient) -> None:
    # What only the operation can check fails at once, and again.
    backwards = {"symbol": "AAPL", "indicators": ["rsi:14"], "start": "2006-02-01", "end": "2006-01-01"}
    path = await task(api, operation="stock.indicators", payload=backwards)
    failed = await reached(api, path)
    assert failed["status"] == "failed"
    (code,) = failed["errors"]
    other = await api.post(f"{path}/retry", params={"code": "no-such-error"})
    assert other.json() == {"matched": 0, "changed": 0, "dry_run": False, "complete": True}
    tried = await api.post(f"{path}/retry", params={"code": code, "dry_run": "true"})
    assert (tried.json()["matched"], tried.json()["dry_run"]) == (1, True)
    again = await api.post(f"{path}/retry", params={"code": code})
    assert again.json() == {"matched": 1, "changed": 1, "dry_run": False, "complete": True}

    async def ended_again() -> bool:
        return bool((await reached(api, path))["finished_at"] > failed["finished_at"])

    await until(ended_again)


async def test_tasks_are_paused_and_resumed_by_a_filter(api: httpx.AsyncClient) -> None:
    before = (await reached(api, await task(api)))["accepted_at"]
    paths = [await task(api, payload=n, **LATER) for n in range(3)]
    for path in paths:
        await reached(api, path, "queued")
    choice = {"created_after": before}
    tried = (await api.post("/v1/tasks/pause", params={**choice, "dry_run": "true"})).json()
    assert tried["changed"] >= 3
    assert (await api.post("/v1/tasks/pause", params=choice)).json()["changed"] >= 3
    for path in paths:
        await reached(api, path, "paused")
    listed = await api.get("/v1/tasks", params={**choice, "status": "paused"})
    assert {f"/v1/tasks/{one['id']}" for one in listed.json()["data"]} >= set(paths)
    assert (await api.post("/v1/tasks/resume", params=choice)).json()["changed"] >= 3
    for path in paths:
        await reached(api, path, "queued")
    assert (await api.post("/v1/tasks/cancel", params=choice)).json()["changed"] >= 3
    none = (await api.post("/v1/batches/retry", params={**choice, "dry_run": "true"})).json()
    assert none["changed"] == 0


async def test_a_caller_waits_for_the_result_of_a_task(api: httpx.AsyncClient) -> None:
    written = '{"operation":"echo","payload":{"price": 1.10}}'
    headers = {"content-type": "application/json", "prefer": "wait=10"}
    answer = await api.post("/v1/tasks", content=written, headers=headers)
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait")
    assert answer.json()["status"] == "completed"
    assert '"result":{"price": 1.10}' in answer.text
    slow = {"operation": "echo", "payload": 1, "delay_s": 60}
    late = await api.post("/v1/tasks", json=slow, headers={"prefer": "wait=1"})
    assert (late.status_code, late.json()["status"]) == (202, "queued")


async def test_a_batch_expires_and_a_task_follows_it(api: httpx.AsyncClient) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    mark = str(uuid4())
    following = {"operation": "echo", "payload": {"mark": mark}}
    # One of its items waits for longer than until then.
    options = {"rate_limit": {"items": 1, "per_s": 3600}}
    sent = {"operation": "echo", "items": [1, 2], "options": options, "expires_at": soon}
    accepted = await api.post("/v1/batches", json={**sent, "on_finished": following})
    expired = await reached(api, accepted.headers["location"])
    assert (expired["status"], expired["error"]["code"]) == ("expired", "deadline-exceeded")

    async def followed() -> Any:
        data = (await api.get("/v1/tasks", params={"limit": 20})).json()["data"]
        return [one for one in data if one["metadata"].get("finished_id") == expired["id"]]

    (found,) = await until(followed)
    done = await reached(api, f"/v1/tasks/{found['id']}")
    assert (done["result"], done["metadata"]["finished_status"]) == ({"mark": mark}, "expired")


async def test_results_of_a_batch_are_the_items_of_the_next(api: httpx.AsyncClient) -> None:
    items = [{"custom_id": "a", "payload": {"n": 1}}, {"custom_id": "b", "payload": 2}]
    first = (await api.post("/v1/batches", json={"operation": "echo", "items": items})).json()["id"]
    await reached(api, f"/v1/batches/{first}")
    body = {"operation": "echo", "source": {"batch_id": first, "status": "succeeded"}}
    second = await api.post("/v1/batches", json=body)
    assert second.status_code == 202, second.text
    path = f"/v1/batches/{second.json()['id']}"
    assert (await reached(api, path))["counts"]["succeeded"] == 2
    rows = (await api.get(f"{path}/results")).json()["data"]
    assert [(row["custom_id"], row["result"]) for row in rows] == [("a", {"n": 1}), ("b", 2)]
    unknown = {**body, "source": {"batch_id": str(uuid4())}}
    refused = await api.post("/v1/batches", json=unknown)
    assert_problem(refused, 422, "invalid-input", "/source/batch_id")


async def test_results_come_as_a_table_and_items_with_their_errors(api: httpx.AsyncClient) -> None:
    items = [{"custom_id": "=1+1", "payload": "a,b"}, {"payload": -5}, {"payload": {"n": [1]}}]
    accepted = await api.post("/v1/batches", json={"operation": "echo", "items": items})
    path = f"/v1/batches/{accepted.json()['id']}"
    await reached(api, path)
    table = await api.get(f"{path}/results", headers={"accept": "text/csv"})
    assert table.headers["content-type"].startswith("text/csv")
    names, *rows = csv.reader(table.text.splitlines())
    assert names[:3] == ["position", "custom_id", "status"]
    assert [row[1] for row in rows] == ["'=1+1", "", ""]
    assert [row[-1] for row in rows] == ['"a,b"', "-5", '{"n":[1]}']
    same = await api.get(f"{path}/results", params={"format": "csv", "status": "succeeded"})
    assert same.text == table.text
    part = await api.get(f"{path}/results", params={"format": "ndjson", "limit": 2})
    assert (part.text.count("\n"), part.headers["x-next-cursor"]) == (2, "1")
    page = (await api.get(f"{path}/items", params={"limit": 2})).json()
    assert [one["payload"] for one in page["data"]] == ["a,b", -5]
    rest = await api.get(f"{path}/items", params={"cursor": page["next_cursor"]})
    assert [one["status"] for one in rest.json()["data"]] == ["succeeded"]
    assert (await api.get(f"{path}/errors")).json()["data"] == []


async def test_results_of_a_batch_that_has_not_ended_say_so_in_every_form(api: httpx.AsyncClient) -> None:
    # One item begins in the hour, so the other waits for it.
    options = {"rate_limit": {"items": 1, "per_s": 3600}}
    body = {"operation": "echo", "items": [1, 2], "options": options}
    path = f"/v1/batches/{(await api.post('/v1/batches', json=body)).json()['id']}"

    async def forms() -> list[tuple[str, int]]:
        answers = [await api.get(f"{path}/results?format={form}") for form in ("json", "ndjson", "csv")]
        return [(one.headers["x-results-complete"], one.text.count("succeeded")) for one in answers]

    async def has_one() -> bool:
        return (await forms()) == [("false", 1)] * 3

    await until(has_one)
    assert (await api.get(path)).json()["results_complete"] is False
    await api.post(f"{path}/cancel")
    assert (await reached(api, path))["results_complete"] is True
    assert await forms() == [("true", 1)] * 3

"""Tasks, batches and operations."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

from native.demo.tour import ENDED, Json, Tour, answer, until
from native.errors import DemoError

_BATCH_ITEMS = 2_000


async def task(tour: Tour) -> None:
    """One item, one result."""
    accepted = await tour.post("/v1/tasks", {"operation": "echo", "payload": {"say": "hello"}})
    state = await until(lambda: _ended(tour, f"/v1/tasks/{accepted['id']}"))
    tour.say(f"{state['status']}: {state['result']}")


async def steering(tour: Tour) -> None:
    """A task for later: found by its unique key, paused, moved to now, resumed, and followed by another."""
    body = {
        "operation": "echo",
        "payload": {"say": "later"},
        "delay_s": 3600,
        "unique": {"key": f"demo {tour.run}"},
        "on_finished": {"operation": "echo", "payload": {"say": "afterwards"}},
    }
    first, second = [await tour.post("/v1/tasks", body) for _ in range(2)]
    if first["id"] != second["id"]:
        raise DemoError("two tasks have the same unique key")
    path = f"/v1/tasks/{first['id']}"

    async def in_state(status: str) -> Json | None:
        state = await tour.get(path)
        return state if state["counts"] and state["status"] == status else None

    await until(lambda: in_state("queued"))
    answer(await tour.api.post(f"{path}/pause"))
    await until(lambda: in_state("paused"))
    answer(await tour.api.patch(path, json={"run_at": datetime.now(UTC).isoformat()}))
    answer(await tour.api.post(f"{path}/resume"))
    state = await until(lambda: _ended(tour, path))
    tour.say(f"{state['status']}: {state['result']}, an hour before its time")

    async def followed() -> Json | None:
        found = (await tour.get("/v1/tasks", limit="20"))["data"]
        of_this = [one for one in found if one["metadata"].get("finished_id") == first["id"]]
        return of_this[0] if of_this and of_this[0]["status"] in ENDED else None

    follower = await until(followed)
    tour.say(f"{follower['status']}: {follower['result']}")


async def bulk(tour: Tour) -> None:
    """Three tasks for later, counted and then cancelled by one call with the same filter."""
    began = datetime.now(UTC).isoformat()
    later = [{"operation": "echo", "payload": number, "delay_s": 3600} for number in range(3)]
    made = [(await tour.post("/v1/tasks", body))["id"] for body in later]
    chosen = {"created_after": began, "status": "queued"}

    async def known() -> Json | None:
        counted = await tour.api.post("/v1/tasks/cancel", params={**chosen, "dry_run": "true"})
        found = answer(counted)
        return found if found["matched"] >= len(made) else None

    counted = await until(known)
    done = answer(await tour.api.post("/v1/tasks/cancel", params=chosen))
    tour.say(f"{counted['matched']} matched the filter, {done['changed']} were cancelled")
    for task_id in made:
        await until(partial(_ended, tour, f"/v1/tasks/{task_id}"))


async def batch(tour: Tour) -> None:
    """Thousands of items in one call, each with a durable result."""
    items = [{"number": number} for number in range(_BATCH_ITEMS)]
    accepted = await tour.post("/v1/batches", {"operation": "echo", "items": items})
    with tour.progress("items") as progress:
        task = progress.add_task("", total=_BATCH_ITEMS)

        async def look() -> Json | None:
            seen = await tour.get(f"/v1/batches/{accepted['id']}")
            progress.update(task, completed=int((seen.get("counts") or {}).get("succeeded", 0)))
            return seen if seen["status"] in ENDED else None

        state = await until(look)
    if state["status"] != "completed":
        raise DemoError(f"the batch ended as {state['status']}")


async def limited(tour: Tour) -> None:
    """Thirty items with a limit: no more than ten begin within a second, however much capacity is free."""
    limit = {"items": 10, "per_s": 1}
    body = {"operation": "echo", "items": list(range(30)), "options": {"rate_limit": limit}}
    began = time.monotonic()
    accepted = await tour.post("/v1/batches", body)
    state = await until(lambda: _ended(tour, f"/v1/batches/{accepted['id']}"))
    tour.say(f"{state['status']} after {time.monotonic() - began:.1f} s")


async def indicators(tour: Tour) -> None:
    """Moving average and relative strength, computed on thirteen years of closes in separate processes."""
    items = [{"symbol": symbol, "indicators": ["sma:20", "rsi:14"]} for symbol in ("AAPL", "IBM", "MSFT")]
    accepted = await tour.post("/v1/batches", {"operation": "stock.indicators", "items": items})
    await until(lambda: _ended(tour, f"/v1/batches/{accepted['id']}"))
    for row in (await tour.get(f"/v1/batches/{accepted['id']}/results"))["data"]:
        values = {name: found["value"] for name, found in row["result"]["values"].items()}
        tour.say(f"{row['result']['symbol']} on {row['result']['as_of']}: {values}")


async def valuation(tour: Tour) -> None:
    """A portfolio across a stock split: each day is valued at its actual close, to the cent."""
    days = (("2005-02-25", "100"), ("2005-02-28", "200"))
    ibm = {"symbol": "IBM", "quantity": "12.5"}
    items = [
        {"date": day, "positions": [{"symbol": "AAPL", "quantity": shares}, ibm]} for day, shares in days
    ]
    accepted = await tour.post("/v1/batches", {"operation": "portfolio.valuation", "items": items})
    state = await until(lambda: _ended(tour, f"/v1/batches/{accepted['id']}"))
    if state["counts"]["succeeded"] != len(items):
        raise DemoError(f"the portfolios were not valued: {state['errors']}")
    for row in (await tour.get(f"/v1/batches/{accepted['id']}/results"))["data"]:
        held = ", ".join(f"{p['quantity']} {p['symbol']} at {p['price']}" for p in row["result"]["positions"])
        total = row["result"]["totals"][0]
        tour.say(f"{row['result']['date']}: {held} = {total['value']} {total['currency']}")


async def schedule(tour: Tour) -> None:
    """A task at half past nine in New York on weekdays, run once now, and its history."""
    body = {
        "name": f"demo {tour.run}",
        "cron": "30 9 * * MON-FRI",
        "time_zone": "America/New_York",
        "template": {"operation": "echo", "payload": {"say": "good morning"}},
    }
    made = await tour.post("/v1/schedules", body)
    path = f"/v1/schedules/{made['id']}"
    try:
        tour.say(f"due next (UTC): {', '.join(made['next_runs'][:3])}")
        run = answer(await tour.api.post(f"{path}/run"))

        async def in_history() -> Json | None:
            found: list[Json] = (await tour.get(f"{path}/runs", status="ended"))["data"]
            return found[0] if found and found[0]["id"] == run["id"] else None

        ended = await until(in_history)
        state = await tour.get(f"/v1/tasks/{run['id']}")
        tour.say(f"{ended['trigger']} run {ended['outcome']}: {state['result']}")
    finally:
        await tour.api.delete(path, headers={"If-Match": "*"})


async def _ended(tour: Tour, path: str) -> Json | None:
    state = await tour.get(path)
    return state if state["status"] in ENDED else None

"""Batches and tasks from the upload to the last result."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import orjson

from support.problems import assert_problem
from support.waiting import until

ENDED = ("completed", "failed", "cancelled", "expired")


async def ended(api: httpx.AsyncClient, batch_id: str, *, folder: str = "batches") -> dict[str, Any]:
    async def found() -> Any:
        batch = (await api.get(f"/v1/{folder}/{batch_id}")).json()
        return batch if batch["status"] in ENDED else None

    batch: dict[str, Any] = await until(found, timeout_s=60)
    return batch


async def lines(count: int) -> AsyncIterator[bytes]:
    for start in range(0, count, 250):
        yield b"".join(
            orjson.dumps({"custom_id": f"c{n}", "payload": {"n": n}}) + b"\n"
            for n in range(start, min(start + 250, count))
        )


async def test_an_upload_of_20000_lines_completes_in_input_order(api: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    accepted = await api.post(
        "/v1/batches", params={"operation": "echo"}, content=lines(20_000), headers=headers
    )
    assert accepted.status_code == 202, accepted.text
    batch = await ended(api, accepted.json()["id"])
    assert batch["status"] == "completed"
    assert batch["counts"] == {
        "total": 20_000,
        "pending": 0,
        "running": 0,
        "succeeded": 20_000,
        "failed": 0,
        "cancelled": 0,
        "skipped": 0,
    }
    answer = await api.get(f"/v1/batches/{batch['id']}/results", params={"format": "ndjson"})
    rows = [orjson.loads(line) for line in answer.content.splitlines()]
    assert [row["position"] for row in rows] == list(range(20_000))
    assert all(row["result"] == {"n": row["position"]} for row in rows)
    assert rows[777]["custom_id"] == "c777"


async def test_payloads_come_back_byte_for_byte(api: httpx.AsyncClient) -> None:
    written = '{"price" : 1.10, "all":[1e5, 10.00],"name":"\\u00e9"}'
    uploaded = await api.post(
        "/v1/batches?operation=echo",
        content=f'{{"payload": {written}}}\n{{"custom_id":"b","payload":{written}}}\n',
        headers={"content-type": "application/x-ndjson"},
    )
    posted = await api.post(
        "/v1/batches",
        content=f'{{"operation":"echo","items":[{written},{written}]}}',
        headers={"content-type": "application/json"},
    )
    for accepted in (uploaded, posted):
        await ended(api, accepted.json()["id"])
        results = await api.get(f"/v1/batches/{accepted.json()['id']}/results?format=ndjson")
        assert results.text.count(f'"result":{written}') == 2


async def test_indicators_are_computed_on_the_real_history(api: httpx.AsyncClient) -> None:
    items = [{"symbol": symbol, "indicators": ["sma:20", "rsi:14"]} for symbol in ("AAPL", "IBM", "NOPE")]
    accepted = await api.post("/v1/batches", json={"operation": "stock.indicators", "items": items})
    batch = await ended(api, accepted.json()["id"])
    rows = (await api.get(f"/v1/batches/{batch['id']}/results")).json()["data"]
    assert [row["status"] for row in rows] == ["succeeded", "succeeded", "failed"]
    # The mean of the last 20 closes of the shipped history, by hand.
    closes = (
        await api.get(
            "/v1/stocks/AAPL/bars", params={"start": "2013-01-01", "adjustment": "split", "limit": "100"}
        )
    ).json()["data"]
    mean = sum(bar["c"] for bar in closes[-20:]) / 20
    assert rows[0]["result"]["values"]["sma:20"]["value"] == round(mean, 6)
    assert rows[2]["error"]["code"] == "unknown-symbol"
    assert batch["errors"] == {"unknown-symbol": 1}


async def test_a_portfolio_is_valued_at_the_real_closes_of_a_day(api: httpx.AsyncClient) -> None:
    positions = [{"symbol": "AAPL", "quantity": "0.1"}, {"symbol": "ibm", "quantity": -2}]
    items = [
        {"positions": positions, "date": "2005-02-26"},
        {"positions": positions},
        {"positions": [*positions, {"symbol": "NOPE", "quantity": 1}]},
    ]
    accepted = await api.post("/v1/batches", json={"operation": "portfolio.valuation", "items": items})
    batch = await ended(api, accepted.json()["id"])
    rows = (await api.get(f"/v1/batches/{batch['id']}/results")).json()["data"]
    assert [row["status"] for row in rows] == ["succeeded", "succeeded", "failed"]
    bars = [
        (await api.get(f"/v1/stocks/{symbol}/bars?start=2005-02-25&end=2005-02-25")).json()["data"][0]["c"]
        for symbol in ("AAPL", "IBM")
    ]
    apple, ibm = (Decimal(str(close)) for close in bars)
    assert rows[0]["result"]["totals"] == [
        {"currency": "USD", "value": str(apple * Decimal("0.1") - 2 * ibm)}
    ]
    assert {position["as_of"] for position in rows[0]["result"]["positions"]} == {"2005-02-25"}
    assert rows[1]["result"]["positions"][0]["source"] == "replay"
    assert rows[2]["error"]["code"] == "unknown-symbol"


async def test_items_that_do_not_fit_their_operation_are_refused_by_every_interface(
    api: httpx.AsyncClient,
) -> None:
    bad, good = {"symbol": "IBM", "indicators": []}, {"symbol": "IBM", "indicators": ["sma:2"]}
    posted = await api.post("/v1/batches", json={"operation": "stock.indicators", "items": [good, bad]})
    assert_problem(posted, 422, "invalid-input")
    assert posted.json()["errors"][0]["pointer"] == "/items/1/indicators"
    lines = b"".join(orjson.dumps({"payload": payload}) + b"\n" for payload in (good, bad))
    headers = {"content-type": "application/x-ndjson"}
    url = "/v1/batches?operation=stock.indicators"
    for path in (url, f"{url}&validate=only"):
        uploaded = await api.post(path, content=lines, headers=headers)
        assert_problem(uploaded, 422, "invalid-input")
        assert uploaded.json()["errors"][0]["pointer"] == "/1/payload/indicators"
    opened = await api.post("/v1/batches?open=true", json={"operation": "stock.indicators"})
    path = f"/v1/batches/{opened.json()['id']}"
    appended = await api.put(f"{path}/items?offset=0", content=lines, headers=headers)
    assert appended.json()["errors"][0]["pointer"] == "/1/payload/indicators"
    assert (await api.post(f"{path}/cancel")).status_code == 202
    task = await api.post("/v1/tasks", json={"operation": "stock.indicators", "payload": bad})
    assert task.json()["errors"][0]["pointer"] == "/payload/indicators"


async def test_a_mail_merge_sends_one_mail_per_item(
    api: httpx.AsyncClient, mailbox: httpx.AsyncClient
) -> None:
    mark = uuid4().hex
    items = [{"to": [f"{mark}{n}@example.com"], "subject": mark, "text": f"number {n}"} for n in range(5)]
    accepted = await api.post("/v1/batches", json={"operation": "email.send", "items": items})
    batch = await ended(api, accepted.json()["id"])
    assert batch["counts"]["succeeded"] == 5

    async def all_arrived() -> bool:
        messages = (await mailbox.get("/api/v1/messages", params={"limit": 500})).json()["messages"]
        return [message["Subject"] for message in messages].count(mark) == 5

    await until(all_arrived, timeout_s=30)
    row = (await api.get(f"/v1/batches/{batch['id']}/results")).json()["data"][0]
    email = (await api.get(f"/v1/emails/{row['result']['email_id']}")).json()
    assert email["recipients"][0]["address"] == f"{mark}0@example.com"


async def test_a_task_answers_with_its_result(api: httpx.AsyncClient) -> None:
    accepted = await api.post("/v1/tasks", json={"operation": "echo", "payload": {"say": "hi"}})
    assert accepted.status_code == 202
    task = await ended(api, accepted.json()["id"], folder="tasks")
    assert (task["status"], task["result"]) == ("completed", {"say": "hi"})


async def test_the_same_unique_key_is_the_same_task(api: httpx.AsyncClient) -> None:
    wanted = {"operation": "echo", "payload": 1, "unique_key": str(uuid4())}
    ids = {(await api.post("/v1/tasks", json=wanted)).json()["id"] for _ in range(3)}
    assert len(ids) == 1


async def test_a_used_unique_key_returns_the_state_of_its_task(api: httpx.AsyncClient) -> None:
    wanted = {"operation": "echo", "payload": {"b": 1, "a": 2}, "unique_key": str(uuid4())}
    first = (await api.post("/v1/tasks", json=wanted)).json()
    await ended(api, first["id"], folder="tasks")
    again = await api.post("/v1/tasks", json={**wanted, "payload": {"a": 2, "b": 1}})
    assert again.json() == {"id": first["id"], "status": "completed", "next": None}


async def test_a_cancelled_batch_accounts_for_every_item(api: httpx.AsyncClient) -> None:
    items = [{"symbol": "AAPL", "indicators": ["rsi:14"], "series": True}] * 3000
    accepted = await api.post("/v1/batches", json={"operation": "stock.indicators", "items": items})
    batch_id = accepted.json()["id"]
    cancelled = await api.post(f"/v1/batches/{batch_id}/cancel")
    assert cancelled.status_code == 202
    batch = await ended(api, batch_id)
    counts = batch["counts"]
    assert batch["status"] == "cancelled"
    assert counts["cancelled"] > 0
    assert counts["succeeded"] + counts["failed"] + counts["cancelled"] == counts["total"] == 3000


async def test_progress_is_streamed_until_the_end(api: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    accepted = await api.post(
        "/v1/batches", params={"operation": "echo"}, content=lines(30_000), headers=headers
    )
    states = []
    async with api.stream("GET", f"/v1/batches/{accepted.json()['id']}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        async for line in events.aiter_lines():
            if line.startswith("data: "):
                states.append(orjson.loads(line.removeprefix("data: ")))
    assert states[-1]["status"] == "completed"
    assert states[-1]["counts"]["succeeded"] == 30_000


async def test_lists_hold_own_batches_only(api: httpx.AsyncClient, reader: httpx.AsyncClient) -> None:
    accepted = await api.post("/v1/batches", json={"operation": "echo", "items": [1]})

    async def newest() -> bool:
        own: list[dict[str, Any]] = (await api.get("/v1/batches")).json()["data"]
        return bool(own[0]["id"] == accepted.json()["id"])

    await until(newest)
    assert (await reader.get("/v1/batches")).json()["data"] == []


async def test_the_operations_are_described(api: httpx.AsyncClient) -> None:
    operations = {o["name"]: o for o in (await api.get("/v1/operations")).json()["data"]}
    assert operations.keys() >= {"echo", "stock.indicators", "email.send"}
    assert operations["stock.indicators"]["item_schema"]["required"] == ["symbol", "indicators"]

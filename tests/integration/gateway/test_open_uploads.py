"""Uploads in several requests: each continues where the last one ended, however that ended."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from contracts.batches import INTAKE
from gateway.batches import open_uploads, upload_claims
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

NDJSON = {"content-type": "application/x-ndjson"}


def lines(count: int, start: int = 0) -> bytes:
    return b"".join(b'{"custom_id":"%d","payload":%d}\n' % (n, n) for n in range(start, start + count))


async def opened(listener: RunningGateway, **about: Any) -> str:
    answer = await listener.api.post("/v1/batches?open=true", json={"operation": "echo", **about})
    assert (answer.status_code, answer.json()["status"]) == (202, "open"), answer.text
    return f"/v1/batches/{answer.json()['id']}"


async def append(listener: RunningGateway, path: str, offset: int, body: bytes, **headers: str) -> Any:
    where = f"{path}/items?offset={offset}"
    return await listener.api.put(where, content=body, headers={**NDJSON, **headers})


async def sent(house: House) -> list[dict[str, Any]]:
    """Return the messages of the intake up to the seal."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["_"]["type"] != "batch.seal.v1":
        found += await house.take(INTAKE)
    return found


async def test_an_upload_in_parts_cut_anywhere_becomes_one_batch(
    listener: RunningGateway, house: House
) -> None:
    await house.purge(INTAKE)
    follow = {"operation": "echo", "payload": {"n": 1}}
    path = await opened(listener, metadata={"order": "7"}, on_finished=follow)
    body = b"\xef\xbb\xbf\n" + lines(1200)
    places = [0, 1, 700, 7_000, 30_000, len(body) - 1]
    for start, stop in pairwise(places):
        part = body[start:stop]
        packed = {"content-encoding": "gzip"} if start == 700 else {}
        answer = await append(listener, path, start, gzip.compress(part) if packed else part, **packed)
        assert (answer.status_code, answer.json()["offset"]) == (200, stop), answer.text
    assert (await listener.api.get(f"{path}/upload")).json()["items"] == 1199
    key = {"Idempotency-Key": f'"{uuid4()}"'}
    sealed = await listener.api.post(f"{path}/seal", headers=key)
    assert (sealed.status_code, sealed.json()["status"], sealed.headers["location"]) == (202, "queued", path)
    assert (await listener.api.post(f"{path}/seal", headers=key)).headers["idempotent-replayed"] == "true"
    messages = await sent(house)
    appends = [message for message in messages if "offset" in message]
    create, seal = (message for message in messages if "offset" not in message)
    for message in (create, seal):
        assert (message["metadata"], message["on_finished"]["payload"]) == ({"order": "7"}, '{"n":1}')
    assert (seal["total"], "items" in create) == (1200, False)
    items = [(a["offset"] + n, item["payload"]) for a in appends for n, item in enumerate(a["items"])]
    assert items == [(n, n) for n in range(1200)]
    assert [number for a in appends for number in a["lines"]] == list(range(2, 1202))
    assert_problem(await append(listener, path, len(body), lines(1)), 409, "conflict")
    assert_problem(await listener.api.post(f"{path}/seal"), 409, "conflict")


async def test_the_offset_to_continue_from_is_returned_and_no_other_is_taken(
    listener: RunningGateway,
) -> None:
    path, body = await opened(listener), lines(3)
    assert (await append(listener, path, 0, body)).status_code == 200
    for offset in (0, len(body) + 1):
        refused = await append(listener, path, offset, body)
        assert_problem(refused, 409, "upload-offset-mismatch")
        assert refused.headers["upload-offset"] == str(len(body))


async def test_a_bad_line_keeps_the_lines_before_it_and_leaves_the_upload_open(
    listener: RunningGateway, house: House
) -> None:
    path = await opened(listener)
    good = lines(500)
    problem = assert_problem(
        await append(listener, path, 0, good + b"{broken\n"), 422, "invalid-input", "/500"
    )
    assert problem["detail"].startswith("Line 501 ")
    assert (await listener.api.get(f"{path}/upload")).json()["offset"] == len(good)
    assert (await append(listener, path, len(good), lines(1, 500))).json()["items"] == 501
    assert (await listener.api.post(f"{path}/seal")).status_code == 202


async def test_an_upload_whose_last_line_is_bad_or_that_is_empty_is_not_sealed(
    listener: RunningGateway,
) -> None:
    path = await opened(listener)
    assert_problem(await listener.api.post(f"{path}/seal"), 422, "invalid-input")
    assert (await append(listener, path, 0, b'{"payload":')).status_code == 200
    assert_problem(await listener.api.post(f"{path}/seal"), 422, "invalid-input", "/0")
    assert (await append(listener, path, 11, b"7}")).status_code == 200
    assert (await listener.api.post(f"{path}/seal")).status_code == 202


async def test_a_connection_that_is_cut_loses_nothing_that_was_acknowledged(
    listener: RunningGateway, house: House
) -> None:
    path, body = await opened(listener), lines(2000)
    host, port = listener.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"PUT {path}/items?offset=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {listener.admin_key}\r\n"
        f"content-type: application/x-ndjson\r\ncontent-length: {10 * len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()

    async def begun() -> bool:
        return bool(await house.depth(INTAKE) >= 3)

    await until(begun)
    # While it is written, nobody else appends or seals.
    assert_problem(await append(listener, path, 0, body), 409, "conflict")
    assert_problem(await listener.api.post(f"{path}/seal"), 409, "conflict")
    writer.transport.abort()

    async def freed() -> Any:
        reached = (await listener.api.get(f"{path}/upload")).json()["offset"]
        answer = await append(listener, path, reached, body[reached:])
        return answer.json() if answer.status_code == 200 else None

    assert (await until(freed))["items"] == 2000
    assert (await listener.api.post(f"{path}/seal")).status_code == 202


async def test_a_request_that_has_lost_the_upload_to_another_one_is_not_told_that_it_was_taken(
    listener: RunningGateway, house: House
) -> None:
    path, body = await opened(listener), lines(2000)
    host, port = listener.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"PUT {path}/items?offset=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {listener.admin_key}\r\n"
        f"content-type: application/x-ndjson\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body[:1000])
    taken = "UPDATE open_uploads SET writer = $2 WHERE batch_id = $1 AND writer IS NOT NULL RETURNING true"
    other = path.rpartition("/")[2], uuid4()
    await until(lambda: listener.database.fetchval(taken, *other))
    writer.write(body[1000:])
    assert (await reader.readline()).startswith(b"HTTP/1.1 409")
    writer.close()


async def test_a_request_keeps_the_upload_while_its_lines_arrive_slowly(
    listener: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_claims, "RENEW_EVERY_S", 0.01)
    path, body = await opened(listener), lines(3)
    host, port = listener.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"PUT {path}/items?offset=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {listener.admin_key}\r\n"
        f"content-type: application/x-ndjson\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body[:40])
    # As if its first lines had taken longer than a silent writer keeps the upload.
    older = (
        "UPDATE open_uploads SET appended_at = now() - interval '1 h'"
        " WHERE batch_id = $1 AND writer IS NOT NULL RETURNING true"
    )
    batch_id = path.rpartition("/")[2]
    await until(lambda: listener.database.fetchval(older, batch_id))
    renewed = "SELECT appended_at > now() - interval '1 min' FROM open_uploads WHERE batch_id = $1"
    await until(lambda: listener.database.fetchval(renewed, batch_id))
    assert_problem(await append(listener, path, 0, body), 409, "conflict")
    writer.write(body[40:])
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_an_upload_belongs_to_its_owner_and_ends_with_its_batch(listener: RunningGateway) -> None:
    path = await opened(listener)
    async with listener.client(await listener.new_key("batches:write", "batches:read")) as other:
        assert_problem(await other.get(f"{path}/upload"), 404, "not-found")
        strange = await other.put(f"{path}/items?offset=0", content=lines(1), headers=NDJSON)
        assert_problem(strange, 404, "not-found")
        assert_problem(await other.post(f"{path}/seal"), 404, "not-found")
    whole = await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})
    assert_problem(await listener.api.get(f"/v1/batches/{whole.json()['id']}/upload"), 409, "conflict")
    expired = "UPDATE acceptances SET status = 'expired', changed_at = $2 WHERE id = $1"
    await listener.database.execute(expired, path.rpartition("/")[2], datetime.now(UTC))
    assert_problem(await append(listener, path, 0, lines(1)), 409, "conflict")


async def test_an_owner_has_a_bounded_number_of_uploads_open_at_a_time(
    listener: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_uploads, "MOST_OPEN_OF_OWNER", 3)
    key = await listener.new_key("batches:write", user_id=await listener.new_user())
    wanted = "/v1/batches?open=true", {"operation": "echo"}
    async with listener.client(key) as client:
        answers = await asyncio.gather(*(client.post(wanted[0], json=wanted[1]) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 3
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert_problem(refused, 429, "too-many-at-once")
        accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        # One ends with its batch; another one was never accepted, as of a request that was repeated.
        await listener.database.execute(
            "UPDATE acceptances SET status = 'expired' WHERE id = $1", accepted[0]
        )
        await listener.database.execute(
            "WITH old AS (UPDATE open_uploads SET appended_at = now() - interval '6 minutes')"
            " DELETE FROM acceptances WHERE id = $1",
            accepted[1],
        )
        for status in (202, 202, 429):
            assert (await client.post(wanted[0], json=wanted[1])).status_code == status


async def test_all_parts_together_have_the_limit_of_an_upload(house: House) -> None:
    listener = await house.open(upload_limit_bytes=40_000)
    path, body = await opened(listener), lines(1000)
    assert (await append(listener, path, 0, body)).status_code == 200
    assert_problem(await append(listener, path, len(body), lines(1000, 1000)), 413, "payload-too-large")


async def test_a_validation_counts_the_items_that_would_be_accepted_and_stores_nothing(
    listener: RunningGateway, house: House
) -> None:
    await house.purge(INTAKE)
    document = {"operation": "echo", "items": [1, {"custom_id": "a", "payload": 2}]}
    checked = await listener.api.post("/v1/batches?validate=only", json=document)
    assert (checked.status_code, checked.json()) == (
        200,
        {"operation": "echo", "items": 2, "custom_ids_compared": True},
    )
    where = "/v1/batches?validate=only&operation=echo"
    upload = await listener.api.post(where, content=lines(700), headers=NDJSON)
    assert upload.json() == {"operation": "echo", "items": 700, "custom_ids_compared": False}
    assert_problem(await listener.api.post(where, content=b"x\n", headers=NDJSON), 422, "invalid-input", "/0")
    assert await house.depth(INTAKE) == 0


@pytest.mark.parametrize(
    ("query", "body", "pointer"),
    [
        ("open=true", {"operation": "echo", "items": [1]}, "/items"),
        ("open=false", {"operation": "echo"}, "/items"),
        ("open=true", {"operation": "echo", "source": {"batch_id": str(uuid4())}}, "/items"),
        ("open=1", {"operation": "echo"}, "/open"),
        ("open=true&validate=only", {"operation": "echo"}, "/validate"),
        ("validate=all", {"operation": "echo", "items": [1]}, "/validate"),
        ("priority=high", {"operation": "echo", "items": [1]}, "/priority"),
        ("metadata=%7B%7D", {"operation": "echo", "items": [1]}, "/metadata"),
        ("open=true", {"operation": "echo", "options": {"urgent": True}}, "/options/urgent"),
        ("open=false", {"operation": "echo", "items": [1], "options": [1]}, "/options"),
        ("open=true", {"operation": "echo", "options": {"max_concurrency": 0}}, "/options/max_concurrency"),
        (
            "open=false",
            {"operation": "echo", "items": [1], "options": {"rate_limit": {"items": 5, "per_s": 0}}},
            "/options/rate_limit/per_s",
        ),
    ],
)
async def test_parameters_that_contradict_each_other_are_refused(
    listener: RunningGateway, query: str, body: dict[str, Any], pointer: str
) -> None:
    assert_problem(await listener.api.post(f"/v1/batches?{query}", json=body), 422, "invalid-input", pointer)

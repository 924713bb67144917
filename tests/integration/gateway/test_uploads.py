"""NDJSON uploads over real connections: each is stored whole or not at all, however it ends."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiormq
import pytest
from aiormq.abc import DeliveredMessage

from contracts.batches import INTAKE
from gateway.batches import upload_claims
from gateway.batches.backlog import MOST_QUEUED
from gateway.batches.upload_turns import MOST_OF_AN_OWNER
from gateway.http import permitted
from native.rabbitmq import VHOST, RabbitMQ
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

NDJSON = {"content-type": "application/x-ndjson"}
PATH = "/v1/batches?operation=echo"


def lines(count: int, start: int = 0) -> bytes:
    return b"".join(b'{"custom_id":"%d","payload":%d}\n' % (n, n) for n in range(start, start + count))


async def taken(house: House, last: str) -> list[dict[str, Any]]:
    """Return the messages of the intake up to one of the type `last`."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["_"]["type"] != last:
        found += await house.take("batch-processor.intake")
    return found


async def accepted(listener: RunningGateway) -> int:
    return int(await listener.database.fetchval("SELECT count(*) FROM acceptances WHERE kind = 'batch'"))


async def test_an_upload_becomes_runs_of_items_and_a_seal(listener: RunningGateway, house: House) -> None:
    answer = await listener.api.post(f"{PATH}&priority=low", content=lines(1234), headers=NDJSON)
    assert answer.status_code == 202
    *appends, seal = await taken(house, "batch.seal.v1")
    assert seal["options"] == {"priority": "low"}
    assert {message["batch_id"] for message in (*appends, seal)} == {answer.json()["id"]}
    assert [(append["offset"], len(append["items"])) for append in appends] == [
        (0, 500),
        (500, 500),
        (1000, 234),
    ]
    assert (seal["total"], seal["operation"]) == (1234, "echo")
    items = [item for append in appends for item in append["items"]]
    assert items[777] == {"custom_id": "777", "payload": 777}


async def test_the_query_of_an_upload_takes_every_field_that_a_json_body_has_beside_its_items(
    listener: RunningGateway, house: House
) -> None:
    """The follow-up has its payload byte for byte, as in a body."""
    options = {"priority": "high", "max_concurrency": 4, "rate_limit": {"items": 200, "per_s": 60},
               "tolerated_failure": {"percent": 5}}  # fmt: skip
    query = {
        "operation": "echo",
        "options": json.dumps(options),
        "metadata": '{"report":"weekly"}',
        "expires_at": "2099-01-01T00:00:00Z",
        "on_finished": '{"operation": "echo", "payload": 1.10}',
    }
    tried = await listener.api.post(
        "/v1/batches", params={**query, "validate": "only"}, content=lines(3), headers=NDJSON
    )
    assert tried.json()["items"] == 3
    answer = await listener.api.post("/v1/batches", params=query, content=lines(3), headers=NDJSON)
    assert answer.status_code == 202, answer.text
    *_, seal = await taken(house, "batch.seal.v1")
    assert (seal["batch_id"], seal["options"]) == (answer.json()["id"], options)
    assert seal["metadata"] == {"report": "weekly"}
    assert seal["expires_at"].startswith("2099-01-01T00:00:00")
    assert seal["on_finished"] == {"operation": "echo", "payload": "1.10"}


@pytest.mark.parametrize(
    ("name", "value", "pointer"),
    [
        ("options", '{"max_concurrency":0}', "/options/max_concurrency"),
        ("options", '{"max_concurrency":"4"}', "/options/max_concurrency"),
        ("options", '{"urgent":true}', "/options/urgent"),
        ("options", '{"priority":"low","priority":"high"}', "/options"),
        ("options", "priority=high", "/options"),
        ("options", "[]", "/options"),
        ("metadata", '{"n":1}', "/metadata/n"),
        ("expires_at", "tomorrow", "/expires_at"),
        ("on_finished", '{"payload":1}', "/on_finished/operation"),
        ("rate_limit", "200/60", "/rate_limit"),
    ],
)
async def test_errors_in_the_query_of_an_upload_are_named(
    listener: RunningGateway, house: House, name: str, value: str, pointer: str
) -> None:
    params = {"operation": "echo", name: value}
    answer = await listener.api.post("/v1/batches", params=params, content=lines(3), headers=NDJSON)
    assert_problem(answer, 422, "invalid-input", pointer)
    assert await house.depth(INTAKE) == 0


async def test_the_priority_of_an_upload_is_refused_when_it_is_given_twice(listener: RunningGateway) -> None:
    params = {"operation": "echo", "priority": "low", "options": "{}"}
    answer = await listener.api.post("/v1/batches", params=params, content=lines(3), headers=NDJSON)
    assert_problem(answer, 422, "invalid-input", "/priority")


async def test_a_gzip_upload_is_unpacked_and_named_by_its_lines(
    listener: RunningGateway, house: House
) -> None:
    packed = gzip.compress(b"\xef\xbb\xbf\r\n" + lines(600))
    headers = {**NDJSON, "content-encoding": "gzip", "idempotency-key": f"packed-{uuid4()}"}
    answer = await listener.api.post(PATH, content=packed, headers=headers)
    assert answer.status_code == 202
    *appends, seal = await taken(house, "batch.seal.v1")
    assert seal["total"] == 600
    assert [item["custom_id"] for append in appends for item in append["items"]] == [
        str(n) for n in range(600)
    ]
    assert [append["lines"][0] for append in appends] == [2, 502]
    again = await listener.api.post(PATH, content=packed, headers=headers)
    assert (again.json(), again.headers["idempotent-replayed"]) == (answer.json(), "true")


async def test_an_upload_of_bad_lines_lists_them_and_one_of_bad_gzip_is_refused(
    listener: RunningGateway, house: House
) -> None:
    body = lines(3) + b'{"payload":1,"custom_id":7}\n' + lines(2) + b"nothing\n"
    problem = assert_problem(
        await listener.api.post(PATH, content=body, headers=NDJSON), 422, "invalid-input"
    )
    assert [error["pointer"] for error in problem["errors"]] == ["/3/custom_id", "/6"]
    headers = {**NDJSON, "content-encoding": "gzip"}
    for broken in (body, gzip.compress(body)[:-5]):
        assert_problem(await listener.api.post(PATH, content=broken, headers=headers), 422, "invalid-input")
    other = await listener.api.post(PATH, content=body, headers={**NDJSON, "content-encoding": "br"})
    assert_problem(other, 415, "unsupported-media-type")
    assert other.headers["accept-encoding"] == "identity, gzip"
    await house.purge(INTAKE)


async def test_a_broken_line_at_5000_leaves_nothing(listener: RunningGateway, house: House) -> None:
    before = await accepted(listener)
    body = lines(4999) + b"{broken}\n" + lines(3000, start=5000)
    answer = await listener.api.post(PATH, content=body, headers=NDJSON)
    problem = assert_problem(answer, 422, "invalid-input", "/4999")
    assert problem["detail"].startswith("Line 5000 ")
    messages = await taken(house, "batch.abandon.v1")
    assert len({message["batch_id"] for message in messages}) == 1
    assert "batch.seal.v1" not in {message["_"]["type"] for message in messages}
    assert await accepted(listener) == before


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing(
    listener: RunningGateway, house: House
) -> None:
    before = await accepted(listener)
    host, port = listener.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = lines(2000)
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {listener.admin_key}\r\n"
        "content-type: application/x-ndjson\r\nidempotency-key: leaving\r\n"
        f"content-length: {10 * len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    await until(lambda: _has_items(house))
    writer.transport.abort()
    messages = await taken(house, "batch.abandon.v1")
    assert messages[-1]["_"]["type"] == "batch.abandon.v1"
    assert await accepted(listener) == before
    again = await listener.api.post(PATH, content=body, headers={**NDJSON, "idempotency-key": "leaving"})
    assert (again.status_code, again.headers.get("idempotent-replayed")) == (202, None)


async def _has_items(house: House) -> bool:
    return bool(await house.depth("batch-processor.intake") >= 3)


async def test_an_upload_keeps_its_idempotency_key_while_its_lines_arrive_slowly(
    listener: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_claims, "RENEW_EVERY_S", 0.01)
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield lines(2)
        await go_on.wait()
        yield lines(1, 2)

    headers = {**NDJSON, "Idempotency-Key": f'"{uuid4()}"'}
    first = asyncio.create_task(listener.api.post(PATH, content=body(), headers=headers))
    # As if its first lines had taken longer than a claim of a dead gateway lasts.
    older = "UPDATE idempotency SET created_at = now() - interval '1 h' WHERE status IS NULL RETURNING true"
    await until(lambda: listener.database.fetchval(older))
    renewed = "SELECT created_at > now() - interval '1 min' FROM idempotency WHERE status IS NULL"
    await until(lambda: listener.database.fetchval(renewed))
    second = await listener.api.post(PATH, content=lines(3), headers=headers)
    assert_problem(second, 409, "idempotency-running")
    go_on.set()
    assert (await first).status_code == 202
    repeated = await listener.api.post(PATH, content=lines(3), headers=headers)
    assert repeated.headers["idempotent-replayed"] == "true"


async def test_an_upload_whose_key_was_revoked_before_its_end_leaves_nothing(
    listener: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permitted, "CHECK_EVERY_S", 0.0)
    before, key = await accepted(listener), await listener.new_key("batches:write")

    async def body() -> AsyncIterator[bytes]:
        yield lines(3)
        await until(lambda: listener.gateway.resources.upload_turns.at_work)
        await listener.api.delete(f"/v1/api-keys/{key[8:24]}")

    async with listener.client(key) as client:
        assert_problem(await client.post(PATH, content=body(), headers=NDJSON), 401, "unauthenticated")
    assert await accepted(listener) == before


async def test_an_upload_over_the_limit_is_413_by_its_length_and_by_counting(house: House) -> None:
    listener = await house.open(upload_limit_bytes=200_000)
    await house.purge("batch-processor.intake")
    declared = await listener.api.post(PATH, content=lines(20_000), headers=NDJSON)
    assert_problem(declared, 413, "payload-too-large")

    async def without_length() -> Any:
        for start in range(0, 20_000, 1000):
            yield lines(1000, start)

    counted = await listener.api.post(PATH, content=without_length(), headers=NDJSON)
    assert_problem(counted, 413, "payload-too-large")
    messages = await taken(house, "batch.abandon.v1")
    assert "batch.seal.v1" not in {message["_"]["type"] for message in messages}
    assert await accepted(listener) == 0
    exact = lines(500)
    fits = await house.open(upload_limit_bytes=len(exact) + 1024)
    assert (await fits.api.post(PATH, content=exact, headers=NDJSON)).status_code == 202


async def test_a_json_batch_over_one_mib_is_413(listener: RunningGateway) -> None:
    body = b'{"operation":"echo","items":["' + b"x" * (1 << 20) + b'"]}'
    answer = await listener.api.post(
        "/v1/batches", content=body, headers={"content-type": "application/json"}
    )
    assert_problem(answer, 413, "payload-too-large")


@pytest.mark.parametrize(
    "query", ["", "?operation=", "?operation=Not%20One", "?operation=%00", "?operation=a&x=1"]
)
async def test_the_operation_is_named_in_the_query(listener: RunningGateway, query: str) -> None:
    assert_problem(
        await listener.api.post(f"/v1/batches{query}", content=lines(1), headers=NDJSON), 422, "invalid-input"
    )


async def test_without_the_broker_an_upload_is_503_and_leaves_nothing(house: House) -> None:
    gate = await house.gate(*house.broker_place)
    listener = await house.open(rabbitmq_url=house.broker_url_by(gate))
    await gate.shut()
    answer = await listener.api.post(PATH, content=lines(3000), headers={**NDJSON, "idempotency-key": "away"})
    assert_problem(answer, 503, "broker-unavailable")
    assert await accepted(listener) == 0
    assert await listener.database.fetchval("SELECT count(*) FROM idempotency") == 0
    outbox = await listener.database.fetch("SELECT message_type FROM outbox")
    assert [row["message_type"] for row in outbox] == ["batch.abandon.v1"]


async def test_an_upload_goes_no_faster_than_batch_processor_takes_its_items(
    listener: RunningGateway, house: House
) -> None:
    await house.purge(INTAKE)
    connection = await aiormq.connect(house.rabbitmq_url)
    channel = await connection.channel()

    async def take(message: DeliveredMessage) -> None:
        await asyncio.sleep(0.01)
        await channel.basic_ack(message.delivery_tag or 0)

    await channel.basic_qos(prefetch_count=1)
    await channel.basic_consume(INTAKE, take)
    upload = asyncio.create_task(listener.api.post(PATH, content=lines(50_000), headers=NDJSON))
    depths = [0]
    while not upload.done():
        depths.append(await house.depth(INTAKE))
    assert (await upload).status_code == 202
    # One more for the seal, which waits for nothing.
    assert 8 < max(depths) <= MOST_QUEUED + 2
    await connection.close()
    await house.purge(INTAKE)


async def test_into_a_full_queue_an_upload_is_503_and_can_be_repeated(
    listener: RunningGateway, house: House, rabbitmq_server: RabbitMQ
) -> None:
    before, headers = await accepted(listener), {**NDJSON, "idempotency-key": "into-a-full-queue"}
    assert (await listener.api.post(PATH, content=lines(3000), headers=NDJSON)).status_code == 202
    await until(lambda: _has_items(house))
    async with _full(rabbitmq_server, INTAKE):
        for _ in range(2):
            refused = await listener.api.post(PATH, content=lines(3000), headers=headers)
            assert_problem(refused, 503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
    assert await accepted(listener) == before + 1
    await house.purge(INTAKE)
    first = await listener.api.post(PATH, content=lines(3000), headers=headers)
    again = await listener.api.post(PATH, content=lines(3000), headers=headers)
    assert (first.status_code, first.headers.get("idempotent-replayed")) == (202, None)
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    assert await accepted(listener) == before + 2
    messages = await taken(house, "batch.seal.v1")
    items = [
        m["custom_id"] for a in messages if a["batch_id"] == first.json()["id"] for m in a.get("items", ())
    ]
    assert items == [str(number) for number in range(3000)]
    # What was begun in vain is taken back.
    await until(lambda: _is_sent(listener))


@asynccontextmanager
async def _full(server: RabbitMQ, queue: str) -> AsyncIterator[None]:
    """Let the queue refuse messages for the length of the block."""
    limit = '{"max-length":1,"overflow":"reject-publish"}'
    words = ("--vhost", VHOST, "--priority", "99", "--apply-to", "queues", "full", f"^{queue}$", limit)
    await server.control("set_policy", *words)
    try:
        await until(lambda: _refuses(server.url, queue))
        yield
    finally:
        await server.control("clear_policy", "--vhost", VHOST, "full")


async def _refuses(url: str, queue: str) -> bool:
    connection = await aiormq.connect(url)
    try:
        await (await connection.channel()).basic_publish(b"one more", routing_key=queue)
    except aiormq.exceptions.DeliveryError:
        return True
    finally:
        await connection.close()
    return False


async def _is_sent(listener: RunningGateway) -> bool:
    return bool(await listener.database.fetchval("SELECT count(*) FROM outbox") == 0)


async def test_every_item_of_a_large_upload_is_passed_on(listener: RunningGateway, house: House) -> None:
    count = 60_000

    async def body() -> Any:
        for start in range(0, count, 2000):
            yield lines(2000, start)

    answer = await listener.api.post(PATH, content=body(), headers=NDJSON)
    assert answer.status_code == 202
    *appends, seal = await taken(house, "batch.seal.v1")
    assert (seal["total"], sum(len(append["items"]) for append in appends)) == (count, count)


async def test_the_concurrent_uploads_of_an_owner_are_limited(listener: RunningGateway) -> None:
    go_on, turns = asyncio.Event(), listener.gateway.resources.upload_turns

    async def slow() -> AsyncIterator[bytes]:
        yield lines(1)
        await go_on.wait()

    coming = [
        asyncio.create_task(listener.api.post(PATH, content=slow(), headers=NDJSON))
        for _ in range(MOST_OF_AN_OWNER)
    ]
    try:
        await until(lambda: turns.at_work == MOST_OF_AN_OWNER)
        for path in (PATH, f"{PATH}&validate=only"):
            assert_problem(
                await listener.api.post(path, content=lines(1), headers=NDJSON), 429, "too-many-at-once"
            )
        async with listener.client(await listener.new_key("batches:write")) as other:
            assert (await other.post(PATH, content=lines(1), headers=NDJSON)).status_code == 202
    finally:
        # Also when it fails: requests that nobody waits for would be told of by the garbage of a later test.
        go_on.set()
        answers = await asyncio.gather(*coming)
    assert {answer.status_code for answer in answers} == {202}

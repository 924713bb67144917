"""The same key and body give the same answer, once; anything else is refused or counts as new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until

MAIL = {"to": ["ann@example.com"], "subject": "Hello", "text": "How are you?"}
BATCH = {"operation": "echo", "items": [1, 2, 3]}
NDJSON = {"content-type": "application/x-ndjson"}
LINES = b"".join(b'{"payload":%d}\n' % number for number in range(700))
SHORT_MAIL = {"to": "ann@example.com", "subject": "s", "body": "b"}


def key(text: str | None = None) -> dict[str, str]:
    return {"idempotency-key": text or f'"{uuid4()}"'}


async def accepted_ids(listener: RunningGateway) -> set[str]:
    return {str(row["id"]) for row in await listener.database.fetch("SELECT id FROM acceptances")}


@asynccontextmanager
async def only_operation(listener: RunningGateway, name: str) -> AsyncIterator[None]:
    """Announce an operation, and no other, for the block."""
    await listener.database.execute(
        "INSERT INTO operations (name, description, item_schema, required_scopes)"
        " VALUES ($1, 'For the tests.', '{}', '{}')",
        name,
    )
    try:
        yield
    finally:
        await listener.database.execute("DELETE FROM operations")
        await listener.api.get("/v1/operations")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/emails", MAIL),
        ("/v1/batches", BATCH),
        ("/v1/tasks", {"operation": "echo", "payload": 1}),
        ("/send-email", SHORT_MAIL),
        ("/process-batch", {"batches": [1]}),
        ("/process-data", {"items": [1]}),
        ("/enqueue-task", {"a": 1}),
    ],
)
async def test_the_same_request_again_gets_the_same_answer(
    listener: RunningGateway, path: str, body: Any
) -> None:
    headers = key()
    first = await listener.api.post(path, json=body, headers=headers)
    again = await listener.api.post(path, json=body, headers=headers)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.headers["location"] == again.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = await listener.api.post(path, content=b" " + again.request.content, headers={**headers, **JSON})
    assert_problem(other, 422, "idempotency-mismatch")


JSON = {"content-type": "application/json"}


async def test_twenty_equal_requests_at_once_are_one_acceptance(
    listener: RunningGateway, house: House
) -> None:
    before = await accepted_ids(listener)
    headers = key()
    answers = await asyncio.gather(
        *(listener.api.post("/v1/emails", json=MAIL, headers=headers) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len(await accepted_ids(listener) - before) == 1
    await house.take("email.send", 1)
    assert await house.depth("email.send") == 0


async def test_a_key_with_another_body_or_path_is_refused(listener: RunningGateway) -> None:
    headers = key()
    assert (await listener.api.post("/v1/emails", json=MAIL, headers=headers)).status_code == 202
    other = await listener.api.post("/v1/emails", json={**MAIL, "subject": "x"}, headers=headers)
    assert_problem(other, 422, "idempotency-mismatch")
    assert_problem(
        await listener.api.post("/v1/batches", json=BATCH, headers=headers), 422, "idempotency-mismatch"
    )


async def test_an_accepted_batch_is_answered_again_when_its_source_runs_again(
    listener: RunningGateway,
) -> None:
    source = (await listener.api.post("/v1/batches", json=BATCH)).json()["id"]
    body = {"operation": "echo", "source": {"batch_id": source}}
    status = "UPDATE acceptances SET status = $2 WHERE id = $1"
    await listener.database.execute(status, UUID(source), "completed")
    headers = key()
    first = await listener.api.post("/v1/batches", json=body, headers=headers)
    assert first.status_code == 202, first.text
    await listener.database.execute(status, UUID(source), "running")
    again = await listener.api.post("/v1/batches", json=body, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    for other, others in ((body, key()), ({**body, "metadata": {}}, headers)):
        assert_problem(await listener.api.post("/v1/batches", json=other, headers=others), 409, "conflict")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tasks", {"operation": "echo", "payload": 1}),
        ("/process-batch", {"batches": [1]}),
        ("/process-data", {"items": [1]}),
        ("/enqueue-task", {"a": 1}),
        ("/v1/batches?operation=echo", LINES),
    ],
)
async def test_accepted_work_is_answered_again_when_its_operation_is_gone(
    listener: RunningGateway, path: str, body: Any
) -> None:
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
    kind = NDJSON if isinstance(body, bytes) else {}
    headers = {**kind, **key()}
    first = await listener.api.post(path, **sent, headers=headers)
    assert first.status_code == 202, first.text
    async with only_operation(listener, "other"):
        fresh = await listener.api.post(path, **sent, headers={**kind, **key()})
        assert_problem(fresh, 422, "unknown-operation")
        again = await listener.api.post(path, **sent, headers=headers)
        assert (again.status_code, again.json()) == (202, first.json())
        assert again.headers["idempotent-replayed"] == "true"


async def test_another_upload_is_not_taken_for_one_that_was_accepted_when_its_operation_is_gone(
    listener: RunningGateway,
) -> None:
    path, headers = "/v1/batches?operation=echo", {**NDJSON, **key()}
    assert (await listener.api.post(path, content=LINES, headers=headers)).status_code == 202
    async with only_operation(listener, "other"):
        other = await listener.api.post(path, content=LINES + LINES, headers=headers)
        assert_problem(other, 422, "idempotency-mismatch")


async def test_the_quoted_and_the_bare_form_are_the_same_key(listener: RunningGateway) -> None:
    name = str(uuid4())
    first = await listener.api.post("/v1/emails", json=MAIL, headers=key(name))
    again = await listener.api.post("/v1/emails", json=MAIL, headers=key(f'"{name}"'))
    assert first.json() == again.json()


@pytest.mark.parametrize("bad", ['""', '"open', "two words", "x" * 256])
async def test_a_malformed_key_is_refused_everywhere(listener: RunningGateway, bad: str) -> None:
    for path, body in (("/v1/emails", MAIL), ("/v1/batches", BATCH), ("/send-email", SHORT_MAIL)):
        assert_problem(await listener.api.post(path, json=body, headers=key(bad)), 422, "invalid-input")
    upload = await listener.api.post(
        "/v1/batches?operation=echo", content=LINES, headers={**NDJSON, **key(bad)}
    )
    assert_problem(upload, 422, "invalid-input")


async def test_another_owner_may_use_the_same_key(listener: RunningGateway) -> None:
    headers = key()
    mine = await listener.api.post("/v1/emails", json=MAIL, headers=headers)
    async with listener.client(await listener.new_key("emails:send")) as client:
        theirs = await client.post("/v1/emails", json={**MAIL, "subject": "other"}, headers=headers)
    assert theirs.status_code == 202
    assert mine.json() != theirs.json()


async def test_a_refused_request_does_not_use_its_key_up(listener: RunningGateway) -> None:
    headers = key()
    wrong = await listener.api.post("/v1/emails", json={**MAIL, "to": ["nope"]}, headers=headers)
    assert_problem(wrong, 422, "invalid-input", "/to/0")
    assert (await listener.api.post("/v1/emails", json=MAIL, headers=headers)).status_code == 202


async def test_after_24_hours_the_key_is_free(listener: RunningGateway) -> None:
    headers = key("day-old")
    first = await listener.api.post("/v1/emails", json=MAIL, headers=headers)
    await listener.database.execute(
        "UPDATE idempotency SET created_at = now() - interval '24 hours 1 second' WHERE key = 'day-old'"
    )
    second = await listener.api.post("/v1/emails", json={**MAIL, "subject": "x"}, headers=headers)
    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]


async def test_old_records_are_removed(listener: RunningGateway) -> None:
    await listener.api.post("/v1/emails", json=MAIL, headers=key("forgotten"))
    await listener.api.post("/v1/emails", json=MAIL, headers=key("remembered"))
    await listener.database.execute(
        "UPDATE idempotency SET created_at = now() - interval '25 hours' WHERE key = 'forgotten'"
    )
    await listener.gateway.resources.acceptor.remove_old()
    rows = await listener.database.fetch(
        "SELECT key FROM idempotency WHERE key IN ('forgotten', 'remembered')"
    )
    assert [row["key"] for row in rows] == ["remembered"]


async def test_no_rate_of_keys_is_too_high_for_the_removal_of_old_records(listener: RunningGateway) -> None:
    await listener.database.execute(
        "INSERT INTO idempotency (owner_id, key, body_hash, created_at)"
        " SELECT '1', 'many-' || n, '', now() - interval '25 hours' FROM generate_series(1, 5500) AS n"
    )
    await listener.gateway.resources.acceptor.remove_old()
    assert await listener.database.fetchval("SELECT count(*) FROM idempotency WHERE key LIKE 'many-%'") == 0


async def test_a_record_that_is_in_use_is_left_and_delays_no_other(listener: RunningGateway) -> None:
    await listener.database.execute(
        "INSERT INTO idempotency (owner_id, key, body_hash, created_at)"
        " SELECT '1', key, '', now() - interval '25 hours' FROM unnest('{held,free}'::text[]) AS key"
    )
    async with listener.database.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM idempotency WHERE key = 'held' FOR UPDATE")
        async with asyncio.timeout(5):
            await listener.gateway.resources.acceptor.remove_old()
    rows = await listener.database.fetch("SELECT key FROM idempotency WHERE key IN ('held', 'free')")
    assert [row["key"] for row in rows] == ["held"]


async def test_work_that_ended_long_ago_is_forgotten_and_open_work_is_not(listener: RunningGateway) -> None:
    await listener.database.execute(
        "INSERT INTO acceptances (id, owner_id, kind, status, accepted_at, changed_at)"
        " SELECT gen_random_uuid(), 'old', 'email', CASE n % 10 WHEN 0 THEN 'queued' ELSE 'delivered' END,"
        " now() - interval '100 days', now() - make_interval(days => CASE n % 2 WHEN 0 THEN 91 ELSE 89 END)"
        " FROM generate_series(1, 5000) AS n"
    )
    await listener.gateway.resources.acceptor.remove_old()
    rows = await listener.database.fetch(
        "SELECT status, changed_at < now() - interval '90 days' AS is_old, count(*) FROM acceptances"
        " WHERE owner_id = 'old' GROUP BY 1, 2"
    )
    assert {(row["status"], row["is_old"]): row["count"] for row in rows} == {
        ("queued", True): 500,
        ("delivered", False): 2500,
    }


async def test_an_upload_again_gets_the_same_answer_and_runs_once(
    listener: RunningGateway, house: House
) -> None:
    headers = {**NDJSON, **key()}
    first = await listener.api.post("/v1/batches?operation=echo", content=LINES, headers=headers)
    again = await listener.api.post("/v1/batches?operation=echo", content=LINES, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    messages = await house.take("batch-processor.intake", 3)
    assert sorted(message["_"]["type"] for message in messages) == [
        "batch.append.v1",
        "batch.append.v1",
        "batch.seal.v1",
    ]
    assert await house.depth("batch-processor.intake") == 0


async def test_an_upload_of_something_else_under_the_same_key_is_refused(listener: RunningGateway) -> None:
    headers = {**NDJSON, **key()}
    assert (
        await listener.api.post("/v1/batches?operation=echo", content=LINES, headers=headers)
    ).status_code == 202
    other = await listener.api.post(
        "/v1/batches?operation=echo", content=LINES + b'{"payload":1}', headers=headers
    )
    assert_problem(other, 422, "idempotency-mismatch")
    elsewhere = await listener.api.post("/v1/batches?operation=sleep", content=LINES, headers=headers)
    assert_problem(elsewhere, 422, "idempotency-mismatch")


async def test_a_failed_upload_gives_its_key_back(listener: RunningGateway) -> None:
    headers = {**NDJSON, **key()}
    broken = await listener.api.post(
        "/v1/batches?operation=echo", content=LINES + b"{broken", headers=headers
    )
    assert_problem(broken, 422, "invalid-input", "/700")
    again = await listener.api.post("/v1/batches?operation=echo", content=LINES, headers=headers)
    assert (again.status_code, again.headers.get("idempotent-replayed")) == (202, None)


async def test_while_an_upload_runs_its_key_is_409_and_other_keys_are_free(listener: RunningGateway) -> None:
    headers, go = {**NDJSON, **key("running")}, asyncio.Event()

    async def slowly() -> Any:
        yield LINES
        await go.wait()
        yield b'{"payload":"last"}\n'

    running = asyncio.create_task(
        listener.api.post("/v1/batches?operation=echo", content=slowly(), headers=headers)
    )
    claimed = "SELECT count(*) FROM idempotency WHERE key = 'running' AND status IS NULL"
    await until(lambda: listener.database.fetchval(claimed))
    refused = await listener.api.post("/v1/batches?operation=echo", content=LINES, headers=headers)
    assert_problem(refused, 409, "idempotency-running")
    assert int(refused.headers["retry-after"]) >= 1
    json_too = await listener.api.post("/v1/batches", json=BATCH, headers=key("running"))
    assert_problem(json_too, 409, "idempotency-running")
    async with listener.client(await listener.new_key("batches:write")) as client:
        theirs = await client.post("/v1/batches?operation=echo", content=LINES, headers=headers)
    assert theirs.status_code == 202
    go.set()
    assert (await running).status_code == 202


async def test_the_key_of_a_gateway_that_died_is_free_after_five_minutes(listener: RunningGateway) -> None:
    await listener.database.execute(
        "INSERT INTO idempotency (owner_id, key, body_hash, created_at)"
        " SELECT '1', name, 'x', now() - age FROM"
        " (VALUES ('alive', interval '4 minutes'), ('dead', interval '6 minutes')) AS claims (name, age)"
    )
    for name, status in (("alive", 409), ("dead", 202)):
        headers = {**NDJSON, **key(name)}
        answer = await listener.api.post("/v1/batches?operation=echo", content=LINES, headers=headers)
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/rooms", {"name": "made-once"}, 201),
        ("/v1/rooms/lobby/messages", {"text": "said once"}, 201),
        ("/v1/users", {"name": "Once", "email": "once@example.com"}, 201),
    ],
)
async def test_an_effect_in_the_database_happens_once_for_a_key(
    listener: RunningGateway, path: str, body: Any, status: int
) -> None:
    headers = key(f"once{path}")
    first = await listener.api.post(path, json=body, headers=headers)
    again = await listener.api.post(path, json=body, headers=headers)
    assert (first.status_code, again.status_code) == (status, status), first.text
    assert again.content == first.content
    for name in ("location", "etag"):
        assert again.headers.get(name) == first.headers.get(name)
    assert ("etag" in first.headers) is (path == "/v1/users")
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    other = await listener.api.post(path, json={**body, "name": "other", "text": "other"}, headers=headers)
    assert other.status_code == 422


async def test_requests_with_one_key_at_the_same_time_have_one_effect(listener: RunningGateway) -> None:
    headers = key("at-the-same-time")
    body = {"text": "said once by eight"}
    answers = await asyncio.gather(
        *(listener.api.post("/v1/rooms/lobby/messages", json=body, headers=headers) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["offset"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


async def test_a_request_that_failed_leaves_its_key_free(listener: RunningGateway) -> None:
    headers = key("failed-first")
    missing = await listener.api.post("/v1/rooms/none/messages", json={"text": "x"}, headers=headers)
    assert_problem(missing, 404, "not-found")
    again = await listener.api.post("/v1/rooms/none/messages", json={"text": "x"}, headers=headers)
    assert_problem(again, 404, "not-found")


async def test_a_task_known_by_its_unique_key_records_the_key_of_the_request(
    listener: RunningGateway,
) -> None:
    task = {"operation": "echo", "payload": 1, "unique_key": f"unique-{uuid4()}"}
    first = await listener.api.post("/v1/tasks", json=task)
    again = await listener.api.post("/v1/tasks", json=task, headers=key("of-the-task"))
    assert (first.status_code, again.json()["id"]) == (202, first.json()["id"])
    other = await listener.api.post("/v1/tasks", json={**task, "payload": 2}, headers=key("of-the-task"))
    assert_problem(other, 422, "idempotency-mismatch")

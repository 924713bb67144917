"""Unique keys of tasks: who holds one, for how long, and what happens to the next task."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any
from uuid import uuid4

import orjson
import pytest

from chassis import inbox
from chassis.deadlines import Deadline
from contracts.batches import INTAKE, GetBatch
from contracts.topology import BATCH_PROCESSOR
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem


class ScriptedTasks:
    """Plays batch-processor: says of every task what the test has set."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"status": "queued", "started_at": None}

    async def get(self, request: GetBatch, _: Deadline) -> bytes:
        about = {"id": str(request.batch_id), "kind": "task", "operation": "echo", "counts": {}}
        return orjson.dumps({**about, **self.state})


@pytest.fixture(scope="module")
async def processor(module_house: House) -> ScriptedTasks:
    double = ScriptedTasks()
    await module_house.double(BATCH_PROCESSOR, {GetBatch: double.get})
    return double


@pytest.fixture(scope="module")
async def listener(module_house: House) -> RunningGateway:
    return await module_house.open()


async def send(listener: RunningGateway, unique: dict[str, Any], **changes: Any) -> Any:
    body = {"operation": "echo", "payload": {"n": 1}, "unique": unique, **changes}
    return await listener.api.post("/v1/tasks", json=body)


async def test_the_task_that_holds_a_key_is_returned_with_its_state(
    listener: RunningGateway, processor: ScriptedTasks
) -> None:
    unique = {"key": str(uuid4())}
    processor.state = {"status": "queued", "started_at": None}
    first = await send(listener, unique)
    assert (first.status_code, first.json()["status"]) == (202, "queued")
    follows = {"what": "its first result", "by": "2026-01-02T00:00:00Z"}
    processor.state = {"status": "running", "started_at": "2026-01-01T00:00:00Z", "next": follows}
    again = await send(listener, unique)
    assert (again.json(), again.headers["idempotent-replayed"]) == (
        {"id": first.json()["id"], "status": "running", "next": follows},
        "true",
    )
    assert_problem(await send(listener, unique, payload={"n": 2}), 409, "unique-key-in-use")
    assert_problem(await send(listener, {**unique, "on_conflict": "reject"}), 409, "unique-key-in-use")


async def test_a_key_is_free_when_its_task_has_ended_or_begun_as_the_request_chose(
    listener: RunningGateway, processor: ScriptedTasks
) -> None:
    unique = {"key": str(uuid4()), "while": "queued"}
    processor.state = {"status": "paused", "started_at": None}
    first = (await send(listener, unique)).json()["id"]
    assert (await send(listener, unique)).json()["id"] == first
    processor.state = {"status": "running", "started_at": "2026-01-01T00:00:00Z"}
    second = (await send(listener, unique, payload={"n": 2})).json()["id"]
    assert second != first
    held = {**unique, "while": "running"}
    assert (await send(listener, held, payload={"n": 2})).json()["id"] == second
    processor.state = {"status": "completed", "started_at": "2026-01-01T00:00:00Z"}
    third = (await send(listener, held)).json()["id"]
    assert third not in (first, second)
    # For a period the key is held by a task that has ended, too.
    period = {"key": unique["key"], "while": "period", "period_s": 60}
    assert (await send(listener, period)).json() == {"id": third, "status": "completed", "next": None}
    short = {**period, "period_s": 0.01}
    assert (await send(listener, short)).json()["id"] != third


async def test_a_key_is_held_for_no_longer_than_its_task_is_remembered(
    house: House, processor: ScriptedTasks
) -> None:
    listener = await house.open(retention_days=1)
    processor.state = {"status": "completed", "started_at": "2026-01-01T00:00:00Z"}
    unique = {"key": str(uuid4()), "while": "period", "period_s": 86_401}
    assert_problem(await send(listener, unique), 422, "invalid-input", "/unique/period_s")
    assert (await send(listener, {**unique, "period_s": 86_400})).status_code == 202


async def test_a_short_key_makes_no_new_task_while_its_message_would_be_dropped_as_a_repetition(
    house: House, processor: ScriptedTasks
) -> None:
    listener = await house.open(retention_days=1)
    processor.state = {"status": "completed", "started_at": None}
    body = {"operation": "echo", "unique_key": str(uuid4())}
    await house.purge(INTAKE)
    first = (await listener.api.post("/v1/tasks", json=body)).json()["id"]
    (message,) = await house.take(INTAKE)
    for days, is_repetition in ((inbox.KEEP_DAYS, True), (inbox.KEEP_DAYS + 2, False)):
        aged = f"status = 'completed', changed_at = now() - interval '{days} days'"
        await listener.database.execute(f"UPDATE acceptances SET {aged}")
        await listener.gateway.resources.acceptor.remove_old()
        again = await listener.api.post("/v1/tasks", json=body)
        assert (again.status_code, again.json()["id"]) == (202, first)
        assert ("idempotent-replayed" in again.headers) is is_repetition
    assert [m["batch_id"] for m in await house.take(INTAKE)] == [message["batch_id"]]


async def test_a_task_that_is_replaced_is_cancelled_when_the_other_is_accepted(
    listener: RunningGateway, processor: ScriptedTasks, module_house: House
) -> None:
    await module_house.purge(INTAKE)
    processor.state = {"status": "queued", "started_at": None}
    unique = {"key": str(uuid4()), "on_conflict": "replace"}
    first = (await send(listener, unique)).json()["id"]
    second = await send(listener, unique, payload={"n": 2})
    assert second.json()["id"] != first
    messages = await module_house.take(INTAKE, 3)
    assert [(m["_"]["type"], m["batch_id"]) for m in messages] == [
        ("batch.create.v1", first),
        ("batch.cancel.v1", first),
        ("batch.create.v1", second.json()["id"]),
    ]


async def test_only_one_of_many_simultaneous_requests_gets_the_key(
    listener: RunningGateway, processor: ScriptedTasks, module_house: House
) -> None:
    processor.state = {"status": "queued", "started_at": None}
    unique = {"key": str(uuid4())}
    answers = await asyncio.gather(*(send(listener, unique) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


async def test_of_tasks_that_replace_each_other_at_once_each_but_the_last_is_cancelled_once(
    listener: RunningGateway, processor: ScriptedTasks, module_house: House
) -> None:
    await module_house.purge(INTAKE)
    processor.state = {"status": "queued", "started_at": None}
    unique = {"key": str(uuid4()), "on_conflict": "replace"}
    answers = await asyncio.gather(*(send(listener, unique, payload=n) for n in range(12)))
    for answer in (answer for answer in answers if answer.status_code != 202):
        # It came too late five times in a row; nothing was done, and it may try again.
        assert_problem(answer, 409, "conflict")
        assert answer.headers["retry-after"] == "1"
    accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    messages = await module_house.take(INTAKE, 2 * len(accepted) - 1)
    created = [m["batch_id"] for m in messages if m["_"]["type"] == "batch.create.v1"]
    assert sorted(created) == sorted(accepted)
    # Whoever took the key is cancelled by the next one, in front of its own task.
    alternating = [(m["_"]["type"], m["batch_id"]) for m in messages]
    assert alternating == [
        ("batch.create.v1", created[0]),
        *(
            step
            for one, other in pairwise(created)
            for step in (("batch.cancel.v1", one), ("batch.create.v1", other))
        ),
    ]


async def test_the_idempotency_key_is_compared_before_the_unique_key_of_a_task(
    listener: RunningGateway, processor: ScriptedTasks
) -> None:
    processor.state = {"status": "queued", "started_at": None}
    body = {"operation": "echo", "unique": {"key": str(uuid4())}}
    headers = {"Idempotency-Key": f'"{uuid4()}"'}
    first = await listener.api.post("/v1/tasks", json=body, headers=headers)
    processor.state = {"status": "completed", "started_at": None}
    again = await listener.api.post("/v1/tasks", json=body, headers=headers)
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    other = await listener.api.post("/v1/tasks", json={**body, "payload": 2}, headers=headers)
    assert_problem(other, 422, "idempotency-mismatch")
    joined = {"Idempotency-Key": f'"{uuid4()}"'}
    processor.state = {"status": "running", "started_at": None}
    held = await listener.api.post("/v1/tasks", json=body, headers=joined)
    assert held.json() == {"id": first.json()["id"], "status": "running", "next": None}
    assert (await listener.api.post("/v1/tasks", json=body, headers=joined)).json() == held.json()


@pytest.mark.parametrize(
    ("unique", "pointer"),
    [
        ({"key": ""}, "/unique/key"),
        ({"key": "a", "while": "ever"}, "/unique/while"),
        ({"key": "a", "while": "period"}, "/unique"),
        ({"key": "a", "period_s": 5}, "/unique"),
        ({"key": "a", "on_conflict": "ask"}, "/unique/on_conflict"),
    ],
)
async def test_an_invalid_unique_key_is_refused(
    listener: RunningGateway, processor: ScriptedTasks, unique: dict[str, Any], pointer: str
) -> None:
    assert_problem(await send(listener, unique), 422, "invalid-input", pointer)

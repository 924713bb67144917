"""`Prefer: wait` is answered with the task's end, pushed or looked up, or with its acceptance."""

from __future__ import annotations

import asyncio

import pytest

from chassis.deadlines import Deadline
from contracts import batches
from contracts.topology import BATCH_PROCESSOR
from gateway.batches import task_service
from support.gateway_stack import House, RunningGateway
from support.pushes import batch, progress
from support.waiting import until

TASK = {"operation": "echo", "payload": 1}


class TaskAnswers:
    """Answers for batch-processor about one task."""

    def __init__(self) -> None:
        self.status = "running"
        self.asked: list[str] = []
        self.is_silent = False

    async def get(self, request: batches.GetBatch, _: Deadline) -> batches.Batch:
        self.asked.append(str(request.batch_id))
        if self.is_silent:
            await asyncio.Event().wait()
        return batch(str(request.batch_id), self.status, kind="task")


@pytest.fixture
async def work(house: House) -> TaskAnswers:
    found = TaskAnswers()
    await house.double(BATCH_PROCESSOR, {batches.GetBatch: found.get})
    return found


async def test_a_caller_is_answered_when_the_end_of_its_task_is_pushed(
    listener: RunningGateway, house: House, work: TaskAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_service, "FIRST_LOOK_S", 60.0)
    waiting = asyncio.create_task(listener.api.post("/v1/tasks", json=TASK, headers={"prefer": "wait=15"}))
    [channel] = await until(lambda: list(listener.gateway.resources.hub.channels("task:")))
    id_ = channel.removeprefix("task:")
    await house.publish([progress(id_, 1, "running", kind="task")])
    work.status = "completed"
    await house.publish([progress(id_, 2, "completed", kind="task")])
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert work.asked == [id_]
    assert not listener.gateway.resources.hub.has_listeners(channel)


async def test_a_task_whose_push_was_lost_is_found(listener: RunningGateway, work: TaskAnswers) -> None:
    work.status = "completed"
    answer = await listener.api.post("/v1/tasks", json=TASK, headers={"prefer": "wait=15"})
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


async def test_only_a_key_that_may_read_tasks_waits_for_more_than_the_status(
    listener: RunningGateway, work: TaskAnswers
) -> None:
    work.status = "completed"
    async with listener.client(await listener.new_key("batches:write")) as client:
        answer = await client.post("/v1/tasks", json=TASK, headers={"prefer": "wait=15"})
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert (answer.json()["counts"], answer.json()["detail_available"]) == (None, False)
    whole = await listener.api.post("/v1/tasks", json=TASK, headers={"prefer": "wait=15"})
    assert whole.json()["counts"]["total"] == 1


async def test_a_caller_that_waits_costs_few_requests(listener: RunningGateway, work: TaskAnswers) -> None:
    answer = await listener.api.post("/v1/tasks", json=TASK, headers={"prefer": "wait=3"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert 1 <= len(work.asked) <= 5


async def test_an_accepted_task_is_answered_as_queued_when_the_wait_ends(
    listener: RunningGateway, work: TaskAnswers
) -> None:
    work.is_silent = True
    answer = await listener.api.post("/v1/tasks", json=TASK, headers={"prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")

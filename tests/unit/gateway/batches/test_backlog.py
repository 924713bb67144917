"""Uploads wait while batch-processor is behind, and only then."""

from __future__ import annotations

import asyncio

import pytest

from chassis.broker.messaging import Depth
from gateway.batches.backlog import MOST_QUEUED, Backlog


class ItemQueue:
    """A queue of items; `taken_each_look` of its messages are taken whenever somebody looks."""

    def __init__(self, *, consumers: int = 1, taken_each_look: int = 0) -> None:
        self.consumers = consumers
        self.taken_each_look = taken_each_look
        self.messages = 0
        self.most = 0
        self.looks = 0

    async def look(self) -> Depth | None:
        self.looks += 1
        self.messages = max(0, self.messages - self.taken_each_look)
        return Depth(self.messages, self.consumers)

    async def publish(self, backlog: Backlog, owner_id: str) -> None:
        await backlog.wait_for_room(owner_id)
        self.messages += 1
        self.most = max(self.most, self.messages)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.batches.backlog.LOOK_EVERY_S", 0)


async def test_a_large_upload_never_fills_the_queue_beyond_its_bound() -> None:
    queue = ItemQueue(taken_each_look=7)
    backlog = Backlog(queue.look)
    for _ in range(2000):
        await queue.publish(backlog, "ann")
    assert MOST_QUEUED // 2 < queue.most <= MOST_QUEUED + 1


async def test_while_the_queue_is_short_it_is_looked_at_once_for_many_messages() -> None:
    queue = ItemQueue(taken_each_look=1000)
    backlog = Backlog(queue.look)
    for _ in range(1000):
        await queue.publish(backlog, "ann")
    assert queue.looks <= 1000 / MOST_QUEUED + 1


async def test_nobody_waits_for_a_batch_processor_that_is_down() -> None:
    queue = ItemQueue(consumers=0)
    backlog = Backlog(queue.look)
    for _ in range(500):
        await queue.publish(backlog, "ann")
    assert queue.messages == 500


async def test_uploads_go_on_slowly_while_batch_processor_takes_nothing() -> None:
    queue = ItemQueue()
    backlog = Backlog(queue.look, patience_s=0.01)
    for _ in range(500):
        await queue.publish(backlog, "ann")
    assert queue.messages == 500
    # It was waited for before each group of messages.
    assert queue.looks > 500 / MOST_QUEUED


async def test_nobody_waits_while_the_broker_says_nothing() -> None:
    async def silent() -> None:
        return None

    backlog = Backlog(silent)
    for _ in range(500):
        await backlog.wait_for_room("ann")


async def test_a_small_upload_gets_room_after_one_message_of_each_other_owner() -> None:
    queue = ItemQueue(taken_each_look=1)
    backlog = Backlog(queue.look)
    order: list[str] = []

    async def upload(owner_id: str, messages: int) -> None:
        for _ in range(messages):
            await queue.publish(backlog, owner_id)
            order.append(owner_id)

    async with asyncio.TaskGroup() as uploads:
        for owner_id in ("ann", "ann", "ann", "bob"):
            uploads.create_task(upload(owner_id, 200))
        while queue.messages < MOST_QUEUED:
            await asyncio.sleep(0)
        before = len(order)
        await upload("eve", 1)
        assert order[before:].count("ann") <= 2
        assert order[before:].count("bob") <= 2

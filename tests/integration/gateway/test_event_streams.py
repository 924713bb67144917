"""Streams of server-sent events: the twins of the channels for readers without a WebSocket."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from chassis.deadlines import Deadline
from contracts import batches, emails
from contracts.topology import BATCH_PROCESSOR
from gateway.identity import keys
from support.event_streams import events_of, status_in
from support.gateway_stack import Connect, House, RunningGateway
from support.pushes import NOW, batch, progress, ticks
from support.waiting import until


async def test_the_events_of_a_batch_come_until_it_ends(listener: RunningGateway, house: House) -> None:
    id_ = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    hub = listener.gateway.resources.hub
    async with listener.api.stream("GET", f"/v1/batches/{id_}/events") as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        lines = stream.aiter_lines()
        await status_in(lines, "queued")
        await house.publish([progress(id_, 1, "running")])
        await status_in(lines, "running")
        await house.publish([progress(id_, 2, "completed")])
        await status_in(lines, "completed")
        assert [line async for line in lines if line] == []
    assert not hub.has_listeners(f"batch:{id_}")


async def test_the_events_of_a_task_come_until_it_ends(listener: RunningGateway, house: House) -> None:
    id_ = (await listener.api.post("/v1/tasks", json={"operation": "echo", "payload": 1})).json()["id"]
    async with listener.api.stream("GET", f"/v1/tasks/{id_}/events") as stream:
        assert stream.headers["x-accel-buffering"] == "no"
        lines = stream.aiter_lines()
        await status_in(lines, "queued")
        await house.publish([progress(id_, 1, "completed", kind="task")])
        await status_in(lines, "completed")
        assert [line async for line in lines if line] == []
    assert (await listener.api.get(f"/v1/batches/{id_}/events")).status_code == 404
    async with listener.client(await listener.new_key("batches:read")) as stranger:
        assert (await stranger.get(f"/v1/tasks/{id_}/events")).status_code == 404


async def test_a_batch_that_has_already_ended_ends_the_stream(listener: RunningGateway, house: House) -> None:
    id_ = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    statuses = ["running"]

    async def get(request: batches.GetBatch, _: Deadline) -> batches.Batch:
        found = batch(id_, statuses[0])
        statuses[0] = "completed"
        return found

    await house.double(BATCH_PROCESSOR, {batches.GetBatch: get})
    async with listener.api.stream("GET", f"/v1/batches/{id_}/events") as stream:
        lines = stream.aiter_lines()
        await status_in(lines, "running")
        await status_in(lines, "completed")
        assert [line async for line in lines if line] == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("batch", {"operation": "echo", "items": [1]}),
        ("task", {"operation": "echo", "payload": 1}),
    ],
)
async def test_the_events_of_a_batch_or_task_continue_on_another_gateway(
    house: House, kind: str, body: dict[str, Any]
) -> None:
    collection = {"batch": "batches", "task": "tasks"}[kind]
    dsn, key = await house.database(), str(keys.new_key())
    listeners = [await house.open(dsn=dsn, bootstrap_key=key) for _ in range(2)]
    id_ = (await listeners[0].api.post(f"/v1/{collection}", json=body)).json()["id"]

    def state(status: str, revision: int) -> batches.Batch:
        return batch(id_, status, kind=kind, revision=revision)

    def news(status: str, *offsets: int) -> list[Outgoing]:
        return [progress(id_, offset, status, kind=kind) for offset in offsets]

    stored = state("running", 1)

    async def get(request: batches.GetBatch, _: Deadline) -> batches.Batch:
        return stored

    await house.double(BATCH_PROCESSOR, {batches.GetBatch: get})
    path, seen = f"/v1/{collection}/{id_}/events", []
    async with listeners[0].api.stream("GET", path) as stream:
        seen += await events_of(stream, 1)
    # What happens while the reader is away is in the state that it finds.
    stored = state("paused", 3)
    async with listeners[1].api.stream("GET", path, headers={"last-event-id": seen[-1][0]}) as stream:
        # Late pushes, and those that say what the state has said, are left out.
        await house.publish(news("running", 2, 3, 4))
        seen += await events_of(stream, 2)
    stored = state("running", 4)
    async with listeners[0].api.stream("GET", path, headers={"last-event-id": seen[-1][0]}) as stream:
        await house.publish(news("completed", 4, 5))
        seen += await events_of(stream, 3)
    assert [(event, data["status"]) for event, data in seen] == [
        (f"{id_}:1", "running"),
        (f"{id_}:3", "paused"),
        (f"{id_}:4", "running"),
        (f"{id_}:5", "completed"),
    ]


async def test_a_reader_of_events_that_goes_away_leaves_nothing_behind(listener: RunningGateway) -> None:
    id_ = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    hub = listener.gateway.resources.hub
    async with listener.api.stream("GET", f"/v1/batches/{id_}/events") as stream:
        await status_in(stream.aiter_lines(), "queued")
        assert hub.has_listeners(f"batch:{id_}")
    await until(lambda: not hub.has_listeners(f"batch:{id_}"))
    head = await listener.api.head(f"/v1/batches/{id_}/events", timeout=5)
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")
    assert not hub.has_listeners(f"batch:{id_}")


async def test_an_event_stream_counts_as_a_connection(house: House, connect: Connect) -> None:
    listener = await house.open(most_sockets=1)
    id_ = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    async with connect(listener, "/v1/realtime"):
        refused = await listener.api.get(f"/v1/batches/{id_}/events")
        assert refused.status_code == 429
    async with listener.api.stream("GET", f"/v1/batches/{id_}/events") as stream:
        await status_in(stream.aiter_lines(), "queued")


async def test_event_streams_beyond_the_limit_that_come_together_are_refused_and_none_breaks(
    house: House,
) -> None:
    listener = await house.open(most_sockets=10)
    id_ = (await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})).json()["id"]
    is_over = asyncio.Event()
    answers: list[int] = []

    async def follow() -> None:
        async with listener.api.stream("GET", f"/v1/batches/{id_}/events") as stream:
            lines = stream.aiter_lines()
            if stream.status_code == 200:
                await status_in(lines, "queued")
            answers.append(stream.status_code)
            await is_over.wait()

    async with asyncio.TaskGroup() as readers:
        for _ in range(20):
            readers.create_task(follow())
        await until(lambda: len(answers) == 20)
        is_over.set()
    assert sorted(answers) == [200] * 5 + [429] * 15
    await until(lambda: not listener.gateway.resources.connection_limit.owners)


async def test_quotes_are_streamed_from_where_the_reader_was(listener: RunningGateway, house: House) -> None:
    symbol = f"S{uuid4().hex[:6].upper()}"
    await house.publish([ticks(symbol, 1)])
    await until(lambda: listener.gateway.resources.book.last(symbol))
    path, seen = f"/v1/stocks/stream?symbols={symbol}", {"last-event-id": "e:1"}
    async with listener.api.stream("GET", path) as stream:
        assert stream.headers["x-accel-buffering"] == "no"
        [(id_, quote)] = await events_of(stream, 1)
        assert (id_, quote["price"], quote["state"]) == ("e:1", 1, "live")
    async with listener.api.stream("GET", path, headers=seen) as stream:
        await until(lambda: listener.gateway.resources.hub.has_listeners(f"quotes:{symbol}"))
        await house.publish([ticks(symbol, 2)])
        assert [id_ for id_, _ in await events_of(stream, 1)] == ["e:2"]


async def test_a_mail_is_followed_by_its_owner(listener: RunningGateway, house: House) -> None:
    mail = {"to": ["ann@example.com"], "subject": "Hello", "text": "How are you?"}
    id_ = (await listener.api.post("/v1/emails", json=mail)).json()["id"]
    async with listener.api.stream("GET", f"/v1/emails/{id_}/events") as stream:
        lines = stream.aiter_lines()
        await status_in(lines, "queued")
        changed = {"email_id": id_, "owner_id": "1", "status": "delivered", "at": NOW}
        await house.publish([envelope.event(emails.EmailStatusChanged.model_validate(changed))])
        await status_in(lines, "delivered")
        assert [line async for line in lines if line] == []

    async def is_reported() -> bool:
        return bool((await listener.api.get(f"/v1/emails/{id_}")).json()["status"] == "delivered")

    await until(is_reported)
    # The state has the place of the change that it results from: who has seen that gets it no second time.
    async with listener.api.stream("GET", f"/v1/emails/{id_}/events") as stream:
        [(seen, state)] = await events_of(stream, 1)
    assert (seen, state["status"]) == (f"{id_}:{state['revision']}", "delivered")
    async with listener.api.stream(
        "GET", f"/v1/emails/{id_}/events", headers={"last-event-id": seen}
    ) as stream:
        assert [line async for line in stream.aiter_lines() if line] == []
    async with listener.client(await listener.new_key("emails:read")) as stranger:
        assert (await stranger.get(f"/v1/emails/{id_}/events")).status_code == 404

"""Answers are sent in pieces, and those that clients do not read occupy only the share of their owner."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import orjson
import pytest

from chassis.errors import ServiceError
from gateway.http import sending
from gateway.http.bodies import LARGE_BYTES
from gateway.http.replies import EVENT_STREAM, HttpReply
from gateway.http.sending import Sending
from support.answers import PAGE, AnswerReader, begun, rows, stream


@pytest.fixture
def rooms() -> Sending:
    return Sending()


async def test_readers_that_take_nothing_leave_streams_and_bytes_for_others(rooms: Sending) -> None:
    ended: list[str] = []
    streams = [AnswerReader(rooms, stream(), "guest") for _ in range(sending.MOST_STREAMS_OF_OWNER)]
    pages = [
        AnswerReader(rooms, HttpReply(PAGE, 200), "guest")
        for _ in range(sending.MOST_BYTES_OF_OWNER // len(PAGE))
    ]
    refused = [
        AnswerReader(rooms, stream(ended), "guest"),
        AnswerReader(rooms, HttpReply(PAGE, 200), "guest"),
    ]
    neighbour = [
        AnswerReader(rooms, stream(), "neighbour"),
        AnswerReader(rooms, HttpReply(PAGE, 200), "neighbour"),
    ]
    assert set(await begun(*streams, *pages)) == {200}
    assert await begun(*refused) == [429, 429]
    for client in refused:
        assert orjson.loads(await client.read())["type"] == "/problems/too-many-at-once"
    assert ended == [], "it has never begun"
    assert await begun(*neighbour) == [200, 200]
    assert [len(await client.read()) for client in neighbour] == [2 + 2 * LARGE_BYTES, len(PAGE)]
    for client in (*streams, *pages):
        await client.read()
    again = [AnswerReader(rooms, stream(), "guest"), AnswerReader(rooms, HttpReply(PAGE, 200), "guest")]
    assert await begun(*again) == [200, 200]
    for client in again:
        await client.read()


async def test_all_owners_together_have_a_bounded_number_of_streams_and_bytes(rooms: Sending) -> None:
    streams = [AnswerReader(rooms, stream(), str(n)) for n in range(sending.MOST_STREAMS)]
    pages = [
        AnswerReader(rooms, HttpReply(PAGE, 200), str(n)) for n in range(sending.MOST_BYTES // len(PAGE))
    ]
    refused = [AnswerReader(rooms, stream(), "late"), AnswerReader(rooms, HttpReply(PAGE, 200), "late")]
    assert set(await begun(*streams, *pages)) == {200}
    assert await begun(*refused) == [503, 503]
    refusals: list[ServiceError] = []

    async def take(_: object) -> None:
        return

    for reply in (stream(), HttpReply(PAGE, 200)):
        await rooms.send(reply, take, owner_id="late", is_head=False, on_refusal=refusals.append)
    assert [error.code for error in refusals] == ["overloaded"] * 2
    for client in (*streams, *pages, *refused):
        await client.read()


async def test_small_answers_event_streams_and_public_answers_need_no_room(rooms: Sending) -> None:
    events = HttpReply(rows(), 200, EVENT_STREAM)
    for owner_id, reply in (("", HttpReply(PAGE, 200)), ("1", HttpReply(b"{}\n", 200)), ("1", events)):
        clients = [AnswerReader(rooms, reply, owner_id) for _ in range(50)]
        assert set(await begun(*clients)) == {200}
        for client in clients:
            client.task.cancel()
        await asyncio.gather(*(client.task for client in clients), return_exceptions=True)


async def test_a_client_that_goes_away_ends_the_stream_and_gives_its_place_back(rooms: Sending) -> None:
    ended: list[str] = []
    for _ in range(sending.MOST_STREAMS_OF_OWNER + 1):
        client = AnswerReader(rooms, stream(ended), "guest")
        assert await begun(client) == [200]
        client.task.cancel()
        await asyncio.gather(client.task, return_exceptions=True)
    assert len(ended) == sending.MOST_STREAMS_OF_OWNER + 1


async def test_a_body_goes_out_in_pieces_and_a_head_without_one(rooms: Sending) -> None:
    for size in (0, 1, LARGE_BYTES, LARGE_BYTES + 1, 3 * LARGE_BYTES):
        client = AnswerReader(rooms, HttpReply(b"x" * size, 200), "1")
        assert await client.read() == b"x" * size
        assert max(len(message["body"]) for message in client.messages[1:]) <= LARGE_BYTES
        assert [message.get("more_body", False) for message in client.messages[1:]][-1] is False
        assert (b"content-length", b"%d" % size) in client.messages[0]["headers"]
    client = AnswerReader(rooms, HttpReply(PAGE, 200), "1", is_head=True)
    assert await client.read() == b""
    assert (b"content-length", b"%d" % len(PAGE)) in client.messages[0]["headers"]


async def test_the_pieces_of_many_public_answers_leave_a_few_in_each_pass_of_the_loop(rooms: Sending) -> None:
    sent = 0

    async def take(message: MutableMapping[str, Any]) -> None:
        nonlocal sent
        sent += bool(message.get("body"))

    reply = HttpReply(bytes(3 * LARGE_BYTES), 200)
    sending_all = [
        asyncio.create_task(rooms.send(reply, take, owner_id="", is_head=False)) for _ in range(100)
    ]
    largest, before = 0, 0
    while not all(task.done() for task in sending_all):
        await asyncio.sleep(0)
        largest, before = max(largest, sent - before), sent
    assert sent == 3 * len(sending_all)
    assert largest <= 10

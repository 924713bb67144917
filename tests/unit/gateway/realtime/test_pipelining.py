"""A client that sends many commands at once has all their answers, as fast as it reads them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson

from gateway.realtime.access import Access
from gateway.realtime.channels import channel_of
from support.doubles.realtime import Client, Gateway, connected, say


async def test_a_client_that_asks_for_much_in_one_frame_is_slowed_down_and_not_closed(
    gateway: Gateway, ann: Access
) -> None:
    gateway.buffer_bytes = 65_536
    await say(gateway, ann, *["x" * 3000] * 8)
    client = await connected(gateway, ann)
    client.frames.clear()
    queue = client.session.queue
    queue.pause()
    lines = [b'{"id":%d,"history":{"channel":"chat:lobby","limit":8}}' % number for number in range(2, 9)]
    asking = asyncio.create_task(client.session.receive(b"\n".join(lines)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not asking.done()
    while not asking.done():
        queue.resume()
        queue.pause()
        await asyncio.sleep(0)
    queue.resume()
    assert client.closed == []
    assert [len(frame["history"]["publications"]) for frame in client.frames] == [8] * 7


async def test_what_a_frame_of_subscriptions_recovers_fits_beside_what_waits(
    gateway: Gateway, ann: Access
) -> None:
    gateway.buffer_bytes = 65_536
    names = [f"room{number}" for number in range(4)]
    gateway.rooms.epochs |= dict.fromkeys(names, "epoch-1")
    for name in names:
        for _ in range(7):
            await gateway.channels.publish(ann, channel_of(f"chat:{name}"), {"text": "x" * 3000})
    client = await connected(gateway, ann)
    client.frames.clear()
    client.session.queue.pause()
    wanted = {"recover": True, "epoch": "epoch-1", "offset": 0}
    lines = [
        orjson.dumps({"id": number, "subscribe": {"channel": f"chat:{name}", **wanted}})
        for number, name in enumerate(names, start=2)
    ]
    await client.session.receive(b"\n".join(lines))
    client.session.queue.resume()
    assert client.closed == []
    assert sorted(frame["subscribe"]["recovered"] for frame in client.frames) == [False] * 3 + [True]


async def test_a_connection_that_closes_while_it_is_slowed_down_goes_on_to_its_end(
    gateway: Gateway, ann: Access
) -> None:
    gateway.buffer_bytes = 65_536
    await say(gateway, ann, *["x" * 3000] * 8)
    client = await connected(gateway, ann)
    client.session.queue.pause()
    lines = [b'{"id":%d,"history":{"channel":"chat:lobby","limit":8}}' % number for number in range(2, 9)]
    asking = asyncio.create_task(client.session.receive(b"\n".join(lines)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not asking.done()
    client.session.release()
    await asking


async def test_answers_larger_than_the_queue_wait_until_those_before_are_read(
    gateway: Gateway, ann: Access
) -> None:
    gateway.buffer_bytes = 65_536

    async def call(*_: object) -> str:
        return "x" * 100_000

    client = Client(gateway, ann, realtime=replace(gateway.realtime, call_operation=call))
    await client.ask(connect={})
    queue = client.session.queue
    queue.pause()
    lines = [b'{"id":%d,"rpc":{"method":"getQuote"}}' % number for number in range(2, 5)]
    asking = asyncio.create_task(client.session.receive(b"\n".join(lines)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert (client.frames, client.closed, asking.done()) == ([], [], False)
    queue.resume()
    await asking
    assert [frame["id"] for frame in client.frames] == [2, 3, 4]
    assert client.closed == []

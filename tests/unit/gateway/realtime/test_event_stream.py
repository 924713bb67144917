"""Server-sent events of channels: the newest of each, with positions as ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from chassis import waits
from chassis.deadlines import Deadline
from chassis.errors import NotFound, Overloaded, TooManyAtOnce
from chassis.loop_turns import MOST_IN_PASS, USUAL_WEIGHT
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.replies import EVENT_STREAM
from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.realtime import event_stream as module
from gateway.realtime.access import Access
from gateway.realtime.channels import KINDS, Channel, Channels, FindQuote
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.connections import Connections
from gateway.realtime.event_stream import EventStream
from gateway.realtime.inputs import QuoteStreamQuery
from gateway.realtime.routes import EventStreams
from support.doubles.realtime import Gateway

OpenStream = Callable[..., Awaitable[AsyncGenerator[bytes, None]]]


def state(offset: int, status: str = "running", channel: str = "batch:x") -> Publication:
    return Publication(channel, ChannelPosition("e", offset), {"status": status})


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def limit() -> ConnectionLimit:
    return ConnectionLimit(total=2, per_owner=1)


@pytest.fixture
def connections() -> Connections:
    async def nobody(_: Principal) -> None:
        return None

    return Connections(nobody)


@pytest.fixture
def opened(hub: Hub, limit: ConnectionLimit, connections: Connections, ann: Access) -> OpenStream:
    async def open_stream(
        *first: Publication,
        access: Access = ann,
        meanwhile: Callable[[], None] = lambda: None,
        **more: Any,
    ) -> AsyncGenerator[bytes, None]:
        async def look() -> Sequence[Publication]:
            meanwhile()
            return first

        stream = EventStream(
            access,
            [Channel(KINDS["batch"], one.channel.removeprefix("batch:")) for one in first],
            look,
            name="batch",
            is_last=lambda data: data["status"] == "completed",
            **more,
        )
        events = stream.events(hub, connections, limit)
        assert await anext(events) == b""
        return events

    return open_stream


def read(event: bytes) -> tuple[str, str]:
    """Return the id and the status of an event."""
    name, id_, data = event.decode().strip().split("\n")
    assert name == "event: batch"
    return id_.removeprefix("id: "), orjson.loads(data.removeprefix("data: "))["status"]


async def test_the_state_comes_first_then_the_newest_until_the_end(
    hub: Hub, limit: ConnectionLimit, opened: OpenStream
) -> None:
    stream = await opened(state(1))
    assert read(await anext(stream)) == ("e:1", "running")
    for offset in (2, 3, 3, 2):
        hub.publish(state(offset))
    assert read(await anext(stream)) == ("e:3", "running")
    hub.publish(state(4, "completed"))
    assert read(await anext(stream)) == ("e:4", "completed")
    assert [event async for event in stream] == []
    assert (hub.counts(), limit.owners) == ({}, {})


async def test_what_is_published_while_the_state_is_read_is_not_lost(hub: Hub, opened: OpenStream) -> None:
    def publish() -> None:
        for offset in (4, 6, 7):
            hub.publish(state(offset))

    stream = await opened(state(5), state(8, channel="batch:y"), meanwhile=publish)
    assert [read(await anext(stream))[0] for _ in range(2)] == ["e:7", "e:8"]
    hub.publish(state(7))
    hub.publish(state(9, "completed"))
    assert read(await anext(stream)) == ("e:9", "completed")


async def test_an_event_that_the_reader_has_is_not_sent_again(
    hub: Hub, limit: ConnectionLimit, opened: OpenStream
) -> None:
    stream = await opened(state(5), state(6, channel="batch:y"), last_event_id="e:5")
    assert read(await anext(stream)) == ("e:6", "running")


async def test_after_a_silence_the_stored_state_is_read(
    opened: OpenStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_SILENCE_S", 0.01)

    async def look_again() -> list[Publication]:
        return [state(1, "completed")]

    stream = await opened(state(1), look_again=look_again)
    found = [event async for event in stream]
    assert found[1].startswith(b":")
    assert [read(event)[1] for event in (found[0], found[2])] == ["running", "completed"]


async def test_a_state_without_an_offset_is_sent_to_a_reader_that_has_seen_another_one(
    opened: OpenStream,
) -> None:
    stream = await opened(state(0, "completed"), last_event_id="e:0")
    assert [read(event) async for event in stream] == [("e:0", "completed")]


async def test_nothing_older_than_what_was_sent_follows_it(
    hub: Hub, opened: OpenStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_SILENCE_S", 0.01)
    monkeypatch.setattr(module, "SILENCE_S", 0.01)
    known = [state(7), state(4)]

    async def look_again() -> list[Publication]:
        return [known.pop()] if known else []

    stream = await opened(state(5), look_again=look_again)
    ids: list[str] = []
    async for event in stream:
        if event.startswith(b":"):
            continue
        ids.append(read(event)[0])
        if ids[-1] == "e:7":
            for offset in (6, 7, 8):
                hub.publish(state(offset, "completed" if offset == 8 else "running"))
    assert ids == ["e:5", "e:7", "e:8"]


async def test_a_stream_counts_as_a_connection(hub: Hub, limit: ConnectionLimit, opened: OpenStream) -> None:
    first = await opened(state(1))
    with pytest.raises(TooManyAtOnce):
        await opened(state(1))
    await first.aclose()
    assert (hub.counts(), limit.owners) == ({}, {})
    await opened(state(1))


async def test_a_stream_ends_with_the_right_to_it(
    hub: Hub, connections: Connections, opened: OpenStream, limit: ConnectionLimit
) -> None:
    stream = await opened(state(1))
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream, None))
    await connections.check_keys()
    assert await waiting in (None, b": still here\n\n")
    assert [event async for event in stream] == []
    assert (hub.counts(), limit.owners, len(connections)) == ({}, {}, 0)


async def test_a_stream_ends_with_its_token(
    opened: OpenStream, ann: Access, connections: Connections
) -> None:
    stream = await opened(state(1), access=replace(ann, expires_at=1.0))
    await anext(stream)
    ticking = asyncio.create_task(connections.keep_time())
    assert [event async for event in stream if not event.startswith(b":")] == []
    ticking.cancel()


def channels_of(gateway: Gateway, find_quote: FindQuote) -> Channels:
    """Return the channels of a gateway whose quotes come from `find_quote`."""
    return Channels(
        hub=gateway.hub,
        feed=gateway.feed,
        bars=gateway.bars,
        chat=gateway.chat,
        alerts=gateway.alerts,
        find={},
        find_quote=find_quote,
    )


async def test_when_one_symbol_is_unknown_the_others_are_not_read_any_more(
    gateway: Gateway, ann: Access, connections: Connections, limit: ConnectionLimit
) -> None:
    reading: set[str] = set()

    async def find_quote(symbol: str, _: Deadline) -> bytes:
        if symbol == "BAD":
            raise NotFound("There is no symbol BAD.")
        reading.add(symbol)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            reading.discard(symbol)
        return b"{}"

    streams = EventStreams(channels_of(gateway, find_quote), connections, limit)
    call = Call(ann.principal, Deadline.after(5), EVENT_STREAM)
    symbols = [*(f"S{number}" for number in range(20)), "BAD"]
    with pytest.raises(NotFound):
        await streams.stream_quotes(call, QuoteStreamQuery.model_validate({"symbols": ",".join(symbols)}))
    assert (reading, gateway.hub.counts(), limit.owners) == (set(), {}, {})


async def test_the_states_of_all_symbols_are_read_at_the_same_time(
    gateway: Gateway, ann: Access, connections: Connections, limit: ConnectionLimit
) -> None:
    symbols = [f"S{number}" for number in range(50)]
    all_asked = asyncio.Barrier(len(symbols))

    async def find_quote(symbol: str, _: Deadline) -> bytes:
        await all_asked.wait()
        return orjson.dumps({"symbol": symbol, "price": 1})

    call = Call(ann.principal, Deadline.after(5), EVENT_STREAM)
    streams = EventStreams(channels_of(gateway, find_quote), connections, limit)
    async with asyncio.timeout(10):
        reply = await streams.stream_quotes(
            call, QuoteStreamQuery.model_validate({"symbols": ",".join(symbols)})
        )
    assert isinstance(reply.body, AsyncGenerator)
    first = [await anext(reply.body) for _ in symbols]
    assert all(symbol in event.decode() for symbol, event in zip(symbols, first, strict=True))
    await reply.body.aclose()


async def test_a_stream_whose_owner_has_too_many_subscriptions_is_refused_and_leaves_nothing(
    limit: ConnectionLimit, connections: Connections, ann: Access
) -> None:
    hub = Hub(most_subscriptions=3)

    async def look() -> Sequence[Publication]:
        return []

    stream = EventStream(ann, [Channel(KINDS["quotes"], f"S{n}") for n in range(4)], look, name="quote")
    with pytest.raises(Overloaded):
        await anext(stream.events(hub, connections, limit))
    assert (hub.counts(), limit.owners, len(connections)) == ({}, {}, 0)
    fits = EventStream(ann, [Channel(KINDS["quotes"], f"S{n}") for n in range(3)], look, name="quote")
    events = fits.events(hub, connections, limit)
    assert await anext(events) == b""
    await events.aclose()
    assert hub.counts() == {}


async def test_the_loop_is_free_after_a_few_of_the_states_that_the_streams_of_an_owner_read(
    gateway: Gateway, ann: Access, connections: Connections
) -> None:
    read = 0

    async def find_quote(symbol: str, _: Deadline) -> bytes:
        nonlocal read
        read += 1
        return orjson.dumps({"symbol": symbol, "price": 1})

    streams = EventStreams(
        channels_of(gateway, find_quote), connections, ConnectionLimit(total=100, per_owner=100)
    )
    symbols = ",".join(f"S{number}" for number in range(100))
    query = QuoteStreamQuery.model_validate({"symbols": symbols})
    opening = [
        asyncio.create_task(
            streams.stream_quotes(Call(ann.principal, Deadline.after(60), EVENT_STREAM), query)
        )
        for _ in range(20)
    ]
    largest, before = 0, 0
    while not all(task.done() for task in opening):
        await asyncio.sleep(0)
        largest, before = max(largest, read - before), read
    assert read == 20 * 100
    assert largest <= 100


async def test_very_many_streams_of_an_owner_wake_and_send_in_its_turns(
    hub: Hub, connections: Connections, ann: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = ConnectionLimit(total=1000, per_owner=1000)
    woken = 0

    async def until_set_and_counted(event: asyncio.Event, most_s: float) -> bool:
        nonlocal woken
        is_set = await waits.until_set(event, most_s)
        woken += 1
        return is_set

    monkeypatch.setattr(module, "until_set", until_set_and_counted)

    async def look() -> Sequence[Publication]:
        return [state(1)]

    sent = 0

    async def read_on(events: AsyncGenerator[bytes, None]) -> None:
        nonlocal sent
        async for event in events:
            sent += event.startswith(b"event")

    opened = []
    for _ in range(200):
        stream = EventStream(
            ann,
            [Channel(KINDS["batch"], "x")],
            look,
            name="batch",
            is_last=lambda data: data["status"] == "completed",
        )
        opened.append(stream.events(hub, connections, limit))
        await anext(opened[-1])
    reading = [asyncio.create_task(read_on(events)) for events in opened]
    while sent < len(opened):
        await asyncio.sleep(0)
    hub.publish(state(2, "completed"))
    largest, before = (0, 0), (woken, sent)
    while not all(task.done() for task in reading):
        await asyncio.sleep(0)
        largest = max(largest[0], woken - before[0]), max(largest[1], sent - before[1])
        before = woken, sent
    assert sent == 2 * len(opened)
    assert max(largest) <= 2 * MOST_IN_PASS // USUAL_WEIGHT


async def test_a_publication_is_encoded_once_for_all_readers(
    hub: Hub, connections: Connections, ann: Access
) -> None:
    limit = ConnectionLimit(total=10, per_owner=10)

    async def look() -> Sequence[Publication]:
        return [state(1)]

    streams = [
        EventStream(ann, [Channel(KINDS["batch"], "x")], look, name="batch").events(hub, connections, limit)
        for _ in range(3)
    ]
    for events in streams:
        assert await anext(events) == b""
        await anext(events)
    hub.publish(state(2))
    first, *others = [await anext(events) for events in streams]
    assert read(first) == ("e:2", "running")
    assert all(other is first for other in others)
    for events in streams:
        await events.aclose()

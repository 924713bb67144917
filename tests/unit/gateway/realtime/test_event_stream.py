"""Server-sent events of channels: the newest of each, with positions as ids."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from chassis.errors import Overloaded
from gateway.realtime import event_stream as module
from gateway.realtime.connection_limit import Bounds, ConnectionLimit
from gateway.realtime.event_stream import events
from gateway.realtime.hub import Hub
from gateway.realtime.positions import Position
from gateway.realtime.publications import Publication


def state(offset: int, status: str = "running", channel: str = "batch:x") -> Publication:
    return Publication(channel, Position("e", offset), {"status": status})


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def limit() -> ConnectionLimit:
    return ConnectionLimit(Bounds.of(2, 1))


def opened(hub: Hub, limit: ConnectionLimit, *first: Publication, **more: Any) -> AsyncIterator[bytes]:
    return events(
        hub,
        first,
        name="batch",
        owner="7",
        limit=limit,
        is_last=lambda data: data["status"] == "completed",
        **more,
    )


def read(event: bytes) -> tuple[str, str]:
    """The id and the status of an event."""
    name, id_, data = event.decode().strip().split("\n")
    assert name == "event: batch"
    return id_.removeprefix("id: "), orjson.loads(data.removeprefix("data: "))["status"]


async def test_the_state_comes_first_then_the_newest_until_the_end(hub: Hub, limit: ConnectionLimit) -> None:
    stream = opened(hub, limit, state(1))
    assert read(await anext(stream)) == ("e:1", "running")
    for offset in (2, 3, 3, 2):
        hub.publish(state(offset))
    assert read(await anext(stream)) == ("e:3", "running")
    hub.publish(state(4, "completed"))
    assert read(await anext(stream)) == ("e:4", "completed")
    assert [event async for event in stream] == []
    assert (hub.counts(), limit.owners) == ({}, {})


async def test_what_the_reader_has_is_not_sent_again(hub: Hub, limit: ConnectionLimit) -> None:
    stream = opened(hub, limit, state(5), state(6, channel="batch:y"), last_event_id="e:5")
    assert read(await anext(stream)) == ("e:6", "running")


async def test_after_a_silence_the_stored_state_is_read(
    hub: Hub, limit: ConnectionLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_SILENCE_S", 0.01)

    async def look_again() -> list[Publication]:
        return [state(1, "completed")]

    stream = opened(hub, limit, state(1), look_again=look_again)
    found = [event async for event in stream]
    assert found[1].startswith(b":")
    assert [read(event)[1] for event in (found[0], found[2])] == ["running", "completed"]


async def test_a_stream_has_its_place_among_the_connections(hub: Hub, limit: ConnectionLimit) -> None:
    first = opened(hub, limit, state(1))
    await anext(first)
    with pytest.raises(Overloaded):
        await anext(opened(hub, limit, state(1)))
    await first.aclose()  # type: ignore[attr-defined]
    assert (hub.counts(), limit.owners) == ({}, {})
    await anext(opened(hub, limit, state(1)))

"""Bars on their channels: state, positions, and the bars of each minute that a slow reader gets."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.errors import NotFound
from gateway.publishing.positions import ChannelPosition
from gateway.realtime import silence as silence_module
from gateway.realtime.access import Access
from gateway.realtime.bar_feed import BarFeed
from gateway.realtime.channels import channel_of
from support.clocks import Clock
from support.doubles.realtime import Client, Gateway, connected, quote


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(silence_module, "time", clock)
    return clock


def bar(offset: int, *, minute: int = 0, epoch: str = "7", **more: Any) -> dict[str, Any]:
    fields = {"symbol": "A", "t": f"2026-01-05T17:{minute:02}:00Z", "c": offset, "session": "regular"}
    return {**fields, "closed": False, **more, "stream": {"epoch": epoch, "offset": offset}}


async def subscribed(gateway: Gateway, ann: Access, **options: Any) -> Client:
    client = await connected(gateway, ann)
    assert "epoch" in await client.ask(subscribe={"channel": "bars:A", **options})
    return client


def reported(client: Client) -> list[tuple[int, str]]:
    return [(push["pub"]["offset"], push["pub"]["data"]["state"]) for push in client.pushes()]


async def test_a_subscriber_begins_with_the_newest_bar_and_gets_each_later_one(
    clock: Clock, gateway: Gateway, ann: Access
) -> None:
    gateway.bars = BarFeed(gateway.hub, silent_after_s=5)
    gateway.channels.bars = gateway.bars
    gateway.bars.push([bar(1), bar(2)])
    client = await connected(gateway, ann)
    joined = await client.ask(subscribe={"channel": "bars:a"})
    assert (joined["epoch"], joined["offset"]) == ("7", 2)
    assert joined["publications"][0]["data"] == {**bar(2), "state": "live"}
    gateway.bars.push([bar(2), bar(1), bar(3), bar(4, epoch="6"), bar(1, epoch="8"), bar(2, epoch="8")])
    assert reported(client) == [(3, "live"), (1, "restarted"), (2, "live")]


async def test_before_the_first_bar_the_quote_tells_whether_there_is_the_symbol(
    gateway: Gateway, ann: Access
) -> None:
    gateway.quotes["A"] = quote("A", 1)
    joined = await gateway.channels.join(ann, channel_of("bars:A"), None)
    assert (joined.position, joined.publications) == (ChannelPosition("unpublished", 0), [])
    with pytest.raises(NotFound):
        await gateway.channels.join(ann, channel_of("bars:NOPE"), None)
    client = await subscribed(gateway, ann)
    gateway.bars.push([bar(1)])
    assert reported(client) == [(1, "live")]


async def test_subscribers_hear_once_that_the_feed_is_silent_and_who_comes_then_sees_it(
    clock: Clock, gateway: Gateway, ann: Access
) -> None:
    gateway.bars.push([bar(1)])
    client = await subscribed(gateway, ann)
    for _ in range(3):
        clock.now += 4
        await gateway.bars.silence.look()
    assert reported(client) == [(1, "stale")]
    late = await connected(gateway, ann)
    joined = await late.ask(subscribe={"channel": "bars:A"})
    assert joined["publications"][0]["data"]["state"] == "stale"
    gateway.bars.push([bar(2)])
    assert reported(client) == [(2, "live")]


async def test_a_bar_of_a_closed_market_is_not_stale(clock: Clock, gateway: Gateway, ann: Access) -> None:
    gateway.bars.push([bar(1, session="closed")])
    clock.now += 60
    joined = await gateway.channels.join(ann, channel_of("bars:A"), None)
    assert joined.publications[0].data["state"] == "live"


async def test_a_slow_reader_gets_the_newest_bar_of_each_minute(gateway: Gateway, ann: Access) -> None:
    gateway.bars.push([bar(1)])
    client = await subscribed(gateway, ann)
    client.session.queue.pause()
    gateway.bars.push([bar(2), bar(3, closed=True), bar(4, minute=1), bar(5, minute=1)])
    client.session.queue.resume()
    pushes = client.pushes()
    assert [(push["pub"]["offset"], push["pub"]["tags"]["skipped"]) for push in pushes] == [
        (3, "1"), (5, "1"),
    ]  # fmt: skip


async def test_a_reader_that_is_far_behind_loses_the_oldest_minutes_and_sees_how_many(
    gateway: Gateway, ann: Access
) -> None:
    gateway.bars.push([bar(1)])
    client = await subscribed(gateway, ann)
    client.session.queue.pause()
    gateway.bars.push([bar(minute + 2, minute=minute) for minute in range(14)])
    client.session.queue.resume()
    pushes = [push["pub"] for push in client.pushes()]
    assert [push["offset"] for push in pushes] == list(range(6, 16))
    assert [push.get("tags") for push in pushes[:2]] == [{"skipped": "4"}, None]


async def test_a_bar_that_has_waited_says_that_the_feed_has_fallen_silent(
    clock: Clock, gateway: Gateway, ann: Access
) -> None:
    gateway.bars.push([bar(1)])
    client = await subscribed(gateway, ann)
    client.session.queue.pause()
    gateway.bars.push([bar(2)])
    clock.now += 6
    client.session.queue.resume()
    assert reported(client) == [(2, "stale")]

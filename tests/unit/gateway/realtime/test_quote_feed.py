"""Quotes say how fresh they are when they are sent, and subscribers hear when the feed stops."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.publishing.hub import Hub
from gateway.publishing.publications import Publication
from gateway.realtime import silence as silence_module
from gateway.realtime.access import Access
from gateway.realtime.quote_feed import QuoteFeed
from gateway.stocks import book as book_module
from gateway.stocks.book import QuoteBook
from support.clocks import Clock
from support.doubles.realtime import Gateway, connected


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(silence_module, "time", clock)
    monkeypatch.setattr(book_module, "time", clock)
    return clock


@pytest.fixture
def heard() -> list[Publication]:
    return []


@pytest.fixture
def book(clock: Clock) -> QuoteBook:
    return QuoteBook(fresh_s=5)


@pytest.fixture
def feed(book: QuoteBook, heard: list[Publication]) -> QuoteFeed:
    hub = Hub()
    hub.listen("quotes:A", heard.append)
    return QuoteFeed(book, hub, silent_after_s=5)


def push(book: QuoteBook, offset: int, *, epoch: str = "e1", **more: Any) -> None:
    as_of = (datetime.now(UTC) - timedelta(seconds=17)).isoformat()
    fields = {"symbol": "A", "price": 1, "as_of": as_of, "delayed_by_s": 0, "stale": False}
    quote = {**fields, "session": "regular", **more}
    book.push([{**quote, "stream": {"epoch": epoch, "offset": offset}}])


def states(heard: list[Publication]) -> list[tuple[str, int, str]]:
    return [(one.position.epoch, one.position.offset, one.data["state"]) for one in heard]


async def test_a_quote_is_stale_when_the_feed_is_silent_and_says_for_how_long(
    feed: QuoteFeed, book: QuoteBook, clock: Clock
) -> None:
    push(book, 1)
    clock.now += 4
    now = feed.now("A")
    assert now is not None
    assert (now.data["state"], now.data["stale"], now.data["delayed_by_s"]) == ("live", False, 0)
    clock.now += 13
    now = feed.now("A")
    assert now is not None
    assert (now.data["state"], now.data["stale"]) == ("stale", True)
    assert now.data["delayed_by_s"] >= 17
    assert feed.now("B") is None


async def test_a_symbol_that_is_seldom_traded_is_not_stale_while_the_feed_lives(
    feed: QuoteFeed, book: QuoteBook, clock: Clock
) -> None:
    push(book, 1)
    clock.now += 60
    push(book, 1, symbol="B")
    now = feed.now("A")
    assert now is not None
    assert now.data["state"] == "live"


async def test_a_closed_market_is_not_expected_to_tick(
    feed: QuoteFeed, book: QuoteBook, clock: Clock
) -> None:
    push(book, 1, session="closed")
    clock.now += 600
    now = feed.now("A")
    assert now is not None
    assert (now.data["state"], now.data["delayed_by_s"]) == ("live", 0)


async def test_listeners_hear_once_that_the_feed_stopped_and_that_it_goes_on(
    feed: QuoteFeed, book: QuoteBook, clock: Clock, heard: list[Publication]
) -> None:
    push(book, 1)
    for _ in range(10):
        clock.now += 1
        await feed.silence.look()
    push(book, 2)
    push(book, 1, epoch="e2")
    push(book, 2, epoch="e2")
    assert states(heard) == [
        ("e1", 1, "live"),
        ("e1", 1, "stale"),
        ("e1", 2, "live"),
        ("e2", 1, "restarted"),
        ("e2", 2, "live"),
    ]


async def test_other_work_goes_on_between_the_channels_of_a_silent_feed(
    book: QuoteBook, clock: Clock
) -> None:
    hub = Hub()
    feed = QuoteFeed(book, hub, silent_after_s=5)
    told: list[str] = []
    for number in range(20):
        push(book, 1, symbol=f"S{number}")
        hub.listen(f"quotes:S{number}", lambda one: told.append(one.channel))
    clock.now += 6
    looking = asyncio.create_task(feed.silence.look())
    in_between = []
    while not looking.done():
        await asyncio.sleep(0)
        in_between.append(len(told))
    assert in_between[:20] == list(range(1, 21))


async def test_a_channel_without_a_state_keeps_nothing_from_the_others_of_a_silent_feed(
    feed: QuoteFeed, book: QuoteBook, clock: Clock, heard: list[Publication]
) -> None:
    hub = Hub()
    feed = QuoteFeed(book, hub, silent_after_s=5)
    for symbol in ("A", "BAD", "Z"):
        push(book, 1, symbol=symbol)
        hub.listen(f"quotes:{symbol}", heard.append)
    bad = book.last("BAD")
    assert bad is not None
    del bad.quote["stream"]["offset"]
    heard.clear()
    clock.now += 6
    await feed.silence.look()
    assert [one.channel for one in heard] == ["quotes:A", "quotes:Z"]


async def test_a_feed_that_resumes_ends_the_news_of_its_silence(book: QuoteBook, clock: Clock) -> None:
    hub = Hub()
    feed = QuoteFeed(book, hub, silent_after_s=5)
    told: list[str] = []

    def hear(one: Publication) -> None:
        told.append(f"{one.channel} {one.data['state']}")
        if len(told) == 1:
            push(book, 2, symbol="Z")

    for symbol in ("A", "B"):
        push(book, 1, symbol=symbol)
        hub.listen(f"quotes:{symbol}", hear)
    clock.now += 6
    await feed.silence.look()
    assert told == ["quotes:A stale"]


async def test_a_quote_that_has_waited_has_its_present_freshness(
    feed: QuoteFeed, book: QuoteBook, clock: Clock, heard: list[Publication]
) -> None:
    push(book, 1)
    assert feed.refreshed(heard[0]) is heard[0]
    clock.now += 30
    assert feed.refreshed(heard[0]).data["delayed_by_s"] >= 17
    chat = Publication("chat:lobby", heard[0].position, {})
    assert feed.refreshed(chat) is chat


async def test_a_subscriber_gets_the_news_that_the_feed_stopped_at_a_position_that_it_has(
    gateway: Gateway, ann: Access, clock: Clock
) -> None:
    push(gateway.book, 1)
    client = await connected(gateway, ann)
    await client.ask(subscribe={"channel": "quotes:A"})
    clock.now += 10
    await gateway.feed.silence.look()
    [push_document] = client.pushes()
    assert push_document["pub"]["data"]["state"] == "stale"
    assert push_document["pub"]["offset"] == 1

"""The book of pushed quotes: the newest wins, listeners are notified, and old quotes stop being fresh."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stocks import book as module
from gateway.stocks.book import PushedQuote, QuoteBook
from support.clocks import Clock


def quote(symbol: str = "AAPL", offset: int = 1, epoch: str = "e", price: float = 1.0) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "price": price,
        "as_of": "2026-01-01T00:00:00Z",
        "stream": {"epoch": epoch, "offset": offset},
    }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_pushed_quote_is_ready_as_json_with_a_tag() -> None:
    book = QuoteBook(fresh_s=5)
    book.push([quote(offset=7)])
    entry = book.fresh("AAPL")
    assert entry is not None
    assert isinstance(entry.reply.body, bytes)
    assert orjson.loads(entry.reply.body) == quote(offset=7)
    assert entry.reply.etag == '"e-7"'


@given(st.permutations(range(1, 8)))
def test_in_whatever_order_quotes_come_the_newest_stays(offsets: list[int]) -> None:
    book = QuoteBook(fresh_s=5)
    heard: list[int] = []
    book.on_quote(lambda _, entry: heard.append(entry.quote["stream"]["offset"]))
    for offset in offsets:
        book.push([quote(offset=offset)])
    entry = book.last("AAPL")
    assert entry is not None
    assert entry.quote["stream"]["offset"] == 7
    assert heard == sorted(heard)


def test_a_new_epoch_starts_again() -> None:
    book = QuoteBook(fresh_s=5)
    book.push([quote(offset=100), quote(offset=1, epoch="f")])
    entry = book.last("AAPL")
    assert entry is not None
    assert entry.reply.etag == '"f-1"'


@given(st.permutations([("9", 1), ("9", 2), ("10", 1), ("10", 2)]))
def test_a_late_tick_of_an_old_leader_never_wins(positions: list[tuple[str, int]]) -> None:
    book = QuoteBook(fresh_s=5)
    heard: list[tuple[int, int]] = []

    def note(_: str, entry: PushedQuote) -> None:
        heard.append((int(entry.quote["stream"]["epoch"]), entry.quote["stream"]["offset"]))

    book.on_quote(note)
    for epoch, offset in positions:
        book.push([quote(epoch=epoch, offset=offset)])
    assert heard == sorted(heard)
    assert heard[-1] == (10, 2)


def test_a_quote_is_fresh_for_its_time_and_then_only_the_last(clock: Clock) -> None:
    book = QuoteBook(fresh_s=5)
    book.push([quote()])
    clock.now += 5
    assert book.fresh("AAPL") is not None
    clock.now += 0.1
    assert book.fresh("AAPL") is None
    assert book.last("AAPL") is not None
    assert book.fresh("MSFT") is None


def test_a_repeated_quote_does_not_become_fresh_again(clock: Clock) -> None:
    book = QuoteBook(fresh_s=5)
    book.push([quote()])
    clock.now += 4
    book.push([quote()])
    clock.now += 2
    assert book.fresh("AAPL") is None


def test_no_more_than_twenty_thousand_symbols_are_kept() -> None:
    book = QuoteBook(fresh_s=5)
    book.push([quote(f"S{number}") for number in range(20_010)])
    assert book.last("S19999") is not None
    assert book.last("S20000") is None
    book.push([quote("S0", offset=2)])
    entry: PushedQuote | None = book.last("S0")
    assert entry is not None
    assert entry.reply.etag == '"e-2"'

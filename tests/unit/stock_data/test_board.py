from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from contracts.stocks import Quote
from stock_data.board import Board

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)


def quote(symbol: str, price: str = "10") -> Quote:
    return Quote(symbol=symbol, price=Decimal(price), as_of=NOW, source="replay")


def test_the_newest_quote_of_a_symbol_counts() -> None:
    board = Board(stale_after_s=10)
    board.put([quote("A"), quote("B"), quote("A", "11")])
    found = board.get("A", NOW)
    assert found is not None
    assert found.price == 11
    assert board.get("C", NOW) is None


def test_a_quote_says_when_the_feed_has_stopped() -> None:
    board = Board(stale_after_s=10)
    board.put([quote("A")])
    fresh = board.get("A", NOW + timedelta(seconds=10))
    old = board.get("A", NOW + timedelta(seconds=11))
    assert fresh is not None
    assert old is not None
    assert (fresh.stale, fresh.delayed_by_s) == (False, 0)
    assert (old.stale, old.delayed_by_s) == (True, 11)

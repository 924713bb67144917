"""The board of the latest quote of each symbol."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from contracts.stocks import Quote, StreamPosition
from stock_data.replay.board import Board, ReplayPosition

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)


def quote(symbol: str = "A", offset: int = 1, epoch: str = "7", **changes: object) -> Quote:
    position = StreamPosition(epoch=epoch, offset=offset)
    values = {
        "symbol": symbol,
        "price": Decimal(offset),
        "as_of": NOW,
        "source": "replay",
        "stream": position,
    }
    return Quote.model_validate(values | changes)


def positions(board: Board, *symbols: str) -> list[tuple[str, int] | None]:
    found = [board.get(symbol, NOW) for symbol in symbols]
    return [(q.stream.epoch, q.stream.offset) if q and q.stream else None for q in found]


def test_the_latest_quote_of_a_symbol_is_kept() -> None:
    board = Board(stale_after_s=10)
    board.put([quote("A"), quote("B"), quote("A", 2)])
    assert positions(board, "A", "B", "C") == [("7", 2), ("7", 1), None]


@given(
    st.permutations([quote(offset=offset, epoch=epoch) for epoch in ("7", "10") for offset in range(1, 5)])
)
def test_in_whatever_order_quotes_come_none_goes_backwards(quotes: list[Quote]) -> None:
    board = Board(stale_after_s=10)
    seen: list[tuple[int, int]] = []
    for each in quotes:
        board.put([each])
        epoch, offset = positions(board, "A")[0] or ("", 0)
        seen.append((int(epoch), offset))
    assert seen == sorted(seen)
    assert seen[-1] == (10, 4)


def test_a_late_tick_of_an_old_leader_changes_nothing_not_even_of_another_symbol() -> None:
    board = Board(stale_after_s=10)
    board.put([quote("A", 5), quote("A", 1, "10"), quote("A", 6), quote("B", 6)])
    assert positions(board, "A", "B") == [("10", 1), None]
    assert board.epoch == "10"


def test_a_quote_without_a_position_does_not_come_from_the_feed() -> None:
    board = Board(stale_after_s=10)
    board.put([quote(stream=None)])
    assert positions(board, "A") == [None]


def test_the_position_of_the_replay_is_the_one_of_its_last_quote() -> None:
    board = Board(stale_after_s=10)
    assert board.position is None
    first, then = datetime(2012, 5, 21, 14, tzinfo=UTC), datetime(2012, 5, 21, 15, tzinfo=UTC)
    board.put(
        [quote(offset=1, replayed=first), quote(offset=2, replayed=then), quote(offset=1, replayed=first)]
    )
    assert board.position == ReplayPosition(replayed=then, shown_at=NOW)


def test_a_quote_says_when_the_feed_has_stopped() -> None:
    board = Board(stale_after_s=10)
    board.put([quote("A")])
    fresh = board.get("A", NOW + timedelta(seconds=10))
    old = board.get("A", NOW + timedelta(seconds=11))
    assert fresh is not None
    assert old is not None
    assert (fresh.stale, fresh.delayed_by_s) == (False, 0)
    assert (old.stale, old.delayed_by_s) == (True, 11)

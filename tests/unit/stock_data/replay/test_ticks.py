from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from stock_data.replay.ticks import Offsets, ReplayBar, steps
from support.doubles.stock_history import daily

APPLE = ReplayBar(
    "AAPL", "USD", daily("2012-05-21", "561.28", open="534.5", high="561.54", low="534.05"), Decimal("530.38")
)
FACEBOOK = ReplayBar("FB", "USD", daily("2012-05-21", "34.03", open="36.53", high="36.66", low="33"), None)


def test_every_step_has_a_quote_of_every_symbol() -> None:
    found = list(steps([APPLE, FACEBOOK], 10, Offsets("e")))
    assert [[quote.symbol for quote in step] for step in found] == [["AAPL", "FB"]] * 10


def test_quotes_say_that_they_are_made_up() -> None:
    quote = next(steps([APPLE], 10, Offsets("e")))[0]
    assert (quote.simulated, quote.source, quote.session, quote.stale) == (True, "replay", "regular", False)
    assert abs((quote.as_of - datetime.now(UTC)).total_seconds()) < 60


def test_quotes_say_which_moment_they_replay() -> None:
    found = [step[0].replayed for step in steps([APPLE], 14, Offsets("e"))]
    assert found[0] == datetime(2012, 5, 21, 13, 30, tzinfo=UTC)
    assert found[-1] == datetime(2012, 5, 21, 20, tzinfo=UTC)
    assert found[1] == datetime(2012, 5, 21, 14, tzinfo=UTC)


def test_the_last_quote_of_the_day_is_its_bar() -> None:
    quote = list(steps([APPLE], 10, Offsets("e")))[-1][0]
    assert (quote.price, quote.high, quote.low) == (APPLE.bar.close, APPLE.bar.high, APPLE.bar.low)
    assert quote.change == Decimal("30.90")
    assert quote.change_percent == Decimal("5.8260")
    assert quote.volume == APPLE.bar.volume


def test_offsets_count_each_symbol_over_the_days() -> None:
    offsets = Offsets("e")
    days = [*steps([APPLE, FACEBOOK], 4, offsets), *steps([APPLE], 4, offsets)]
    positions = [quote.stream for step in days for quote in step if quote.symbol == "AAPL"]
    assert [position.offset for position in positions if position] == list(range(1, 9))
    assert {position.epoch for position in positions if position} == {"e"}
    assert offsets.next("FB").offset == 5

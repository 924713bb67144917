"""The ticks of a replayed day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from stock_data.replay.ticks import Offsets, ReplayBar, ReplayedDay, ReplaySpeed
from support.doubles.stock_history import daily

APPLE = ReplayBar(
    "AAPL", "USD", daily("2012-05-21", "561.28", open="534.5", high="561.54", low="534.05"), Decimal("530.38")
)
FACEBOOK = ReplayBar("FB", "USD", daily("2012-05-21", "34.03", open="36.53", high="36.66", low="33"), None)
EARLY = ReplayBar("AAPL", "USD", daily("2012-11-23", "571.5", open="567.17", high="572", low="562.6"), None)
HOUR = 3600.0


def day(*bars: ReplayBar, count: int = 10) -> ReplayedDay:
    return ReplayedDay(bars, ReplaySpeed(HOUR, ticks_per_s=count / 6.5))


def test_every_step_has_a_quote_of_every_symbol() -> None:
    found = list(day(APPLE, FACEBOOK).quotes(Offsets("7")))
    assert [[quote.symbol for quote in step] for step in found] == [["AAPL", "FB"]] * 10


def test_quotes_say_that_they_are_simulated() -> None:
    quote = next(day(APPLE).quotes(Offsets("7")))[0]
    assert (quote.simulated, quote.source, quote.session, quote.stale) == (True, "replay", "regular", False)
    assert abs((quote.as_of - datetime.now(UTC)).total_seconds()) < 60


def test_quotes_say_which_moment_they_replay() -> None:
    found = [step[0].replayed for step in day(APPLE, count=14).quotes(Offsets("7"))]
    assert found[0] == datetime(2012, 5, 21, 13, 30, tzinfo=UTC)
    assert found[-1] == datetime(2012, 5, 21, 20, tzinfo=UTC)
    assert found[1] == datetime(2012, 5, 21, 14, tzinfo=UTC)


def test_a_day_that_closed_early_ends_early() -> None:
    early = ReplayedDay([EARLY], ReplaySpeed(HOUR, ticks_per_s=4))
    found = [step[0].replayed for step in early.quotes(Offsets("7"))]
    assert (early.seconds, early.count, len(found)) == (3.5, 14, 14)
    assert found[-1] == datetime(2012, 11, 23, 18, tzinfo=UTC)


def test_the_last_quote_of_the_day_is_its_bar() -> None:
    quote = list(day(APPLE).quotes(Offsets("7")))[-1][0]
    assert (quote.price, quote.high, quote.low) == (APPLE.bar.close, APPLE.bar.high, APPLE.bar.low)
    assert quote.change == Decimal("30.90")
    assert quote.change_percent == Decimal("5.8260")
    assert quote.volume == APPLE.bar.volume


@pytest.mark.parametrize("shown", range(1, 15))
async def test_a_day_goes_on_after_the_moment_that_was_shown_last(shown: int) -> None:
    whole = [step[0] for step in day(APPLE, count=14).quotes(Offsets("7"))]
    moment = whole[shown - 1].replayed
    assert moment is not None
    rest = day(APPLE, count=14)
    assert rest.steps_until(moment) == shown
    await rest.skip(rest.steps_until(moment))
    found = [step[0] for step in rest.quotes(Offsets("8"))]
    assert [each.price for each in found] == [each.price for each in whole[shown:]]
    assert [each.replayed for each in found] == [each.replayed for each in whole[shown:]]


def test_a_moment_of_another_day_skips_all_or_nothing() -> None:
    opening = datetime(2012, 5, 21, 13, 30, tzinfo=UTC)
    assert day(APPLE).steps_until(opening - timedelta(hours=17.5)) == 0
    assert day(APPLE).steps_until(opening + timedelta(days=1)) == 10


@pytest.mark.parametrize(
    ("speed", "ticks_per_s", "count"), [(60, 1, 390), (1, 1, 23_400), (23_400, 1, 4), (60, 100, 39_000)]
)
def test_a_day_has_as_many_ticks_as_its_length_allows(speed: float, ticks_per_s: float, count: int) -> None:
    assert ReplayedDay([APPLE], ReplaySpeed(speed, ticks_per_s)).count == count


def test_offsets_count_each_symbol_over_the_days() -> None:
    offsets = Offsets("7")
    days = [*day(APPLE, FACEBOOK, count=4).quotes(offsets), *day(APPLE, count=4).quotes(offsets)]
    positions = [quote.stream for step in days for quote in step if quote.symbol == "AAPL"]
    assert [position.offset for position in positions if position] == list(range(1, 9))
    assert {position.epoch for position in positions if position} == {"7"}
    assert offsets.next("FB").offset == 5

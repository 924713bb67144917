"""The sessions of the exchange: opening, closing, weekends and holidays."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta

import pytest

from stock_data import sessions
from stock_data.history import dataset


def test_the_opening_moves_with_new_york_daylight_saving() -> None:
    assert sessions.opening(date(2012, 5, 21)) == datetime(2012, 5, 21, 13, 30, tzinfo=UTC)
    assert sessions.opening(date(2012, 1, 3)) == datetime(2012, 1, 3, 14, 30, tzinfo=UTC)


def test_a_session_closes_at_four_and_before_some_holidays_at_one() -> None:
    assert sessions.closing(date(2013, 3, 1)) == datetime(2013, 3, 1, 21, tzinfo=UTC)
    assert sessions.closing(date(2012, 11, 23)) == datetime(2012, 11, 23, 18, tzinfo=UTC)
    assert sessions.session_at(datetime(2012, 11, 23, 19, tzinfo=UTC)) == "post"


def test_the_calendar_has_the_sessions_of_thirteen_real_years() -> None:
    rows = csv.DictReader(io.StringIO(dataset.read().csv.decode()))
    traded = {date.fromisoformat(row["Date"]) for row in rows if row["Ticker"] == "IBM"}
    days = (date(2000, 3, 1) + timedelta(days=number) for number in range(4749))
    assert {day for day in days if sessions.is_session(day)} == traded
    assert len(traded) == 3270


@pytest.mark.parametrize(
    ("day", "before"),
    [
        (date(2024, 6, 11), date(2024, 6, 10)),
        (date(2024, 6, 10), date(2024, 6, 7)),
        (date(2012, 5, 29), date(2012, 5, 25)),
        (date(2001, 9, 17), date(2001, 9, 10)),
    ],
)
def test_the_session_before_a_day_passes_over_weekends_and_holidays(day: date, before: date) -> None:
    assert sessions.session_before(day) == before


@pytest.mark.parametrize(
    ("local", "day"),
    [
        ("2024-06-07T19:59-04:00", date(2024, 6, 7)),
        ("2024-06-07T20:00-04:00", date(2024, 6, 10)),
        ("2024-06-09T21:00-04:00", date(2024, 6, 10)),
        ("2024-06-10T04:00-04:00", date(2024, 6, 10)),
        ("2024-07-04T12:00-04:00", date(2024, 7, 5)),
    ],
)
def test_a_trade_belongs_to_the_day_whose_session_it_surrounds(local: str, day: date) -> None:
    assert sessions.trading_day(datetime.fromisoformat(local)) == day


@pytest.mark.parametrize(
    ("local", "session"),
    [
        ("03:59", "closed"),
        ("04:00", "pre"),
        ("09:29", "pre"),
        ("09:30", "regular"),
        ("15:59", "regular"),
        ("16:00", "post"),
        ("19:59", "post"),
        ("20:00", "closed"),
    ],
)
def test_a_week_day_has_its_sessions(local: str, session: str) -> None:
    assert sessions.session_at(datetime.fromisoformat(f"2012-05-21T{local}-04:00")) == session


def test_the_exchange_is_closed_on_saturdays_and_holidays() -> None:
    assert sessions.session_at(datetime(2024, 7, 4, 15, tzinfo=UTC)) == "closed"
    assert sessions.session_at(datetime(2012, 5, 19, 15, tzinfo=UTC)) == "closed"


def test_a_day_is_the_one_in_new_york() -> None:
    assert sessions.day_of(datetime(2024, 1, 3, 4, 59, tzinfo=UTC)) == date(2024, 1, 2)
    assert sessions.midnight(date(2024, 1, 2)) == datetime(2024, 1, 2, tzinfo=UTC)

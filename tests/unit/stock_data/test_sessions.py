from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from stock_data import sessions


def test_the_opening_moves_with_new_york_daylight_saving() -> None:
    assert sessions.opening(date(2012, 5, 21)) == datetime(2012, 5, 21, 13, 30, tzinfo=UTC)
    assert sessions.opening(date(2012, 1, 3)) == datetime(2012, 1, 3, 14, 30, tzinfo=UTC)


def test_a_regular_session_is_six_and_a_half_hours() -> None:
    assert sessions.closing(date(2013, 3, 1)) - sessions.opening(date(2013, 3, 1)) == sessions.REGULAR


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
def test_the_session_of_a_week_day(local: str, session: str) -> None:
    assert sessions.session_at(datetime.fromisoformat(f"2012-05-21T{local}-04:00")) == session


def test_the_exchange_is_closed_on_saturdays() -> None:
    assert sessions.session_at(datetime(2012, 5, 19, 15, tzinfo=UTC)) == "closed"


def test_a_day_is_the_one_in_new_york() -> None:
    assert sessions.day_of(datetime(2024, 1, 3, 4, 59, tzinfo=UTC)) == date(2024, 1, 2)
    assert sessions.midnight(date(2024, 1, 2)) == datetime(2024, 1, 2, tzinfo=UTC)

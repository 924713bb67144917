"""The stored calendar equals that of the library `holidays`. Run as a program, this writes it anew."""

from __future__ import annotations

from datetime import date

from holidays import financial_holidays

from stock_data import sessions

_YEARS = range(1950, 2101)


def calendar() -> str:
    """Return every weekday of `_YEARS` on which the exchanges stay closed or close early, one a line."""
    kinds = {"closed": "public", "early": "half_day"}
    days = {
        day: kind
        for kind, categories in kinds.items()
        for day in financial_holidays("NYSE", years=_YEARS, categories=categories)
        if day.weekday() < 5 and day.year in _YEARS
    }
    return "".join(f"{day} {days[day]}\n" for day in sorted(days))


def test_the_stored_calendar_is_that_of_the_library() -> None:
    assert sessions.CALENDAR.read_text() == calendar()


def test_a_day_beyond_the_calendar_is_a_session_unless_it_is_at_a_weekend() -> None:
    assert sessions.is_session(date(2101, 12, 26))
    assert not sessions.is_session(date(2101, 12, 25))


if __name__ == "__main__":
    sessions.CALENDAR.write_text(calendar())

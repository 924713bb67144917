"""The calendar of the US exchanges: trading days, holidays, early closes, and the session at a time.

A trading day lasts from 20:00 of the previous evening to 20:00 (New York), so that overnight and extended
hours belong to the regular session that they surround.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from contracts.stocks import Session

_NEW_YORK = ZoneInfo("America/New_York")
_PRE, _OPEN, _EARLY_CLOSE, _CLOSE, _POST = time(4), time(9, 30), time(13), time(16), time(20)
_SATURDAY = 5
_ONE_DAY = timedelta(days=1)

# The weekdays from 1950 to 2100 without trading or with an early close, generated with the library
# `holidays`, which would load the calendars of all countries (18 MiB); a test compares the two.
CALENDAR = Path(__file__).with_name("data") / "calendar.txt"


def _days(kind: str) -> frozenset[date]:
    lines = (line.split() for line in CALENDAR.read_text().splitlines())
    return frozenset(date.fromisoformat(day) for day, found in lines if found == kind)


_HOLIDAYS = _days("closed")
_EARLY_CLOSES = _days("early")


def is_session(day: date) -> bool:
    """Return whether the exchanges trade on `day`."""
    return day.weekday() < _SATURDAY and day not in _HOLIDAYS


@lru_cache(maxsize=4096)
def session_before(day: date) -> date:
    """Return the last trading day before `day`."""
    before = day - _ONE_DAY
    while not is_session(before):
        before -= _ONE_DAY
    return before


@lru_cache(maxsize=4096)
def session_from(day: date) -> date:
    """Return the first trading day from `day` on."""
    while not is_session(day):
        day += _ONE_DAY
    return day


def trading_day(moment: datetime) -> date:
    """Return the trading day that a trade at `moment` belongs to: on a Sunday, that is Monday."""
    local = moment.astimezone(_NEW_YORK)
    return session_from(local.date() + _ONE_DAY if local.time() >= _POST else local.date())


def opening(day: date) -> datetime:
    """Return when the regular session of `day` opens, in UTC."""
    return datetime.combine(day, _OPEN, _NEW_YORK).astimezone(UTC)


def closing(day: date) -> datetime:
    """Return when the regular session of `day` closes, in UTC; before some holidays that is at 13:00."""
    return datetime.combine(day, _closing_time(day), _NEW_YORK).astimezone(UTC)


def day_of(moment: datetime) -> date:
    """Return the calendar day of `moment` in New York, by which providers date their daily bars."""
    return moment.astimezone(_NEW_YORK).date()


def midnight(day: date) -> datetime:
    """Return the start of a daily bar as this service writes it: midnight UTC of the trading day."""
    return datetime.combine(day, time(0), UTC)


def session_at(moment: datetime) -> Session:
    """Return the session at `moment`."""
    local = moment.astimezone(_NEW_YORK)
    at = local.time()
    if not is_session(local.date()) or not _PRE <= at < _POST:
        return "closed"
    if at < _OPEN:
        return "pre"
    return "regular" if at < _closing_time(local.date()) else "post"


def _closing_time(day: date) -> time:
    return _EARLY_CLOSE if day in _EARLY_CLOSES else _CLOSE

"""The trading day of the US exchanges: opening hours, and which session a moment belongs to."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from contracts.stocks import Session

REGULAR = timedelta(hours=6, minutes=30)

_NEW_YORK = ZoneInfo("America/New_York")
_PRE, _OPEN, _CLOSE, _POST = time(4), time(9, 30), time(16), time(20)
_SATURDAY = 5


def opening(day: date) -> datetime:
    """When the regular session of `day` opens, in UTC."""
    return datetime.combine(day, _OPEN, _NEW_YORK).astimezone(UTC)


def closing(day: date) -> datetime:
    """When the regular session of `day` closes, in UTC; early closes before holidays are not known here."""
    return datetime.combine(day, _CLOSE, _NEW_YORK).astimezone(UTC)


def day_of(moment: datetime) -> date:
    """The exchange's calendar day of `moment`."""
    return moment.astimezone(_NEW_YORK).date()


def midnight(day: date) -> datetime:
    """The start of a daily bar as it is written everywhere here: midnight UTC of the trading day."""
    return datetime.combine(day, time(0), UTC)


def session_at(moment: datetime) -> Session:
    """The session at `moment` on a week day; holidays are not known here."""
    local = moment.astimezone(_NEW_YORK)
    at = local.time()
    if local.weekday() >= _SATURDAY or not _PRE <= at < _POST:
        return "closed"
    if at < _OPEN:
        return "pre"
    return "regular" if at < _CLOSE else "post"

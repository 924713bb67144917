"""Times as callers may write them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, TypeAdapter, ValidationError

FURTHEST = timedelta(days=366)

_DATE_LENGTH = len("2005-02-25")
_DAY = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)
# pydantic would read numbers, even as strings, as seconds since 1970.
_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
_TIME: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


def timestamp(value: object) -> datetime:
    """Return an RFC 3339 timestamp as a `datetime`. Raise `ValueError` for anything else."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str) and _RFC_3339.match(value):
        try:
            # Parsed here: in strict mode pydantic would not accept a string from a validator.
            return _TIME.validate_python(value)
        except ValidationError:
            pass
    raise ValueError("must be an RFC 3339 timestamp with a time zone")


def in_utc(moment: datetime) -> datetime:
    """Return `moment` in UTC. Raise `ValueError` if it is outside the range of `datetime` there.

    The last day is refused as well: the database driver stores its last microsecond as infinity, and reads
    that back without a time zone.
    """
    try:
        found = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None
    if found.date() == date.max:
        raise ValueError(f"must be before {date.max}")
    return found


def require_future(moment: datetime) -> datetime:
    """Return `moment`. Raise `ValueError` if it is in the past."""
    if moment <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return moment


def within_a_year(moment: datetime) -> datetime:
    """Return `moment`. Raise `ValueError` if it is more than `FURTHEST` ahead."""
    if moment - datetime.now(UTC) > FURTHEST:
        raise ValueError(f"must be at most {FURTHEST.days} days ahead")
    return moment


def day(value: object) -> date:
    """Return a date, or the day in UTC of an RFC 3339 time. Raise `ValueError` for anything else."""
    try:
        if isinstance(value, str) and _DAY.fullmatch(value):
            if len(value) == _DATE_LENGTH:
                return date.fromisoformat(value)
            value = datetime.fromisoformat(value.upper())
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC).date()
    except OverflowError as error:
        raise ValueError("must lie between the years 1 and 9999") from error
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError("must be a date (2005-02-25) or an RFC 3339 time (2005-02-25T14:30:00Z)")


Instant = Annotated[AwareDatetime, BeforeValidator(timestamp), AfterValidator(in_utc)]
# A time for which work is planned.
PlannedTime = Annotated[Instant, AfterValidator(within_a_year)]
# A day, also taken from an RFC 3339 time: its day in UTC, because daily bars start at midnight UTC. Numbers
# are refused, because pydantic would read them as seconds since 1970.
Day = Annotated[date, BeforeValidator(day)]

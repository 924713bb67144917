"""Times as callers may write them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, TypeAdapter, ValidationError

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


Instant = Annotated[AwareDatetime, BeforeValidator(timestamp), AfterValidator(in_utc)]

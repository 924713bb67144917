"""Times as callers write them, in documents that are read strictly and in query strings."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from contracts.times import Instant

ADAPTER: TypeAdapter[datetime] = TypeAdapter(Instant)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5+02:00", datetime(2026, 1, 31, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31 12:00:00z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_an_rfc_3339_timestamp_is_a_moment_in_utc(text: str, moment: datetime) -> None:
    for found in (
        ADAPTER.validate_json(f'"{text}"', strict=True),
        ADAPTER.validate_strings(text),
        ADAPTER.validate_python(text),
    ):
        assert (found, found.tzinfo) == (moment, UTC)


@pytest.mark.parametrize(
    "text",
    ["1", "1.5", "true", "null", '"0"', '"-1"', '"1700000000"', '"2026-01-31"', '"2026-01-31T12:00:00"',
     '"0001-01-01T00:00:00+10:00"', '"9999-12-31T23:59:59.999999999Z"',
     '"tomorrow"', '"2026-02-30T12:00:00Z"', "[]"],
)  # fmt: skip
def test_a_time_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_json(text, strict=True)

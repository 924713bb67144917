"""Conditions of alerts as callers write them, and the status of an alert at a moment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.alerts import Condition, status_of

NOW = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "kind", "threshold"),
    [
        ({"above": 600}, "above", "600"),
        ({"below": 12.34}, "below", "12.34"),
        ({"crosses": 0.0625}, "crosses", "0.0625"),
        ({"change_percent": -5.5}, "change_percent", "-5.5"),
    ],
)
def test_a_condition_has_one_kind_and_comes_back_as_it_was_written(
    given: dict[str, Any], kind: str, threshold: str
) -> None:
    condition = Condition.model_validate(given)
    assert (condition.kind, condition.threshold) == (kind, Decimal(threshold))
    assert condition.model_dump_json() == json.dumps(given, separators=(",", ":"))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"above": None},
        {"above": 1, "below": 2},
        {"above": 0},
        {"below": -1},
        {"change_percent": 0},
        {"change_percent": -100},
        {"above": "600"},
        {"above": True},
        {"above": float("nan")},
        {"above": 1e16},
        {"above": 1.0000001},
        {"beside": 1},
    ],
    ids=str,
)
def test_a_value_of_another_form_is_no_condition(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate(given)


@pytest.mark.parametrize(
    ("once", "fired_count", "expires_in_s", "status"),
    [
        (True, 0, None, "armed"),
        (True, 1, None, "fired"),
        (False, 3, None, "armed"),
        (False, 3, 1, "armed"),
        (False, 3, 0, "expired"),
        (True, 1, 0, "fired"),
    ],
)
def test_an_alert_is_armed_until_it_has_fired_for_good_or_expires(
    once: bool, fired_count: int, expires_in_s: int | None, status: str
) -> None:
    expires_at = None if expires_in_s is None else NOW + timedelta(seconds=expires_in_s)
    assert status_of(once=once, fired_count=fired_count, expires_at=expires_at, now=NOW) == status

"""The functions that both sides of the stream of quotes share, and the values that both must read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from contracts.stocks import Bar, GetBars, Quotes, epoch_number, freshness, is_later

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)
POSITIONS = st.tuples(st.integers(0, 10**18 - 1), st.integers(1, 1000))


@given(POSITIONS, POSITIONS)
def test_positions_are_ordered_by_the_number_of_the_epoch_and_then_by_offset(
    new: tuple[int, int], known: tuple[int, int]
) -> None:
    later = is_later(str(new[0]), new[1], than_epoch=str(known[0]), than_offset=known[1])
    if new[0] == known[0]:
        assert later is (new[1] > known[1])
    else:
        assert later is (new[0] > known[0])


def test_an_epoch_of_a_release_that_did_not_order_them_is_later_than_any_other() -> None:
    old = "019abc00-0000-7000-8000-000000000000"
    assert is_later(old, 1, than_epoch="7", than_offset=9)
    assert is_later("7", 1, than_epoch=old, than_offset=9)
    assert not is_later(old, 1, than_epoch=old, than_offset=1)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "\u0663", "9" * 19, "1\n"])
def test_only_plain_numbers_order_epochs(text: str) -> None:
    assert epoch_number(text) is None


@pytest.mark.parametrize(
    ("age_s", "delay_s", "delayed_by_s", "stale"),
    [
        (0, 0, 0, False),
        (10, 0, 0, False),
        (10.001, 0, 10.001, True),
        (17, 0, 17, True),
        (5, 900, 900, False),
        (-3, 0, 0, False),
        (100, 900, 900, True),
    ],
)
def test_freshness_is_computed_from_the_age(
    age_s: float, delay_s: float, delayed_by_s: float, stale: bool
) -> None:
    as_of = NOW - timedelta(seconds=age_s)
    assert freshness(as_of, now=NOW, stale_after_s=10, delay_s=delay_s) == (
        max(0, age_s),
        delayed_by_s,
        stale,
    )


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2005-02-25", date(2005, 2, 25)),
        ("2005-02-25T14:30:00Z", date(2005, 2, 25)),
        ("2005-02-25t00:00:00z", date(2005, 2, 25)),
        ("2005-02-25 14:30:00.123456789+00:00", date(2005, 2, 25)),
        ("2005-02-25T21:30:00-05:00", date(2005, 2, 26)),
    ],
)
def test_a_day_is_also_taken_from_an_rfc_3339_time(text: str, day: date) -> None:
    assert GetBars.model_validate({"symbol": "A", "start": text}).start == day
    assert GetBars.model_validate_json(GetBars(symbol="A", start=day).model_dump_json()).start == day


@pytest.mark.parametrize(
    "value",
    [
        0,
        1109289600,
        1109289600.0,
        True,
        "0",
        "1109289600",
        "20050225",
        "2005-W08-5",
        "2005-02-25T14:30:00",
        "2005-02-30",
        "2005-02-25T25:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "today",
        "",
    ],
)
def test_a_text_of_another_form_is_no_day(value: Any) -> None:
    with pytest.raises(ValidationError, match="start"):
        GetBars(symbol="A", start=value)


class OldBar(BaseModel):
    """The part of a bar that the release before reads, in its types."""

    v: int


def test_a_whole_volume_is_an_integer_and_a_fraction_stays_exact() -> None:
    one = Decimal(1)
    whole, part = (Bar(t=NOW, o=one, h=one, l=one, c=one, v=Decimal(v)) for v in ("11635900", "1000.25"))
    assert '"v":11635900,' in whole.model_dump_json()
    assert OldBar.model_validate_json(whole.model_dump_json()).v == 11635900
    assert Bar.model_validate_json(part.model_dump_json()).v == Decimal("1000.25")


def test_quotes_keep_their_decimals_in_json() -> None:
    text = '{"quotes":[{"symbol":"A","price":430.47,"as_of":"2013-03-01T21:00:00Z","source":"x"}]}'
    assert '"price":430.47,' in Quotes.model_validate_json(text).model_dump_json()

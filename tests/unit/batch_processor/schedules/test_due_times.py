"""Due times with real zone data: the days on which clocks change, and the days that a zone has not had."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_processor.schedules.due_times import DueTimes, InvalidCron, UnknownTimeZone, time_zones


def local(cron: str, zone: str, after: str, most: int) -> list[str]:
    """Return the due times as clocks in the zone show them."""
    due_times = DueTimes.of(cron, zone)
    start = datetime.fromisoformat(after).replace(tzinfo=due_times.zone)
    found = due_times.following(start.astimezone(UTC), most=most)
    return [f"{due_at.astimezone(due_times.zone):%m-%d %H:%M%z}" for due_at in found]


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # A day has no such time: it is due at the first minute after the gap.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 02:30+0200"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", ["10-04 02:30+1100", "10-05 02:15+1100"]),
        ("30 0 * * *", "Africa/Cairo", "2026-04-23 12:00", ["04-24 01:00+0300", "04-25 00:30+0300"]),
        # In Dublin it is winter that moves the clocks: the gap and the fold are where others have them.
        ("30 1 * * *", "Europe/Dublin", "2026-03-28 12:00", ["03-29 02:00+0100", "03-30 01:30+0100"]),
        ("30 1 * * *", "Europe/Dublin", "2026-10-24 12:00", ["10-25 01:30+0100", "10-26 01:30+0000"]),
        # A day has the time twice: it is due the first time.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["10-25 02:30+0200", "10-26 02:30+0100"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", ["04-05 01:45+1100", "04-06 01:45+1030"]),
        # Samoa had no 30 December 2011: that day's times came at the first minute of the 31st, once.
        (
            "0 2,12 * * *",
            "Pacific/Apia",
            "2011-12-29 03:00",
            ["12-29 12:00-1000", "12-31 00:00+1400", "12-31 02:00+1400", "12-31 12:00+1400"],
        ),
        ("0 12 30 12 *", "Pacific/Apia", "2011-12-29 03:00", ["12-31 00:00+1400", "12-30 12:00+1400"]),
        # Crons with a star in the hour follow the time that elapses.
        (
            "0 * * * *",
            "Europe/Berlin",
            "2026-10-25 00:30",
            ["10-25 01:00+0200", "10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100"],
        ),
        ("0 * * * *", "Europe/Berlin", "2026-03-29 00:30", ["03-29 01:00+0100", "03-29 03:00+0200"]),
        (
            "30 * * * *",
            "Australia/Lord_Howe",
            "2026-10-04 01:00",
            ["10-04 01:30+1030", "10-04 02:30+1100", "10-04 03:30+1100"],
        ),
        (
            "30 * * * *",
            "Australia/Lord_Howe",
            "2026-04-05 01:00",
            ["04-05 01:30+1100", "04-05 01:30+1030", "04-05 02:30+1030"],
        ),
        ("0 */6 * * *", "Australia/Lord_Howe", "2026-10-04 00:30", ["10-04 06:00+1100", "10-04 12:00+1100"]),
        ("*/30 * * * *", "Pacific/Apia", "2011-12-29 23:15", ["12-29 23:30-1000", "12-31 00:00+1400"]),
        # What a gap takes away from them is left out.
        ("*/30 0 * * 5", "Africa/Cairo", "2026-04-23 12:00", ["05-01 00:00+0300", "05-01 00:30+0300"]),
    ],
)
def test_due_times_on_days_when_clocks_change(cron: str, zone: str, after: str, expected: list[str]) -> None:
    assert local(cron, zone, after, len(expected)) == expected


# A moment shortly before a change of clocks, or before a day without one.
_CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC)),
    ("Europe/Dublin", datetime(2026, 10, 24, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 2, 12, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 3, 12, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 3, 28, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 4, 22, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 10, 31, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 29, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(2026, 11, 27, tzinfo=UTC)),
]
_MINUTES = st.sampled_from(["*", "*/7", "*/30", "0", "15", "30", "0,30", "45-50"])
_HOURS = st.sampled_from(["*", "*/2", "*/6", "0", "1", "2", "2,3", "1-3", "23"])
_DAYS = st.sampled_from(["* * *", "* * 5", "30 * *", "4-5 * *", "*/2 * *", "L * *", "* 10-12 SUN"])


def minute_by_minute(cron: str, due_times: DueTimes, start: datetime, days: int) -> Iterator[datetime]:
    """Yield the moments at which the clocks of the zone fit the fields of the cron."""
    fields = CronSim(cron, start)
    for number in range(1, days * 24 * 60):
        minute = start + timedelta(minutes=number)
        clock = minute.astimezone(due_times.zone)
        if (
            clock.minute in fields.minutes
            and clock.hour in fields.hours
            and clock.month in fields.months
            and fields.match_day(clock.date())
        ):
            yield minute


# The first midnight that fits does not exist, so the day begins at one.
@example(("Africa/Cairo", datetime(2026, 4, 22, tzinfo=UTC)), "*", "*", "* * 5", 0)
@example(("Africa/Cairo", datetime(2026, 4, 22, tzinfo=UTC)), "0,30", "*", "* * 5", 0)
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(_CHANGES), _MINUTES, _HOURS, _DAYS, st.integers(0, 30))
def test_due_times_are_those_that_clocks_show_one_minute_after_the_other(
    change: tuple[str, datetime], minute: str, hour: str, days: str, hours_later: int
) -> None:
    (zone, before), cron = change, f"{minute} {hour} {days}"
    start = before + timedelta(hours=hours_later)
    due_times = DueTimes.of(cron, zone)
    expected = list(minute_by_minute(cron, due_times, start, 3))
    end = start + timedelta(days=3) - timedelta(minutes=1)
    found: list[datetime] = []
    last: datetime | None = start
    while last is not None and (last := due_times.after(last)) is not None and last <= end:
        found.append(last)
    assert all(one < other for one, other in pairwise(found))
    if minute.startswith("*") or hour.startswith("*"):
        assert found == expected
        return
    # Times of the day: the second passage of an hour is left out, and those of a gap come at its end.
    second = [moment for moment in expected if moment.astimezone(due_times.zone).fold]
    moved = [moment for moment in found if moment not in expected]
    assert [moment for moment in found if moment not in moved] == [
        moment for moment in expected if moment not in second
    ]
    for moment in moved:
        clock = moment.astimezone(due_times.zone)
        before_it = (moment - timedelta(minutes=1)).astimezone(due_times.zone)
        assert clock.replace(tzinfo=None) - before_it.replace(tzinfo=None) > timedelta(minutes=1)


def test_the_newest_due_times_are_found_without_those_before_them() -> None:
    until = datetime(2026, 11, 27, 7, 0, 30, tzinfo=UTC)
    since = until - timedelta(days=31)
    every_minute = DueTimes.of("* * * * *", "Europe/Berlin").newest(since=since, until=until, most=100)
    assert (len(every_minute), every_minute[-1]) == (100, until.replace(second=0))
    daily = DueTimes.of("0 3 * * *", "Europe/Berlin")
    assert daily.newest(since=since, until=until, most=100) == daily.following(since, most=31)
    assert daily.newest(since=since, until=until, most=1) == [datetime(2026, 11, 27, 2, tzinfo=UTC)]
    assert daily.newest(since=until - timedelta(hours=1), until=until, most=1) == []


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@daily",
        "60 * * * *",
        "* * 31 2 *",
        "a b c d e",
        "*/0 * * * *",
        "1-0 * * * *",
        "* * * * ²L",
        "0 0 L/2/3 * L",
        "9" * 101 + " * * * *",
        "1," * 60 + "1 * * * *",
    ],
)
def test_an_expression_that_is_not_five_cron_fields_is_refused(cron: str) -> None:
    with pytest.raises(InvalidCron):
        DueTimes.of(cron, "UTC")


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "right/UTC", "Factory"]
)
def test_a_zone_that_the_iana_database_does_not_have_is_refused(zone: str) -> None:
    with pytest.raises(UnknownTimeZone):
        DueTimes.of("* * * * *", zone)


def test_the_zones_are_those_of_the_iana_database() -> None:
    assert {"UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Argentina/Ushuaia"} <= time_zones()


def test_a_cron_that_never_comes_has_no_due_time() -> None:
    assert DueTimes.of("0 0 */29 2 1#5", "UTC").after(datetime(2026, 11, 27, tzinfo=UTC)) is None


def test_rare_due_times_are_listed_for_some_years_only() -> None:
    due_times = DueTimes.of("0 0 * 2 MON#5", "UTC")
    assert due_times.following(datetime(2026, 11, 27, tzinfo=UTC), most=100) == [
        datetime(2044, 2, 29, tzinfo=UTC)
    ]

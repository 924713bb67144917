"""Due times: five fields of cron in an IANA time zone, with fixed rules for the days when clocks change.

A cron expression whose minute and hour fields do not begin with `*` names times of the day: a time that a day
lacks is due at the first minute after the gap, and one that a day has twice is due the first time. Any other
expression follows elapsed time: times in a gap are left out, and an hour that occurs twice counts twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from contracts.schedules import MOST_CRON

_MINUTE = timedelta(minutes=1)
_NOTHING = timedelta()
# No zone has set its clocks back by more than a day.
_AHEAD = timedelta(hours=26)
_FIRST_SPAN = timedelta(hours=2)
_SPAN_FACTOR = 8
# Finding each due time of a cron that matches every 28 years takes some milliseconds.
_LISTED = timedelta(days=5 * 366)
# Files that systems store beside the zones; their meaning depends on the machine.
_NO_ZONES = {"localtime", "posixrules", "Factory"}


class InvalidCron(ValueError):
    """The text is not five fields of cron, or names a time that never occurs."""


class UnknownTimeZone(ValueError):
    """The IANA database does not have the time zone."""


@cache
def time_zones() -> frozenset[str]:
    """Return the names of the IANA time zones. The first call reads some hundred files."""
    return frozenset(available_timezones() - _NO_ZONES)


@dataclass(frozen=True, slots=True)
class DueTimes:
    """The due times of `cron` in `zone`, in UTC. Use `of`, which checks both."""

    cron: str
    zone: ZoneInfo

    @classmethod
    def of(cls, cron: str, time_zone: str) -> DueTimes:
        """Return the due times. Raise `InvalidCron` or `UnknownTimeZone`."""
        if time_zone not in time_zones():
            raise UnknownTimeZone(f"{time_zone!r} is not a time zone in the IANA database.")
        if len(cron) > MOST_CRON or len(cron.split()) != 5:
            raise InvalidCron(
                "must be five fields, minute hour day-of-month month day-of-week, like '30 9 * * MON-FRI'"
            )
        try:
            CronSim(cron, datetime.now(UTC))
        except (CronSimError, ValueError, AssertionError) as error:
            raise InvalidCron(f"is not a cron expression: {str(error) or 'it cannot be read'}") from None
        return cls(cron, ZoneInfo(time_zone))

    def after(self, moment: datetime) -> datetime | None:
        """Return the first due time later than `moment`; None when there is none within 50 years."""
        clock = moment.astimezone(self.zone).replace(tzinfo=None)
        if self._names_times_of_day():
            for found in CronSim(self.cron, clock):
                due_at = self._moment_of(found, fold=0) or self._end_of_gap(found)
                # The first passage of this hour may be over, and several times in a gap are due at its end.
                if due_at > moment:
                    return due_at
            return None
        second_passage: datetime | None = None
        # Clocks that are about to go back will again show times before the present one.
        for found in CronSim(self.cron, clock - self._setback(moment)):
            first = self._moment_of(found, fold=0)
            if first is not None and first > moment:
                return min(first, second_passage or first)
            second = self._moment_of(found, fold=1)
            if second_passage is None and second is not None and second > moment:
                second_passage = second
        return second_passage

    def following(self, moment: datetime, *, most: int) -> list[datetime]:
        """Return the first `most` due times later than `moment`, of some years at most."""
        found: list[datetime] = []
        last: datetime | None = moment
        while len(found) < most and last is not None and last <= moment + _LISTED:
            last = self.after(last)
            if last is not None:
                found.append(last)
        return found

    def newest(self, *, since: datetime, until: datetime, most: int) -> list[datetime]:
        """Return the last `most` due times later than `since` and not later than `until`, in their order."""
        span = _FIRST_SPAN
        while True:
            start = max(since, until - span)
            found: deque[datetime] = deque(maxlen=most)
            last: datetime | None = start
            while last is not None and (last := self.after(last)) is not None and last <= until:
                found.append(last)
            if len(found) == most or start == since:
                return list(found)
            # There are few due times: search further back, over no more than some hundred of them each time.
            span *= _SPAN_FACTOR

    def _names_times_of_day(self) -> bool:
        minute, hour = self.cron.split()[:2]
        return not (minute.startswith("*") or hour.startswith("*"))

    def _setback(self, moment: datetime) -> timedelta:
        """Return the time by which clocks go back within about a day after `moment`."""
        now, later = moment.astimezone(self.zone), (moment + _AHEAD).astimezone(self.zone)
        return max((now.utcoffset() or _NOTHING) - (later.utcoffset() or _NOTHING), _NOTHING)

    def _moment_of(self, clock: datetime, *, fold: int) -> datetime | None:
        """Return the moment of passage `fold` (0 or 1) of `clock`; None when the day lacks it."""
        moment = clock.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)
        return moment if moment.astimezone(self.zone).replace(tzinfo=None) == clock else None

    def _end_of_gap(self, clock: datetime) -> datetime:
        """Return the first minute after the gap that `clock` falls into."""
        # With the offset after the gap, `clock` is before the change; with the offset before it, after.
        before = clock.replace(tzinfo=self.zone, fold=1).astimezone(UTC)
        after = clock.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        old_offset = before.astimezone(self.zone).utcoffset()
        while after - before > _MINUTE:
            middle = before + (after - before) // _MINUTE // 2 * _MINUTE
            if middle.astimezone(self.zone).utcoffset() == old_offset:
                before = middle
            else:
                after = middle
        return after

"""Due times: five fields of cron in an IANA time zone, with stated rules for the days when clocks change.

A cron whose minute and hour fields do not begin with `*` names times of the day: one that a day lacks is
due at the first minute after the gap, and one that a day has twice is due the first time. Any other cron
follows the time that elapses: what falls into a gap is left out, and an hour that comes twice counts twice.
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
_HOUR_S = 3600
# After a change of clocks by a part of an hour, cronsim's steps of an hour are out of step for a day.
_SCANNED = timedelta(hours=26)
_FIRST_SPAN = timedelta(hours=2)
_SPAN_FACTOR = 8
# To find each due time of a cron that comes every 28 years takes some milliseconds.
_LISTED = timedelta(days=5 * 366)
# Files that systems keep beside the zones: what they mean depends on the machine.
_NO_ZONES = {"localtime", "posixrules", "Factory"}


class InvalidCron(ValueError):
    """The text is not five fields of cron, or names a time that never comes."""


class UnknownTimeZone(ValueError):
    """The IANA database does not have the time zone."""


@cache
def time_zones() -> frozenset[str]:
    """Return the names of the IANA time zones. The first call reads some hundred files."""
    return frozenset(available_timezones() - _NO_ZONES)


@dataclass(frozen=True, slots=True)
class DueTimes:
    """The due times of `cron` in `time_zone`, in UTC. Made by `of`, which checks both."""

    cron: str
    zone: ZoneInfo

    @classmethod
    def of(cls, cron: str, time_zone: str) -> DueTimes:
        """Return the due times. Raise `InvalidCron` or `UnknownTimeZone`."""
        if time_zone not in time_zones():
            raise UnknownTimeZone(f"There is no time zone {time_zone!r} in the IANA database.")
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
        start = moment
        if self._is_shifted_by_part_of_hour(moment):
            start = moment + _SCANNED
            if found := self._scan(moment, until=start):
                return found[0]
        for found_there in CronSim(self.cron, start.astimezone(self.zone)):
            due_at = found_there.astimezone(UTC)
            # A search that begins within an hour that comes twice finds times of its first passage; several
            # times of a day in a gap come at the same minute; and midnight itself may fall into a gap.
            if due_at <= start or not self._is_real(found_there):
                continue
            before = max(start, due_at - _SCANNED)
            if self._is_shifted_by_part_of_hour(before) and (found := self._scan(before, until=due_at)):
                return found[0]
            return due_at
        return None

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
            # Few due times: look further back, at no more of them than some hundred each time.
            span *= _SPAN_FACTOR

    def _is_real(self, found: datetime) -> bool:
        """Return whether the day has the time `found`."""
        real = found.astimezone(UTC).astimezone(self.zone)
        return real.replace(tzinfo=None) == found.replace(tzinfo=None)

    def _is_shifted_by_part_of_hour(self, moment: datetime) -> bool:
        """Return whether the cron follows elapsed time, and clocks soon change by a part of an hour."""
        minute, hour = self.cron.split()[:2]
        if not (minute.startswith("*") or hour.startswith("*")):
            return False
        before = moment.astimezone(self.zone).utcoffset()
        later = (moment + _SCANNED).astimezone(self.zone).utcoffset()
        assert before is not None, "a time zone tells its offset"
        assert later is not None, "a time zone tells its offset"
        return (later - before).total_seconds() % _HOUR_S != 0

    def _scan(self, moment: datetime, *, until: datetime) -> list[datetime]:
        """Return the due times later than `moment` and not later than `until`, looked for at each minute."""
        fields = CronSim(self.cron, moment)
        minute = moment.astimezone(UTC).replace(second=0, microsecond=0)
        found = []
        while (minute := minute + _MINUTE) <= until:
            local = minute.astimezone(self.zone)
            if (
                local.minute in fields.minutes
                and local.hour in fields.hours
                and local.month in fields.months
                and fields.match_day(local.date())
            ):
                found.append(minute)
        return found

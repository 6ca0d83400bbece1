"""Calendar windows of budget periods: which [start, end) an instant falls into.

Pure calendar arithmetic; knows no policy and no usage.

Conventions
-----------
- Every instant given may carry a zone; one without is UTC. Every instant returned is UTC without a zone, as stored.
- A day is a calendar day of the organisation's time zone: 23 or 25 hours long when the clocks change. It begins at
  the first instant whose local date is that day or a later one, which also covers zones that skip midnight or a
  whole date, and days whose midnight happens twice.
- A week begins on the stated weekday, a month on its first day; both begin as their first day does.
- An hour is a clock hour of UTC, always 60 minutes, whatever the zone: hourly usage adds up to it exactly, and the
  hour that clocks repeat in autumn is two hours.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from obs_pipeline.policy.schema import WEEKDAYS, Period, Weekday

HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)


class Window(NamedTuple):
    """``start <= instant < end``, both UTC without a zone."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    def holds(self, instant: datetime) -> bool:
        return self.start <= utc(instant) < self.end


def utc(instant: datetime) -> datetime:
    """The instant in UTC without a zone."""
    return instant if instant.tzinfo is None else instant.astimezone(UTC).replace(tzinfo=None)


def hour_of(instant: datetime) -> datetime:
    """The start of the UTC hour of an instant."""
    return utc(instant).replace(minute=0, second=0, microsecond=0)


# Thousands of limits share a handful of calendars: the same window is asked for again and again.
@lru_cache(maxsize=8192)
def window(period: Period, at: datetime, zone: ZoneInfo, week_start: Weekday = "monday") -> Window:
    """The window of ``period`` that holds ``at``."""
    if period == "hourly":
        return Window(hour_of(at), hour_of(at) + HOUR)
    first, following = _dates(period, _day_of(at, zone), week_start)
    return Window(day_start(first, zone), day_start(following, zone))


def _dates(period: Period, day: date, week_start: Weekday) -> tuple[date, date]:
    if period == "daily":
        return day, day + _DAY
    if period == "weekly":
        first = day - _DAY * ((day.weekday() - WEEKDAYS.index(week_start)) % 7)
        return first, first + 7 * _DAY
    first = day.replace(day=1)
    return first, (first + 31 * _DAY).replace(day=1)


def _day_of(at: datetime, zone: ZoneInfo) -> date:
    # Where clocks were put back across midnight, the evening that came twice belongs to the day already begun.
    day = _local(utc(at), zone).date()
    return day + _DAY if day_start(day + _DAY, zone) <= utc(at) else day


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first instant whose date in ``zone`` is ``day`` or later."""
    midnight = datetime.combine(day, time(), zone)
    first, second = utc(midnight), utc(midnight.replace(fold=1))
    return first if first <= second else _first_after_gap(day, zone, second, first)


def _first_after_gap(day: date, zone: ZoneInfo, before: datetime, within: datetime) -> datetime:
    # Midnight was skipped: the day begins at the change itself, found by bisection to the second.
    while within - before > _SECOND:
        middle = before + (within - before) // _SECOND // 2 * _SECOND
        if _local(middle, zone).date() >= day:
            within = middle
        else:
            before = middle
    return within


def _local(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.replace(tzinfo=UTC).astimezone(zone)


def moment(value: date | datetime, zone: ZoneInfo) -> datetime:
    """A date or date-time of a policy as an instant; a date is the start of that day in ``zone``."""
    return utc(value) if isinstance(value, datetime) else day_start(value, zone)


def cut_hours(windows: Iterable[Window]) -> tuple[datetime, ...]:
    """The UTC hours that a window begins or ends within, in order.

    Zones at half and quarter hours cut them. For these hours spend must come from usage finer than an hour.
    """
    edges = {edge for each in windows for edge in each}
    return tuple(sorted({hour_of(edge) for edge in edges if hour_of(edge) != edge}))

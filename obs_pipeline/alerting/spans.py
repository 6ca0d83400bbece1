"""Lengths of time and times of day, as people write them in the routes file and on the command line.

Holds their reading and the arithmetic of quiet times. Clocks are passed in; times are UTC without a zone, a quiet time's
hours are those of its IANA zone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_SPAN: Final = re.compile(r"(\d{1,6})(s|m|h|d|w)")
_UNITS: Final[Mapping[str, timedelta]] = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def span(text: str) -> timedelta:
    """``90s``, ``30m``, ``2h``, ``3d``, ``1w``, or several in a row: ``1h30m``.

    Raises:
        ValueError: it is not written so.
    """
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no length of time; write it as 30m, 2h, 3d or 1h30m")
    total = timedelta()
    for number, unit in parts:
        total += int(number) * _UNITS[unit]
    return total


@dataclass(frozen=True, slots=True)
class QuietTime:
    """From ``begins`` on each of ``days`` until ``ends``, on the next day if that is not later.

    Days are 0 for Monday … 6 for Sunday and are those on which it begins, so a Friday night reaches into Saturday.
    Equal times are a whole day. On the nights when clocks change, it follows the clock on the wall.
    """

    name: str
    zone: str
    days: tuple[int, ...]
    begins: time
    ends: time

    def until(self, now: datetime) -> datetime | None:
        """When it ends, if it is on at ``now``; both UTC without a zone."""
        local = now.replace(tzinfo=UTC).astimezone(ZoneInfo(self.zone)).date()
        for day in (local - timedelta(days=1), local):
            if day.weekday() in self.days:
                last = day if self.ends > self.begins else day + timedelta(days=1)
                if (
                    self._utc(datetime.combine(day, self.begins))
                    <= now
                    < (end := self._utc(datetime.combine(last, self.ends)))
                ):
                    return end
        return None

    def _utc(self, wall: datetime) -> datetime:
        return wall.replace(tzinfo=ZoneInfo(self.zone)).astimezone(UTC).replace(tzinfo=None)

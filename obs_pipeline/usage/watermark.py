"""When a day counts as complete.

A source's watermark is its newest event less the allowed lateness: what is older is expected to have arrived. A day is
provisional while some source that has rows in it has a watermark before the day's end. Event time only, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta


def provisional_days(
    days_by_source: Mapping[str, Iterable[date]], newest_event: Mapping[str, datetime | None], lateness: timedelta
) -> list[date]:
    """The days that late events may still change, in order."""
    provisional = set()
    for source, days in days_by_source.items():
        newest = newest_event.get(source)
        for day in days:
            end = datetime.combine(day + timedelta(days=1), time())
            if newest is None or newest - lateness < end:
                provisional.add(day)
    return sorted(provisional)

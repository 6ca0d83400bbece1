"""When a day counts as complete.

A source's watermark is its newest event less the allowed lateness: what is older is expected to have arrived. A day is
provisional while some source that has rows in it has a watermark before the day's end. A day that some pulled source has not
been read to the end of is provisional too, with rows or without: nothing is known of what came after. Event time only, no clock.
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


def unread_days(
    days: Iterable[date], begun: Mapping[str, date], read_up_to: Mapping[str, datetime | None]
) -> list[date]:
    """The days that some pulled source has not been read to the end of, in order.

    ``begun`` is the first day each source is read from, ``read_up_to`` how far it was (None: not at all).
    """

    def is_unread(day: date) -> bool:
        end = datetime.combine(day + timedelta(days=1), time())
        reached = ((read_up_to.get(name), first) for name, first in begun.items())
        return any(first <= day and (up_to is None or up_to < end) for up_to, first in reached)

    return sorted(day for day in days if is_unread(day))

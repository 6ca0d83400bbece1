"""How long a source may be silent: by what it was told to keep, or else by its own habit.

Pure: landings and pulls in, silences out. A source is heard of when something lands that brings newer events than all
before; a backfill of old events is no sign of life. A source that is pulled is heard of whenever a pull went well, with
events or without. What becomes of a silence is not decided here. Times are UTC without a zone.

A source's habit is the longest silence of each of the last 14 days, by the day it ended on. Usual is the second longest of
these (the longest may have been an outage), allowed is half as much again, and never less than the least. So what lands
every few minutes is missed after the least, what sleeps at night or on Sundays is not missed then, and what lands once a
day is missed after a day and a half. Where too little is known of a source, a fixed time is allowed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Final

HABIT: Final = timedelta(days=14)
"""How far back a habit is looked for."""

_FEWEST_DAYS: Final = 3
_SLACK: Final = 1.5


@dataclass(frozen=True, slots=True)
class Heard:
    """Something of a source that landed: when, and the time of its newest event."""

    source: str
    landed_at: datetime
    last_event: datetime | None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a source may be silent: ``stated`` by name; otherwise by habit, at least ``least``; ``unknown`` where too
    little is known of it."""

    least: timedelta
    unknown: timedelta
    stated: Mapping[str, timedelta]

    def allowed(self, source: str, usual: timedelta | None) -> timedelta:
        if source in self.stated:
            return self.stated[source]
        return self.unknown if usual is None else max(self.least, usual * _SLACK)


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a source has been silent, and how long it may be. ``last_event`` is the newest event it ever sent."""

    source: str
    since: datetime
    allowed: timedelta
    last_event: datetime | None

    def is_stale(self, now: datetime) -> bool:
        return now - self.since > self.allowed


def silences_of_landing(heard: Iterable[Heard], patience: Patience, now: datetime) -> list[Silence]:
    """Every source by what landed, in the order of their names."""
    sources: dict[str, list[Heard]] = defaultdict(list)
    for one in sorted(heard, key=lambda one: one.landed_at):
        sources[one.source].append(one)
    return [_silence(source, own, patience, now) for source, own in sorted(sources.items())]


def silences_of_pulling(pulled_at: Mapping[str, datetime], patience: Patience) -> list[Silence]:
    """Every source by its last pull that went well."""
    return [
        Silence(name, at, patience.stated.get(name, patience.least), None) for name, at in sorted(pulled_at.items())
    ]


def usual_silence(visits: Sequence[datetime]) -> timedelta | None:
    """The second longest of the days' longest silences; None where fewer than three days are known. ``visits`` are in
    order."""
    longest: dict[date, timedelta] = {}
    for before, after in pairwise(visits):
        longest[after.date()] = max(longest.get(after.date(), timedelta()), after - before)
    return sorted(longest.values())[-2] if len(longest) >= _FEWEST_DAYS else None


def _silence(source: str, heard: Sequence[Heard], patience: Patience, now: datetime) -> Silence:
    visits = _with_news(heard)
    recent = [at for at in visits if at > now - HABIT]
    newest = max((one.last_event for one in heard if one.last_event is not None), default=None)
    return Silence(source, visits[-1], patience.allowed(source, usual_silence(recent)), newest)


def _with_news(heard: Sequence[Heard]) -> list[datetime]:
    """When something landed that was newer than all before; the first landing always counts."""
    visits, newest = [heard[0].landed_at], heard[0].last_event
    for one in heard[1:]:
        if one.last_event is not None and (newest is None or one.last_event > newest):
            visits.append(one.landed_at)
            newest = one.last_event
    return visits

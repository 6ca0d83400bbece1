"""Periods and cost budgets of some days as plain rows, for those who know no policy: which windows hold the end of a
day in each organisation's calendar, and which limits in USD are stated where.

Arranges what ``standing`` found; resolves nothing and reads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from obs_pipeline.policy.batch import Standing
from obs_pipeline.policy.eras import Era
from obs_pipeline.policy.schema import Period, Place, Weekday
from obs_pipeline.policy.status import SPEND_CURRENCY
from obs_pipeline.policy.windows import hour_of, window

PERIOD_NAMES: Final[dict[Period, str]] = {"daily": "day", "weekly": "week", "monthly": "month"}
"""The periods that are long enough to be forecast."""

_ORDINARY: Final[tuple[str, Weekday]] = ("UTC", "monday")


def instant_after(at: datetime) -> datetime:
    """The first hour that is not over at ``at`` (UTC): the next midnight for the last instant of a day."""
    return hour_of(at + timedelta(microseconds=1))


def period_windows(found: Standing) -> Iterator[dict[str, Any]]:
    """Day, instant, organisation, period, and the window that holds the instant; usage without organisation by UTC."""
    for era in found.eras:
        calendars: dict[str | None, tuple[str, Weekday]] = {None: _ORDINARY}
        calendars.update({place.org: _calendar(era, place.org) for place in era.effective})
        for at in era.moments:
            as_of = instant_after(at)
            for day in found.days_at(at):
                for org, (zone, week_start) in calendars.items():
                    for period, name in PERIOD_NAMES.items():
                        held = window(period, as_of, ZoneInfo(zone), week_start)
                        yield {
                            "dt": day,
                            "as_of": as_of,
                            "org": org,
                            "period": name,
                            "window_start": held.start,
                            "window_end": held.end,
                        }


def cost_limits(found: Standing) -> Iterator[dict[str, Any]]:
    """Day, scope, period, limit and files of every cost limit in USD, at the scope whose policy states it."""
    for era in found.eras:
        stated = list(_stated(era))
        for at in era.moments:
            for day in found.days_at(at):
                yield from ({"dt": day, **limit} for limit in stated)


def _calendar(era: Era, org: str) -> tuple[str, Weekday]:
    policy = era.effective.get(Place(org))
    return _ORDINARY if policy is None else (policy.time_zone.value, policy.week_start.value)


def _stated(era: Era) -> Iterator[dict[str, Any]]:
    for place, policy in era.effective.items():
        for limit in policy.limits:
            comparable = limit.kind == "cost" and limit.currency in ("", SPEND_CURRENCY)
            if comparable and limit.period in PERIOD_NAMES and limit.ref.scope == place.scope:
                yield {
                    "scope": place.scope,
                    "org": place.org,
                    "project": place.project,
                    "agent": place.agent,
                    "period": PERIOD_NAMES[limit.period],
                    "limit_amount": limit.value,
                    "files": ", ".join(limit.files),
                }

"""Periods and budgets as plain rows: the windows of each organisation's calendar, and limits where they are stated."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import pytest

from obs_pipeline.policy.batch import Standing
from obs_pipeline.policy.calendars import cost_limits, instant_after, period_windows
from obs_pipeline.policy.eras import eras
from obs_pipeline.policy.schema import Place
from obs_pipeline.storage.lake import DayRange
from obs_pipeline_tests.policy.trees import AGENT, ORG, cost, policy

DAY = date(2026, 5, 14)
END = datetime.combine(DAY, time.max)


def found(*tree, moments=(END,), used=()) -> Standing:
    by_day = {at.date(): at for at in moments}
    return Standing(DayRange(min(by_day), max(by_day)), by_day, tuple(used), tuple(eras(moments, lambda _: tree, used)))


def windows(standing: Standing) -> dict[tuple[str | None, str], tuple[datetime, datetime]]:
    rows = period_windows(standing)
    return {(row["org"], row["period"]): (row["window_start"], row["window_end"]) for row in rows}


@pytest.mark.parametrize(
    ("at", "instant"),
    [
        (END, datetime(2026, 5, 15)),
        (datetime(2026, 5, 14, 13, 40), datetime(2026, 5, 14, 13)),
        (datetime(2026, 5, 14), datetime(2026, 5, 14)),
    ],
)
def test_a_day_is_spoken_of_from_its_end_or_from_the_hour_of_the_run(at, instant):
    assert instant_after(at) == instant


def test_the_windows_are_those_of_the_organisations_calendar():
    held = windows(found(policy(ORG, calendar={"time_zone": "Europe/Zurich", "week_start": "sunday"})))
    assert held["acme", "day"] == (datetime(2026, 5, 14, 22), datetime(2026, 5, 15, 22))
    assert held["acme", "week"] == (datetime(2026, 5, 9, 22), datetime(2026, 5, 16, 22))
    assert held["acme", "month"] == (datetime(2026, 4, 30, 22), datetime(2026, 5, 31, 22))


def test_who_has_no_policy_and_usage_without_an_organisation_go_by_utc():
    held = windows(found(used=[Place("globex")]))
    for org in ("globex", None):
        assert held[org, "month"] == (datetime(2026, 5, 1), datetime(2026, 6, 1))


def test_the_end_of_a_month_speaks_of_the_month_that_begins():
    held = windows(found(moments=[datetime(2026, 5, 31, 23, 59, 59, 999999)]))
    assert held[None, "month"][0] == datetime(2026, 6, 1)


def test_only_cost_limits_in_usd_of_a_day_or_more_stand_and_only_where_they_are_stated():
    tree = (
        policy(ORG, budgets={"cost": [cost(100), cost(1, "hourly")], "tokens": {"limit": 5, "period": "daily"}}),
        policy(AGENT, budgets={"cost": [cost(7, "monthly"), cost(9, "weekly", currency="EUR")]}),
    )
    rows = list(cost_limits(found(*tree)))
    assert {(row["scope"], row["period"], row["limit_amount"]) for row in rows} == {
        ("org", "day", 100),
        ("agent", "month", 7),
    }


def test_a_dated_raise_counts_on_its_days():
    raised = cost(10, increases=[{"from": "2026-05-15", "until": "2026-05-16", "limit": 20, "reason": "a launch"}])
    moments = [END, END + timedelta(days=1)]
    rows = list(cost_limits(found(policy(AGENT, budgets={"cost": raised}), moments=moments)))
    assert [(row["dt"].day, row["limit_amount"]) for row in rows] == [(14, 10), (15, 20)]

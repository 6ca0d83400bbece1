"""Policies against usage that happened: alerts, exceeded windows and what would have been stopped."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.policy.replay import LimitKey, replay, usage_span
from obs_pipeline.policy.resolution import resolve_all
from obs_pipeline.policy.schema import Place
from obs_pipeline.policy.status import SPEND_SCHEMA
from obs_pipeline.policy.windows import Window, window
from obs_pipeline_tests.policy.trees import AGENT, ORG, PROJECT, cost, named, policies, policy

MONDAY = datetime(2026, 5, 4)
WEEK = Window(MONDAY, MONDAY + timedelta(days=7))
ANT = Place("acme", "web", "ant")


def used(at, amount, place=AGENT, calls=1, tokens=10) -> dict:
    hour = MONDAY + timedelta(hours=at) if isinstance(at, int) else datetime.fromisoformat(at)
    names = dict(zip(("org", "project", "agent"), place, strict=True))
    return {**names, "hour": hour, "cost": Decimal(amount), "tokens": tokens, "calls": calls}


def played(usage, present, proposed=(), span=WEEK):
    table = pa.Table.from_pylist(usage, schema=SPEND_SCHEMA)
    with duckdb.connect() as connection:
        return replay(present, proposed, table, span, connection)


def outcome(usage, place=AGENT, span=WEEK, **fields):
    found = played(usage, [], [policy(place, **fields)], span)
    [(key, one)] = found.proposed.items()
    assert key.place == place
    return one


def test_the_hour_in_which_a_limit_is_passed_is_let_through_and_the_later_ones_of_its_window_are_stopped():
    usage = [used(1, 6), used(2, 6), used(3, 5, calls=2), used(23, 1), used(25, 9)]
    one = outcome(usage, budgets={"cost": cost(10)})
    assert (one.windows, one.exceeded, one.first_exceeded) == (2, 1, MONDAY + timedelta(hours=2))
    assert (one.calls_blocked, one.cost_blocked) == (3, 6)


def test_a_limit_reached_exactly_is_not_exceeded_and_stops_what_follows():
    one = outcome([used(1, 10), used(2, 1)], budgets={"cost": cost(10)})
    assert (one.exceeded, one.cost_blocked) == (1, 1)
    assert outcome([used(1, 10)], budgets={"cost": cost(10)}).exceeded == 0


def test_a_limit_of_zero_stops_everything():
    one = outcome([used(1, 3), used(2, 4)], budgets={"cost": cost(0)})
    assert (one.exceeded, one.calls_blocked, one.cost_blocked) == (1, 2, 7)


def test_each_threshold_alerts_once_a_window():
    usage = [used(1, 5), used(2, 0), used(3, 4), used(30, 10), used(60, "4.999999999")]
    one = outcome(usage, budgets={"cost": cost(10)}, alerts={"thresholds": [50, 80, 95], "channels": ["widget"]})
    assert one.alerts == 2 + 3


@pytest.mark.parametrize(("kind", "limit"), [("tokens", 15), ("calls", 1)])
def test_tokens_and_calls_are_counted_in_their_own_units(kind, limit):
    one = outcome([used(1, 100), used(2, 100), used(3, 100)], budgets={kind: cost(limit)})
    assert (one.exceeded, one.calls_blocked) == (1, 1 if kind == "tokens" else 2)


def test_a_project_is_held_to_what_everybody_in_it_used():
    usage = [used(1, 6), used(1, 6, ANT), used(2, 1), used(2, 1, ANT), used(2, 9, Place("acme", None, "bot"))]
    one = outcome(usage, PROJECT, budgets={"cost": cost(10)})
    assert (one.exceeded, one.calls_blocked, one.cost_blocked) == (1, 2, 2)


def test_a_call_that_several_limits_would_stop_is_counted_once_in_the_total():
    limits = {ORG: "1.5", PROJECT: "1.2", AGENT: 1}
    tree = [policy(place, id=place.scope, budgets={"cost": cost(limit)}) for place, limit in limits.items()]
    found = played([used(1, 2), used(2, 3), used(2, 3, ANT)], [], tree)
    assert [one.calls_blocked for one in found.proposed.values()] == [2, 2, 1]
    assert found.totals["proposed"].calls_blocked == 2
    assert found.totals["proposed"].cost_blocked == 6
    assert found.totals["present"].calls_blocked == 0


def test_a_window_that_began_before_the_span_is_filled_by_what_came_before():
    tree = [policy(AGENT, budgets={"cost": cost(10, "monthly")})]
    assert usage_span([], tree, WEEK) == Window(datetime(2026, 5, 1), WEEK.end)
    usage = [used("2026-05-02T10:00", 9), used(1, 2), used(2, 3)]
    one = outcome(usage, budgets={"cost": cost(10, "monthly")})
    assert (one.windows, one.exceeded, one.first_exceeded, one.cost_blocked) == (1, 1, MONDAY + timedelta(hours=1), 3)


def test_what_happened_before_the_span_is_not_told_again():
    fields = {"budgets": {"cost": cost(10, "monthly")}, "alerts": {"thresholds": [50], "channels": ["widget"]}}
    one = outcome([used("2026-05-02T10:00", 19), used("2026-05-02T11:00", 5), used(1, 2)], **fields)
    assert (one.exceeded, one.alerts, one.cost_blocked) == (0, 0, 2)


def test_a_dated_raise_holds_for_its_days():
    raised = cost(10, increases=[{"from": "2026-05-05", "until": "2026-05-06", "limit": 30, "reason": "launch"}])
    usage = [used(day * 24 + hour, 8) for day in range(3) for hour in (1, 2, 3)]
    one = outcome(usage, budgets={"cost": raised})
    assert one.values == (10, 30)
    assert (one.exceeded, one.cost_blocked) == (2, 16)


def test_days_are_those_of_the_organisation():
    calendar = {"time_zone": "America/New_York"}
    tree = [policy(ORG, calendar=calendar, budgets={"cost": cost(10)})]
    usage = [used("2026-05-05T03:00", 6), used("2026-05-05T04:00", 6)]  # New York's midnight lies between
    [one] = played(usage, [], tree).proposed.values()
    assert (one.windows, one.exceeded) == (2, 0)
    [one] = played(usage, [], [policy(ORG, budgets={"cost": cost(10)})]).proposed.values()
    assert (one.windows, one.exceeded) == (1, 1)


def test_changes_are_the_limits_that_would_have_done_something_else():
    usage = [used(1, 6), used(2, 6)]
    here = policy(AGENT, id="a", budgets={"cost": cost(10)})
    there = policy(ORG, id="o", budgets={"cost": cost(100)})
    lower = policy(AGENT, id="a", budgets={"cost": cost(5)})
    found = played(usage, [here, there], [lower, there])
    [(key, before, after)] = found.changes()
    assert key == LimitKey(AGENT, "cost", "daily", "USD")
    assert (before.cost_blocked, after.cost_blocked) == (0, 6)
    assert list(played(usage, [here, there], [there, here]).changes()) == []


def test_a_limit_in_another_currency_and_usage_without_an_organisation_do_nothing():
    found = played(
        [used(1, 6, Place(None, None, "bot"))], [], [policy(AGENT, budgets={"cost": cost(1, currency="EUR")})]
    )
    assert (found.proposed, found.totals["proposed"].calls_blocked) == ({}, 0)


def test_no_policies_and_no_usage_are_no_trouble():
    found = played([], [], [])
    assert found.totals["present"] == found.totals["proposed"]
    assert list(found.changes()) == []


def naive(usage, tree, span):
    """One hour after the other, one limit after the other. Limits without raises only."""
    found = {}
    places = {source.policy.place for source in tree}
    for place, effective in resolve_all(places, tree, span.start).items():
        zone, week = ZoneInfo(effective.time_zone.value), effective.week_start.value
        for limit in effective.limits:
            if limit.ref.scope != place.scope or limit.currency not in ("", "USD"):
                continue
            hourly = defaultdict(lambda: [Decimal(0), 0, Decimal(0)])
            for row in usage:
                if all(part in (None, row[name]) for part, name in zip(place[:2], ("org", "project"), strict=True)):
                    if place.agent is not None and (row["agent"], row["project"]) != (place.agent, place.project):
                        continue
                    amount = Decimal(row["cost"] if limit.kind == "cost" else row[limit.kind])
                    hourly[row["hour"]][0] += amount
                    hourly[row["hour"]][1] += row["calls"]
                    hourly[row["hour"]][2] += row["cost"]
            so_far, passed, alerts, calls, money = defaultdict(Decimal), set(), set(), 0, Decimal(0)
            for hour in sorted(hourly):
                begins = window(limit.period, hour, zone, week).start
                if so_far[begins] >= limit.value:
                    calls, money = calls + hourly[hour][1], money + hourly[hour][2]
                so_far[begins] += hourly[hour][0]
                if so_far[begins] > limit.value:
                    passed.add(begins)
                for threshold in effective.thresholds.value:
                    if so_far[begins] > 0 and so_far[begins] * 100 >= threshold * limit.value:
                        alerts.add((begins, threshold))
            found[LimitKey(place, limit.kind, limit.period, limit.currency)] = (len(passed), len(alerts), calls, money)
    return found


_usage = st.lists(
    st.builds(
        used,
        st.integers(0, 7 * 24 - 1),
        st.integers(0, 4),
        st.sampled_from([AGENT, ANT, Place("acme", None, "bot"), Place("acme", "app", "bot")]),
        st.integers(1, 3),
    ),
    max_size=25,
)
_steady = st.lists(policies(budgets={"cost": cost(5), "calls": [cost(2), cost(8, "monthly")]}), max_size=5).map(named)


@settings(max_examples=60)
@given(_usage, _steady)
def test_it_agrees_with_looking_at_one_hour_after_the_other(usage, tree):
    assert {key: one.deeds for key, one in played(usage, [], tree).proposed.items()} == naive(usage, tree, WEEK)

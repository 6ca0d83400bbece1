"""Budget status: what counts into a window, what is crossed, how fast it burns, and exact money throughout."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.policy.resolution import resolve, resolve_all
from obs_pipeline.policy.schema import Place
from obs_pipeline.policy.status import (
    SPEND_SCHEMA,
    budget_status,
    hours_to_split,
    places_of,
    spend_span,
)
from obs_pipeline.policy.windows import Window, window
from obs_pipeline_tests.policy.trees import AGENT, AT, ORG, PROJECT, cost, policy

NOON = AT  # 2026-05-06, a Wednesday


def used(hour, amount="0", place=AGENT, **more) -> dict:
    start = hour if isinstance(hour, datetime) else datetime.fromisoformat(hour)
    return {
        **dict(zip(("org", "project", "agent"), place, strict=True)),
        "hour": start,
        "cost": Decimal(amount),
        **more,
    }


def status(usage, *, at=NOON, place=AGENT, **fields):
    """The only row of a policy for ``place`` with the fields."""
    [row] = budget_status([resolve(place, [policy(place, **fields)], at)], usage, at)
    return row


class TestSpent:
    def test_only_the_hours_of_the_window_up_to_now_count(self):
        usage = [
            used("2026-05-05T23:00", 1),
            used("2026-05-06T00:00", 2),
            used("2026-05-06T11:00", 4),
            used("2026-05-06T12:00", 8),  # begins now: not yet spent
            used("2026-05-07T00:00", 16),
        ]
        row = status(usage, budgets={"cost": cost(10)})
        assert (row.spent, row.window_start, row.window_end) == (6, datetime(2026, 5, 6), datetime(2026, 5, 7))
        assert status(usage, at=NOON + timedelta(minutes=1), budgets={"cost": cost(10)}).spent == 14

    def test_every_scope_is_compared_with_all_that_was_used_within_it(self):
        stray, other, elsewhere = Place("acme", None, "bot"), Place("acme", "web", "ant"), Place("globex", "web", "bot")
        places = [AGENT, other, stray, elsewhere, Place("acme", "web")]
        usage = [used("2026-05-06T01:00", 2**n, place) for n, place in enumerate(places)]
        tree = [policy(Place("acme"), budgets={"cost": cost(100)})]
        found = resolve_all([ORG, PROJECT, AGENT, stray], tree, NOON).values()
        spent = {str(row.place): row.spent for row in budget_status(found, usage, NOON)}
        assert spent == {"acme": 1 + 2 + 4 + 16, "acme/web": 1 + 2 + 16, "acme/web/bot": 1, "acme/-/bot": 4}

    def test_tokens_and_calls_are_summed_from_their_own_columns(self):
        usage = [used("2026-05-06T11:00", 9, tokens=1000, calls=3), used("2026-05-06T11:00", 9, tokens=None, calls=4)]
        assert status(usage, budgets={"tokens": cost(5000, "hourly")}, at=NOON - timedelta(minutes=1)).spent == 1000
        assert status(usage, budgets={"calls": cost(10)}).spent == 7

    def test_money_is_exact_to_the_nano_dollar_over_many_rows(self):
        usage = [used("2026-05-06T01:00", "0.000000001") for _ in range(1000)] + [
            used("2026-05-06T02:00", "123456789012")
        ]
        assert status(usage, budgets={"cost": cost(1)}).spent == Decimal("123456789012.000001000")

    def test_a_credit_lowers_the_spend(self):
        usage = [used("2026-05-06T01:00", 10), used("2026-05-06T02:00", -4)]
        assert status(usage, budgets={"cost": cost(10)}).spent == 6

    def test_without_usage_nothing_is_spent(self):
        row = status([], budgets={"cost": cost(10)})
        assert (row.spent, row.ratio, row.state, row.crossed, row.burn_long) == (0, 0.0, "ok", None, 0.0)

    def test_no_policies_give_no_rows(self):
        assert budget_status([], [used("2026-05-06T01:00", 1)], NOON) == ()

    def test_usage_may_be_an_arrow_table_with_columns_missing_or_added(self):
        usage = pa.table(
            {
                "agent": ["bot"],
                "org": ["acme"],
                "project": ["web"],
                "hour": pa.array([datetime(2026, 5, 6, 3)], pa.timestamp("us")),
                "cost": pa.array([Decimal("1.5")], pa.decimal128(18, 9)),
                "model": ["m"],
            }
        )
        assert status(usage, budgets={"cost": cost(3)}).ratio == 0.5

    def test_an_edit_in_mid_window_changes_the_limit_and_not_the_spend(self):
        usage = [used("2026-05-06T01:00", 6)]
        before = status(usage, budgets={"cost": cost(10)})
        after = status(usage, budgets={"cost": cost(20)}, id="rewritten")
        assert (before.spent, after.spent, after.ratio) == (6, 6, 0.3)
        assert before.window_key == after.window_key

    @pytest.mark.parametrize(
        ("zone", "day"),
        [
            ("Europe/Zurich", "2026-03-29T12:00"),
            ("Europe/Zurich", "2026-10-25T12:00"),
            ("Asia/Kolkata", "2026-05-06T12:00"),
            ("Australia/Lord_Howe", "2026-04-05T02:00"),
            ("America/New_York", "2024-02-29T12:00"),
        ],
    )
    @pytest.mark.parametrize("period", ["daily", "weekly", "monthly"])
    def test_a_window_in_any_zone_equals_the_sum_of_the_events_by_local_date(self, zone, day, period):
        # An event every quarter of an hour over three months, hour by hour except where a window cuts an hour.
        noon = datetime.fromisoformat(day)
        events = [noon - timedelta(days=45) + timedelta(minutes=15 * n) for n in range(90 * 96)]
        org = policy(ORG, calendar={"time_zone": zone, "week_start": "sunday"}, budgets={"cost": cost(1, period)})
        at = window(period, noon, ZoneInfo(zone), "sunday").end - timedelta(seconds=1)
        effective = resolve(ORG, [org], at)
        split = set(hours_to_split([effective], at))
        rows: dict[datetime, int] = {}
        for event in events:
            hour = event.replace(minute=0)
            start = event if hour in split else hour
            rows[start] = rows.get(start, 0) + 1
        [row] = budget_status([effective], [used(hour, n, ORG) for hour, n in rows.items()], at)
        assert row.spent == sum(
            local_period(event, zone, period) == local_period(noon, zone, period) for event in events
        )
        assert bool(split) == (zone in ("Asia/Kolkata", "Australia/Lord_Howe"))


def local_period(instant, zone, period):
    local = instant.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).date()
    if period == "daily":
        return local
    if period == "monthly":
        return (local.year, local.month)
    return local - timedelta(days=local.isoweekday() % 7)


class TestInterval:
    def test_unpriced_calls_widen_the_spend_to_an_interval(self):
        usage = [used("2026-05-06T01:00", 4, unpriced_calls=2, cost_bound=Decimal(5)), used("2026-05-06T02:00", 1)]
        row = status(usage, budgets={"cost": cost(10)}, alerts={"thresholds": [50, 80, 95]})
        assert (row.spent, row.spent_upper, row.ratio, row.ratio_upper) == (5, 10, 0.5, 1.0)
        assert (row.crossed, row.crossed_upper) == (50, 95)

    def test_unpriced_calls_without_a_bound_leave_the_upper_end_unknown(self):
        usage = [used("2026-05-06T01:00", 1, unpriced_calls=1, cost_bound=None)]
        row = status(usage, budgets={"cost": cost(10)}, alerts={"thresholds": [50, 80]})
        assert (row.spent, row.spent_upper, row.ratio_upper, row.crossed, row.crossed_upper) == (
            1,
            None,
            None,
            None,
            80,
        )

    def test_a_bound_outside_the_window_does_not_matter(self):
        usage = [used("2026-05-05T23:00", 1, unpriced_calls=1, cost_bound=None)]
        assert status(usage, budgets={"cost": cost(10)}).spent_upper == 0

    def test_tokens_are_known_even_where_the_price_is_not(self):
        usage = [used("2026-05-06T01:00", 0, tokens=7, unpriced_calls=1, cost_bound=None)]
        assert status(usage, budgets={"tokens": cost(10)}).spent_upper == 7

    def test_a_limit_in_another_currency_is_not_compared(self):
        row = status(
            [used("2026-05-06T01:00", 5)], budgets={"cost": cost(1, currency="EUR")}, alerts={"thresholds": [50]}
        )
        assert (row.state, row.spent, row.spent_upper, row.ratio, row.crossed) == (
            "incomparable",
            None,
            None,
            None,
            None,
        )


class TestThresholds:
    @pytest.mark.parametrize(
        ("spent", "crossed", "state"),
        [
            ("0", None, "ok"),
            ("4.999999999", None, "ok"),
            ("5", 50, "warning"),
            ("7.999999999", 50, "warning"),
            ("8", 80, "warning"),
            ("9.6", 95, "warning"),
            ("10", 95, "warning"),
            ("10.000000001", 95, "exceeded"),
            ("12", 120, "exceeded"),
        ],
    )
    def test_the_highest_threshold_reached_is_the_one_crossed(self, spent, crossed, state):
        alerts = {"thresholds": [50, 80, 95, 120], "channels": ["slack"]}
        row = status([used("2026-05-06T01:00", spent)], budgets={"cost": cost(10)}, alerts=alerts)
        assert (row.crossed, row.state, row.channels) == (crossed, state, ("slack",))

    @pytest.mark.parametrize(("spent", "crossed", "state"), [("0", None, "ok"), ("0.01", 80, "exceeded")])
    def test_a_limit_of_zero_is_exceeded_by_anything(self, spent, crossed, state):
        row = status([used("2026-05-06T01:00", spent)], budgets={"cost": cost(0)}, alerts={"thresholds": [50, 80]})
        assert (row.crossed, row.state, row.ratio, row.burn_long) == (crossed, state, None, None)

    def test_window_keys_differ_by_place_kind_and_period(self):
        places = [AGENT, PROJECT, ORG, Place("acme", None, "bot"), Place("acme", "web/bot"), Place("acme/web", "bot")]
        budgets = {"cost": [cost(1), cost(2, "monthly")], "calls": cost(3)}
        tree = [policy(place, id=f"p{n}", budgets=budgets) for n, place in enumerate(places)]
        rows = budget_status(resolve_all(places, tree, NOON).values(), [], NOON)
        assert len({row.window_key for row in rows}) == len(rows) == 18

    def test_a_row_tells_at_which_scope_its_limit_was_set(self):
        tree = [policy(ORG, budgets={"cost": cost(10)}), policy(AGENT, budgets={"calls": cost(5)})]
        rows = budget_status([resolve(AGENT, tree, NOON)], [], NOON)
        assert [(row.kind, row.scope, row.set_at, row.deciding_files) for row in rows] == [
            ("cost", "agent", "org", ("org.yaml",)),
            ("calls", "agent", "agent", ("agent.yaml",)),
        ]


class TestBurn:
    def test_an_even_pace_burns_at_one(self):
        usage = [used(datetime(2026, 5, 6, hour), 1) for hour in range(12)]
        row = status(usage, budgets={"cost": cost(24)})
        assert (row.burn_short, row.burn_long) == (pytest.approx(1), pytest.approx(1))
        assert row.projected_exhaustion is None

    def test_a_burst_shows_in_the_short_span_first(self):
        row = status([used("2026-05-06T11:00", 6)], budgets={"cost": cost(24)})
        assert (row.burn_short, row.burn_long) == (pytest.approx(6), pytest.approx(1))

    def test_exhaustion_is_what_is_left_over_the_pace_of_the_long_span(self):
        usage = [used(datetime(2026, 5, 6, hour), 2) for hour in range(6, 12)]  # 2 an hour, 12 spent
        row = status(usage, budgets={"cost": cost(20)})
        assert row.projected_exhaustion == datetime(2026, 5, 6, 16)
        assert status(usage, budgets={"cost": cost(36)}).projected_exhaustion is None  # only at midnight
        assert status(usage, budgets={"cost": cost(12)}).projected_exhaustion is None  # reached already

    def test_within_an_hour_a_span_begins_on_the_full_hour_and_its_true_length_counts(self):
        usage = [used("2026-05-06T06:00", 10), used("2026-05-06T11:00", 3)]
        row = status(usage, at=NOON + timedelta(minutes=30), budgets={"cost": cost(48)})
        assert row.burn_short == pytest.approx(3 / 1.5 / 2)
        assert row.burn_long == pytest.approx(13 / 6.5 / 2)

    def test_the_trailing_spans_look_back_beyond_the_window(self):
        usage = [used("2026-05-05T23:00", 6)]
        row = status(usage, at=datetime(2026, 5, 6, 1), budgets={"cost": cost(24)})
        assert (row.spent, row.burn_long) == (0, pytest.approx(1))
        assert spend_span(
            [resolve(AGENT, [policy(AGENT, budgets={"cost": cost(24)})], NOON)], datetime(2026, 5, 6, 1)
        ) == (Window(datetime(2026, 5, 5, 19), datetime(2026, 5, 6, 1)))

    def test_a_day_of_25_hours_has_an_hour_more_to_spend_its_limit(self):
        at = datetime(2026, 10, 25, 12)
        org = policy(ORG, calendar={"time_zone": "Europe/Zurich"}, budgets={"cost": cost(25)})
        usage = [used(datetime(2026, 10, 25, hour), 1, ORG) for hour in range(12)]
        [row] = budget_status([resolve(ORG, [org], at)], usage, at)
        assert row.burn_long == pytest.approx(1)


def test_the_span_to_read_reaches_back_to_the_earliest_window():
    tree = [policy(ORG, budgets={"cost": [cost(1), cost(2, "monthly")]})]
    assert spend_span([resolve(AGENT, tree, NOON)], NOON) == Window(datetime(2026, 5, 1), NOON)
    assert spend_span([], NOON) is None


def test_usage_names_its_places_and_all_above_them():
    usage = [
        ("acme", "web", "bot"),
        ("acme", None, "bot"),
        ("acme", "web", None),
        (None, "web", "bot"),
        ("b", None, None),
    ]
    assert places_of(usage) == (ORG, Place("acme", None, "bot"), PROJECT, AGENT, Place("b"))


amounts = st.decimals(-5, 50, places=9)
rows = st.lists(
    st.builds(
        used,
        st.datetimes(datetime(2026, 4, 25), datetime(2026, 5, 8)).map(
            lambda t: t.replace(minute=0, second=0, microsecond=0)
        ),
        amounts,
        st.sampled_from([AGENT, Place("acme", "web", "ant"), Place("acme", None, "bot"), Place("acme", "web", None)]),
        tokens=st.one_of(st.none(), st.integers(0, 10**12)),
        calls=st.integers(0, 9),
        unpriced_calls=st.integers(0, 1),
        cost_bound=st.one_of(st.none(), st.decimals(0, 9, places=9)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(rows, st.datetimes(datetime(2026, 5, 1), datetime(2026, 5, 7)), st.sampled_from(["UTC", "Europe/Zurich"]))
def test_status_agrees_with_adding_rows_up_by_hand(usage, at, zone):
    budgets = {
        "cost": [cost(10, period) for period in ("hourly", "daily", "weekly", "monthly")],
        "tokens": cost(10),
        "calls": cost(3, "weekly"),
    }
    tree = [policy(ORG, calendar={"time_zone": zone}, budgets=budgets)]
    found = budget_status(resolve_all([ORG, PROJECT, AGENT], tree, at).values(), usage, at)
    assert len(found) == 18
    for row in found:
        place = tuple(row.place)
        mine = [
            each
            for each in usage
            if all(
                wanted in (None, each[name]) for name, wanted in zip(("org", "project", "agent"), place, strict=True)
            )
            and row.window_start <= each["hour"] < min(row.window_end, at)
        ]
        assert row.spent == sum((each[row.kind] or 0 for each in mine), Decimal(0))
        if row.kind == "cost":
            unbounded = any(each["unpriced_calls"] and each["cost_bound"] is None for each in mine)
            upper = row.spent + sum((each["cost_bound"] or 0 for each in mine), Decimal(0))
            assert row.spent_upper == (None if unbounded else upper)


def test_the_schema_of_usage_has_the_columns_of_the_hourly_table():
    assert SPEND_SCHEMA.field("cost").type == pa.decimal128(38, 9)
    assert SPEND_SCHEMA.field("hour").type == pa.timestamp("us")

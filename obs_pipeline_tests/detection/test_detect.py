"""Detection over days: from usage tables to baselines and anomalies."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.detection.config import (
    AnomalyDetectionConfig,
    GrainFloors,
    Materiality,
    Method,
    MinimumCalls,
    NewAgentCeiling,
)
from obs_pipeline.detection.detect import Detection, detect_anomalies
from obs_pipeline.detection.models import ANOMALY_SCHEMA, BASELINE_SCHEMA, anomalies_from_table
from obs_pipeline_tests.detection.series_rows import daily, hourly, row

DAY = date(2025, 3, 1)
SMALL = AnomalyDetectionConfig(
    lookback_days=4,
    minimum_data_points=2,
    minimum_calls=MinimumCalls(errors=2, latency=2),
    source_silence_hours=3,
    materiality=Materiality(
        cost=GrainFloors(day=1e-3, hour=1e-3),
        tokens=GrainFloors(day=1, hour=1),
        errors=GrainFloors(day=0.1, hour=0.1),
        latency=GrainFloors(day=1, hour=1),
        relative=0,
    ),
)


def at(day: int, hour: int = 12) -> datetime:
    return datetime.combine(DAY, datetime.min.time()) + timedelta(days=day, hours=hour)


def detect(rows, first: int, last: int | None = None, config=SMALL, evidence=None) -> Detection:
    hours = hourly(rows)
    days = (DAY + timedelta(days=first), DAY + timedelta(days=first if last is None else last))
    found = detect_anomalies(hours, daily(hours), days, config, evidence)
    return replace(found, baselines=found.baselines.cast(BASELINE_SCHEMA))


def steady(days: range, **values) -> list[dict]:
    """A series alike every day, give or take a few percent, one row an hour."""
    return [
        row(
            at(day, hour),
            **{
                "calls": 40,
                "cost": round(10 + (day * 7 + hour) % 5 * 0.2, 3),
                "input_tokens": 1_000_000,
                "latency_ms": 900,
                **values,
            },
        )
        for day in days
        for hour in range(24)
    ]


def found(detection: Detection, **wanted):
    return [
        one
        for one in anomalies_from_table(detection.anomalies)
        if all(getattr(one, name) == value for name, value in wanted.items())
    ]


USAGE_ROWS = st.lists(
    st.builds(
        lambda day, hour, agent, source, calls, errors, cost, tokens, ms, over: row(
            at(day, hour),
            agent=agent,
            source=source,
            calls=calls,
            errors=min(errors, calls),
            cost=cost,
            input_tokens=tokens,
            latency_ms=ms,
            mispriced_calls=1 if over else 0,
            overcharge=over,
            overcharged_list_cost=1 if over else None,
        ),
        day=st.integers(-1, 9),
        hour=st.sampled_from([0, 1, 5, 12, 23]),
        agent=st.sampled_from(["a", "b", None]),
        source=st.sampled_from(["s", "t"]),
        calls=st.integers(1, 30),
        errors=st.integers(0, 30),
        cost=st.one_of(st.none(), st.integers(0, 5), st.just(5000)),
        tokens=st.one_of(st.none(), st.integers(0, 10**6)),
        ms=st.one_of(st.none(), st.floats(0.05, 1e5)),
        over=st.sampled_from([None, None, None, 2, 50]),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=20)
@given(rows=USAGE_ROWS)
def test_a_range_of_days_gives_exactly_what_its_days_give_one_by_one(rows):
    whole = detect(rows, 4, 8)
    single = [
        detect([one for one in rows if at(day - SMALL.history_days, 0) <= one["hour"] < at(day + 1, 0)], day)
        for day in range(4, 9)
    ]
    assert whole.baselines.equals(pa.concat_tables([one.baselines for one in single]).combine_chunks())
    assert whole.anomalies.equals(pa.concat_tables([one.anomalies for one in single]).combine_chunks())


def test_baselines_made_of_a_few_days_at_a_time_are_those_of_all_days_at_once(monkeypatch):
    rows = steady(range(12))
    at_once = detect(rows, 4, 11).baselines
    monkeypatch.setattr("obs_pipeline.detection.detect._BASELINES_AT_ONCE", at_once.num_rows // 4)
    in_pieces = detect(rows, 4, 11).baselines
    assert in_pieces["dt"].num_chunks > at_once["dt"].num_chunks == 1
    assert in_pieces.combine_chunks().equals(at_once.combine_chunks())


@settings(deadline=None, max_examples=20)
@given(rows=USAGE_ROWS, later=USAGE_ROWS, hour=st.integers(0, 23))
def test_what_happens_later_changes_no_earlier_baseline_or_anomaly(rows, later, hour):
    now = at(6, hour)
    earlier = [one for one in rows if one["hour"] < now]
    before = detect(earlier, 4, 8)
    after = detect(earlier + [one for one in later if one["hour"] >= now], 4, 8)
    kept = [_before(one.baselines, now) for one in (before, after)]
    assert kept[0].equals(kept[1])
    # An anomaly of hours may grow, and another metric may come to speak for it: what it stands for stays.
    begun = [_before(one.anomalies, now).select(["id", "timestamp", "observed", "baseline"]) for one in (before, after)]
    assert begun[0].equals(begun[1])


def _before(table: pa.Table, now: datetime) -> list:
    time = "time" if "time" in table.column_names else "timestamp"
    hours = pc.and_(pc.equal(table["grain"], "hour"), pc.less(table[time], pa.scalar(now, pa.timestamp("us"))))
    days = pc.and_(pc.equal(table["grain"], "day"), pc.less(table["dt"], pa.scalar(now.date(), pa.date32())))
    return table.filter(pc.or_(hours, days))


@settings(deadline=None, max_examples=15)
@given(rows=USAGE_ROWS, seed=st.integers(0, 99))
def test_the_order_of_the_rows_changes_nothing(rows, seed):
    shuffled = [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]
    assert detect(rows, 4, 8).baselines.equals(detect(shuffled, 4, 8).baselines)
    assert detect(rows, 4, 8).anomalies.equals(detect(shuffled, 4, 8).anomalies)


@settings(deadline=None, max_examples=15)
@given(rows=USAGE_ROWS)
def test_other_agents_change_nothing_as_long_as_their_source_was_heard_anyway(rows):
    heartbeat = [
        row(at(day, hour), agent="z", source=source) for day in range(-1, 10) for hour in range(24) for source in "st"
    ]
    mine = [one for one in rows if one["agent"] == "a"]
    alone, together = detect(heartbeat + mine, 4, 8), detect(heartbeat + rows, 4, 8)
    for table in ("baselines", "anomalies"):
        one, other = (getattr(which, table) for which in (alone, together))
        assert one.filter(pc.equal(one["agent"], "a")).equals(other.filter(pc.equal(other["agent"], "a")))


def test_the_tables_have_their_schemas_and_no_repeated_keys():
    detection = detect([*steady(range(8)), row(at(7), cost=9000)], 4, 7)
    assert detection.baselines.schema == BASELINE_SCHEMA
    assert detection.anomalies.schema == ANOMALY_SCHEMA
    key = ["grain", "time", "org", "project", "agent", "metric"]
    assert detection.baselines.group_by(key).aggregate([]).num_rows == detection.baselines.num_rows
    ids = detection.anomalies["id"].to_pylist()
    assert len(ids) == len(set(ids)) > 0


def test_nothing_to_detect_and_disabled_detection_give_empty_tables():
    for detection in (detect([], 4), detect(steady(range(8)), 7, config=AnomalyDetectionConfig(enabled=False))):
        assert detection.baselines.num_rows == detection.anomalies.num_rows == 0
        assert detection.baselines.schema == BASELINE_SCHEMA
        assert detection.anomalies.schema == ANOMALY_SCHEMA


def test_only_the_chosen_metrics_and_grains_are_looked_at():
    config = SMALL.model_copy(update={"metrics": ("tokens",), "grains": ("day",)})
    baselines = detect(steady(range(8)), 7, config=config).baselines
    assert set(baselines["metric"].to_pylist()) == {"tokens"}
    assert set(baselines["grain"].to_pylist()) == {"day"}


REAL = AnomalyDetectionConfig()


def test_an_ordinary_month_raises_nothing():
    detection = detect(steady(range(60)), 28, 59, REAL)
    assert detection.anomalies.num_rows == 0
    assert set(detection.baselines["state"].to_pylist()) == {"ok"}


def test_fewer_points_than_the_minimum_is_learning_without_alarm():
    rows = [*steady(range(6), cost=1), row(at(6), cost=90)]
    baselines = detect(rows, 0, 6, REAL).baselines
    assert set(baselines["state"].to_pylist()) == {"learning"}
    assert baselines["expected"].null_count == baselines.num_rows
    assert detect(rows, 0, 6, REAL).anomalies.num_rows == 0


def fleet(days: int, agents: int = 8) -> list[dict]:
    """Agents of one project that spend some $5 to $8.50 an hour; the last one is new on the last day."""
    return [
        {**one, "agent": f"a{number}", "cost": (one["cost"] * (10 + number) / 20).quantize(Decimal("0.001"))}
        for number in range(agents)
        for one in steady(range(days - 1 if number == agents - 1 else 0, days))
    ]


@pytest.mark.parametrize("grain", ["day", "hour"])
def test_a_new_agent_is_compared_with_those_of_its_project_and_never_critical_by_that(grain):
    rows = fleet(30)
    quiet = detect(rows, 29, config=REAL)
    assert found(quiet) == []
    of_new = quiet.baselines.filter(pc.equal(quiet.baselines["agent"], "a7"))
    assert set(of_new.filter(pc.equal(of_new["grain"], grain))["state"].to_pylist()) == {"borrowed"}
    heavy = [{**one, "cost": one["cost"] * 400, "input_tokens": 10**9} if one["agent"] == "a7" else one for one in rows]
    config = REAL.model_copy(update={"new_agent_ceiling": NewAgentCeiling(warning=1e6, critical=1e9)})
    told = [one for one in found(detect(heavy, 29, config=config), grain=grain) if "echo_of" not in one.context]
    assert {(one.agent, one.severity, one.context["borrowed_from"]) for one in told} == {("a7", "warning", "project")}
    assert all("going by the agents of its project, as it is new" in one.reason for one in told)
    assert all(0 < one.confidence < 1 for one in told)


def test_with_too_few_agents_around_it_a_new_agent_learns():
    rows = fleet(30, agents=5)
    baselines = detect(rows, 29, config=REAL).baselines
    assert set(baselines.filter(pc.equal(baselines["agent"], "a4"))["state"].to_pylist()) == {"learning"}


@pytest.mark.parametrize(("cost", "severity"), [(99, None), (150, "warning"), (1500, "critical")])
def test_a_first_ever_heavy_spender_is_told_by_an_absolute_ceiling_the_first_time(cost, severity):
    rows = [row(at(day), cost=cost) for day in (3, 4, 5)]
    told = found(detect(rows, 0, 5, REAL), metric="cost")
    assert {(one.dt, one.severity, one.method) for one in told} == (
        {(at(3).date(), severity, "new_agent_ceiling")} if severity else set()
    )
    assert {one.grain for one in told} == ({"day", "hour"} if severity else set())
    assert all("a new agent may spend $100.00 at once before it is told" in one.reason for one in told)


@pytest.mark.parametrize("method", ["zscore", "usage_model"])
@pytest.mark.parametrize(("hours", "told"), [(2, False), (3, True), (24, True)])
def test_an_agent_that_never_rests_and_falls_silent_is_told_however_little_it_costs(hours, told, method):
    alive = [row(at(day, hour), agent="z") for day in range(30) for hour in range(24)]
    silent = {at(29, hour) for hour in range(hours)}
    rows = [
        {**one, "cost": Decimal("0.001"), "input_tokens": 10} for one in steady(range(30)) if one["hour"] not in silent
    ]
    config = AnomalyDetectionConfig.model_validate({"method": {"hour": method}})
    drops = found(detect(alive + rows, 29, config=config), agent="a")
    grains = {("hour", "warning", 0.0)} | ({("day", "warning", 0.0)} if hours == 24 else set())
    assert {(one.grain, one.severity, one.observed) for one in drops} == (grains if told else set())
    assert all((one.deviation or 0) < 0 and "made no calls" in one.reason for one in drops)


@pytest.mark.parametrize(
    ("now", "grains"), [(at(29, 12), {"hour"}), (at(30, 0), {"day", "hour"}), (None, {"day", "hour"})]
)
def test_what_is_not_over_is_no_drop(now, grains):
    alive = [row(at(day, hour), agent="z") for day in range(30) for hour in range(24)]
    rows = [one for one in steady(range(30)) if one["hour"] < at(29, 0)]
    hours = hourly(alive + rows)
    day = at(29).date()
    drops = anomalies_from_table(detect_anomalies(hours, daily(hours), (day, day), REAL, now=now).anomalies)
    assert {one.grain for one in drops} == grains
    assert now is None or all(one.timestamp < now for one in drops)


@pytest.mark.parametrize(
    ("metric", "change"),
    [
        ("cost", {"cost": 80}),
        ("tokens", {"input_tokens": 9_000_000}),
        ("errors", {"errors": 30}),
        ("latency", {"latency_ms": 9000}),
    ],
)
@pytest.mark.parametrize("method", get_args(Method))
def test_a_bad_hour_is_critical_in_its_metric_alone(metric, change, method):
    config = AnomalyDetectionConfig.model_validate({"method": {"day": method, "hour": method}})
    rows = [one for one in steady(range(30)) if one["hour"] != at(29, 15)]
    rows.append(row(at(29, 15), **{"calls": 40, "cost": 10, "input_tokens": 1_000_000, "latency_ms": 900, **change}))
    hours = found(detect(rows, 29, config=config), grain="hour")
    assert [(one.metric, one.severity, one.timestamp) for one in hours] == [(metric, "critical", at(29, 15))]
    (anomaly,) = hours
    assert anomaly.observed > anomaly.upper > anomaly.baseline >= anomaly.lower
    assert anomaly.deviation > 5
    assert anomaly.method == method


def test_one_outlier_does_not_hide_the_next():
    spikes = {at(29, 15), at(30, 15), at(33, 15)}
    rows = [
        row(one["hour"], calls=40, cost=5000 if one["hour"] == at(29, 15) else 80) if one["hour"] in spikes else one
        for one in steady(range(35))
    ]
    config = AnomalyDetectionConfig.model_validate({"method": {"hour": "zscore"}})
    hours = found(detect(rows, 29, 34, config), grain="hour", metric="cost")
    assert {one.timestamp for one in hours} == spikes
    assert {one.severity for one in hours} == {"critical"}


def test_a_drop_to_nothing_is_an_anomaly_of_a_regular_agent_and_not_of_an_idle_one():
    alive = [row(at(day, hour), agent="z") for day in range(31) for hour in range(24)]
    regular = [one for one in steady(range(31)) if one["hour"] < at(30, 0)]
    seldom = [row(at(day), agent="seldom", cost=50) for day in range(0, 28, 3)]
    drops = found(detect(alive + regular + seldom, 30, config=REAL), grain="day")
    assert {(one.agent, one.metric) for one in drops} == {("a", "cost"), ("a", "tokens")}
    assert all(one.deviation < 0 and one.observed == 0 for one in drops)


def test_a_silent_source_is_a_drop_for_the_hours_of_silence_and_unknown_after_them():
    detection = detect([one for one in steady(range(31)) if one["hour"] < at(30, 0)], 30, config=REAL)
    (one,) = found(detection, metric="cost")
    assert (one.timestamp, one.context["until"], one.context["abnormal_hours"]) == (at(30, 0), at(30, 6).isoformat(), 6)
    assert set(detection.baselines["grain"].to_pylist()) == {"hour"}
    assert pc.max(detection.baselines["time"]).as_py() == at(30, 5)


@pytest.mark.parametrize("method", ["zscore", "usage_model"])
def test_a_storm_of_six_hours_is_one_anomaly_led_by_one_metric(method):
    """Three times the calls, most of them failing, at three times the cost."""
    storm = {at(29, hour) for hour in range(10, 16)}
    rows = [
        {**one, "calls": 160, "errors": 100, "cost": one["cost"] * 5, "input_tokens": 5_000_000}
        if one["hour"] in storm
        else one
        for one in steady(range(30))
    ]
    config = AnomalyDetectionConfig.model_validate({"method": {"hour": method}})
    hours = found(detect(rows, 29, config=config), grain="hour")
    assert len(hours) == len({one.metric for one in hours}) >= 3
    (leader,) = [one for one in hours if "echo_of" not in one.context]
    assert (leader.timestamp, leader.severity, leader.context["until"]) == (
        at(29, 10),
        "critical",
        at(29, 16).isoformat(),
    )
    echoes = [one for one in hours if one is not leader]
    assert {(one.context["echo_of"], one.severity) for one in echoes} == {(leader.id, "info")}
    assert max(one.score for one in echoes) < leader.score


def storm(rows: list[dict], first: int, hour: int, hours: int) -> list[dict]:
    """The rows with ten times the cost for some hours in a row."""
    begins, ends = at(first, hour), at(first, hour + hours)
    return [{**one, "cost": one["cost"] * 10} if begins <= one["hour"] < ends else one for one in rows]


def of_cost(rows: list[dict], first: int, last: int | None = None, config=REAL) -> list:
    return found(detect(rows, first, last, config), grain="hour", metric="cost")


@pytest.mark.parametrize("method", ["zscore", "usage_model"])
@pytest.mark.parametrize(
    ("hours", "days"),
    [(5, [(29, 22), (30, 0)]), (2, [(29, 22)]), (27, [(29, 22), (30, 0), (31, 0)])],
    ids=["past midnight", "up to midnight", "three days"],
)
def test_an_incident_has_a_row_each_day_and_each_names_that_of_the_day_before(method, hours, days):
    config = AnomalyDetectionConfig.model_validate({"method": {"hour": method}})
    rows = storm(steady(range(33)), 29, 22, hours)
    together = of_cost(rows, 28, 31, config)
    assert [one.timestamp for one in together] == [at(*moment) for moment in days]
    assert [one.context.get("continues") for one in together] == [None, *(one.id for one in together[:-1])]
    assert together == [one for day in range(28, 32) for one in of_cost(rows, day, config=config)]


def test_nothing_is_continued_on_the_first_day_of_the_lake():
    rows = storm(steady(range(20, 22)), 20, 0, 28)
    (ceiling,) = of_cost(rows, 20)
    assert ceiling.method == "new_agent_ceiling"
    assert "continues" not in ceiling.context


def test_what_comes_late_to_the_first_day_decides_whether_the_second_continues_it():
    quiet = storm(steady(range(31)), 30, 0, 4)
    (alone,) = of_cost(quiet, 30)
    assert "continues" not in alone.context
    late = storm(steady(range(31)), 29, 21, 7)
    begun, goes_on = of_cost(late, 29, 30)
    assert (goes_on.id, goes_on.context["continues"]) == (alone.id, begun.id)
    assert of_cost(late, 30) == [goes_on]


def test_a_deviation_below_the_materiality_floor_is_nobodys_concern():
    cents = [*steady(range(30), cost=0.0001, input_tokens=0), row(at(29), cost="0.9")]
    assert found(detect(cents, 29, config=REAL), grain="hour", metric="cost") == []
    dollars = [*steady(range(30), cost=0.0001, input_tokens=0), row(at(29), cost="9")]
    assert len(found(detect(dollars, 29, config=REAL), grain="hour", metric="cost")) == 1


def test_an_overcharge_is_an_anomaly_even_of_an_agent_without_history():
    first_call = row(at(5), cost=9990.01, mispriced_calls=1, overcharge=9990, overcharged_list_cost=0.01)
    detection = detect([first_call], 5, config=REAL)
    for grain in ("day", "hour"):
        (anomaly,) = found(detection, grain=grain)
        assert (anomaly.metric, anomaly.severity, anomaly.method) == ("cost", "critical", "list_price")
        assert anomaly.deviation is None
        assert anomaly.baseline == 0.01
        assert "contradicts the list price" in anomaly.reason
    assert set(detection.baselines["state"].to_pylist()) == {"learning"}


@pytest.mark.parametrize(("overcharge", "severity"), [(0.5, None), (2, "warning"), (11, "critical")])
def test_the_money_above_list_price_decides_how_grave_a_contradiction_is(overcharge, severity):
    one = row(at(5), cost=20, mispriced_calls=1, overcharge=overcharge, overcharged_list_cost=1)
    severities = {one.severity for one in found(detect([one], 5, config=REAL), metric="cost")}
    assert severities == ({severity} if severity else set())


def test_a_cost_that_its_list_price_explains_is_an_ordinary_anomaly():
    rows = [*steady(range(30)), row(at(29), cost=500)]
    (anomaly,) = found(detect(rows, 29, config=REAL), grain="hour", metric="cost")
    assert anomaly.method == "usage_model"
    assert "list price" not in anomaly.reason


@pytest.mark.parametrize(("hours_a_day", "method"), [(5, "zscore"), (7, "usage_model")])
def test_an_agent_without_a_rhythm_is_compared_with_the_same_hour_of_the_days_before(hours_a_day, method):
    seldom = [one for one in steady(range(30)) if one["hour"].hour in range(9, 9 + hours_a_day)]
    rows = [*steady(range(30), agent="z"), *seldom, row(at(29), calls=40, cost=900)]
    (anomaly,) = found(detect(rows, 29, config=REAL), grain="hour", metric="cost")
    assert (anomaly.agent, anomaly.method, anomaly.severity) == ("a", method, "critical")


def test_days_are_judged_by_the_ensemble_and_its_budget_decides_how_grave_they_are():
    rows = [*steady(range(30)), row(at(29), cost=900, calls=40)]
    (anomaly,) = found(detect(rows, 29), grain="day", metric="cost")
    assert (anomaly.method, anomaly.severity) == ("ensemble", "critical")
    rare = AnomalyDetectionConfig.model_validate(
        {"false_alarms_per_agent_week": {"info": 0.1, "warning": 0.05, "critical": 1e-6}}
    )
    (quieter,) = found(detect(rows, 29, config=rare), grain="day", metric="cost")
    assert (quieter.severity, quieter.confidence) == ("warning", anomaly.confidence)


def test_a_second_run_gives_the_same_ids():
    rows = [*steady(range(30)), row(at(29), cost=5000)]
    assert detect(rows, 29, config=REAL).anomalies.equals(detect(rows, 29, config=REAL).anomalies)


def test_the_evidence_names_the_call():
    evidence = pa.Table.from_pylist(
        [
            {
                "time": at(5),
                "org": "o",
                "project": "p",
                "agent": "a",
                "kind": "mispriced",
                "event_id": "e1",
                "model": "m-large",
                "reported_cost": "9990.01",
                "cost": "9990.01",
                "list_cost": "0.0126",
                "price_ratio": 792858.0,
                "input_tokens": 10_023,
                "output_tokens": 10,
            }
        ]
    )
    one = row(at(5), cost=9990.01, mispriced_calls=1, overcharge=9990, overcharged_list_cost="0.0126")
    for anomaly in anomalies_from_table(detect([one], 5, config=REAL, evidence=lambda _moments: evidence).anomalies):
        assert "one call to m-large reported $9,990.01, 790,000 × its list price of $0.0126" in anomaly.reason
        assert anomaly.context["call"]["event_id"] == "e1"
        json.dumps(anomaly.context, allow_nan=False)

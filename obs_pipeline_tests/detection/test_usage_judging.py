"""The daily batch with the usage model for its hours."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from obs_pipeline.detection.config import (
    AlarmBudget,
    AnomalyDetectionConfig,
    GrainMethods,
    MinimumCalls,
    NewAgentCeiling,
)
from obs_pipeline.detection.detect import Detection, detect_anomalies
from obs_pipeline.detection.known import NOTHING, Known
from obs_pipeline.detection.usage_judging import marks, sigmas
from obs_pipeline.storage.anomaly_labels import AnomalyLabel, Verdict
from obs_pipeline_tests.detection.series_rows import daily, hourly, row

START = date(2025, 3, 3)
CONFIG = AnomalyDetectionConfig(
    lookback_days=14, minimum_data_points=7, method=GrainMethods(hour="usage_model"), minimum_calls=MinimumCalls()
)


def usage(days: int, agents: int = 1, **change) -> list[dict]:
    """Agents that follow the day, alike but for chance; ``change`` maps (agent, day, hour) to a row's values."""
    chance = np.random.default_rng(7)
    rows = []
    for agent in range(agents):
        for tick in range(days * 24):
            calls = int(chance.poisson(60 + 30 * np.sin(2 * np.pi * tick / 24)))
            values = {
                "agent": f"a{agent:03}",
                "calls": calls,
                "cost": round(calls * chance.uniform(0.9, 1.1), 6),
                "errors": int(chance.binomial(calls, 0.01)),
                "input_tokens": calls * 40_000,
                "latency_ms": round(900 * chance.uniform(0.95, 1.05), 3),
            }
            moment = datetime.combine(START, datetime.min.time()) + timedelta(hours=tick)
            rows.append(row(moment, **(values | change.get(f"a{agent}d{tick // 24}h{tick % 24}", {}))))
    return rows


def detect(
    rows: list[dict], first: int, last: int, config: AnomalyDetectionConfig = CONFIG, known: Known = NOTHING
) -> Detection:
    hours, days = hourly(rows), (START + timedelta(days=first), START + timedelta(days=last))
    return detect_anomalies(hours, daily(hours), days, config, known=known)


def of_hours(found: Detection) -> list[dict]:
    return [one for one in found.anomalies.to_pylist() if one["grain"] == "hour"]


@pytest.mark.parametrize(
    ("metric", "change"),
    [
        ("cost", {"calls": 80, "cost": 900}),
        ("tokens", {"calls": 80, "input_tokens": 40_000_000}),
        ("errors", {"calls": 80, "errors": 40}),
        ("latency", {"calls": 80, "latency_ms": 9000}),
    ],
)
def test_an_hour_gone_wrong_is_critical_and_said_to_be_the_models(metric: str, change: dict):
    found = of_hours(detect(usage(16, a0d15h13=change), 15, 15))
    (worst,) = [one for one in found if one["metric"] == metric and one["severity"] == "critical"]
    assert worst["timestamp"] == datetime(2025, 3, 18, 13)
    assert worst["method"] == "usage_model"
    assert worst["lower"] <= worst["baseline"] <= worst["upper"] < worst["observed"]
    assert 0 < worst["confidence"] < 1


def test_ordinary_hours_are_quiet_and_have_a_baseline():
    found = detect(usage(16), 14, 15)
    assert of_hours(found) == []
    hours = [one for one in found.baselines.to_pylist() if one["grain"] == "hour"]
    assert len(hours) == 4 * 48
    assert {one["state"] for one in hours} == {"ok"}


def at(day: int, hour: int = 0) -> datetime:
    return datetime.combine(START, datetime.min.time()) + timedelta(days=day, hours=hour)


def real(agent: str, day: int, hour: int, hours: int) -> AnomalyLabel:
    ends = at(day, hour + hours)
    return AnomalyLabel("an-1", "real", "o", "p", agent, "cost", "hour", at(day, hour), "ada", "", at(30), ends)


def assert_each_day_alone_says_the_same(rows: list[dict], first: int, last: int, known: Known = NOTHING) -> Detection:
    whole = detect(rows, first, last, known=known)
    for day in range(first, last + 1):
        alone = detect([one for one in rows if one["hour"] < at(day + 1)], day, day, known=known)
        for name in ("baselines", "anomalies"):
            wanted = [one for one in getattr(whole, name).to_pylist() if one["dt"] == START + timedelta(days=day)]
            assert getattr(alone, name).to_pylist() == wanted, f"{name} of day {day}"
    return whole


@pytest.mark.parametrize("first", range(15, 22))
def test_a_day_alone_says_what_it_says_in_a_range_from_any_day_of_the_week_on(first: int):
    rows = usage(26, a0d17h13={"cost": 900}, a0d21h1={"errors": 60, "calls": 80}, a0d22h2={"cost": 300})
    assert_each_day_alone_says_the_same(rows, first, first + 4)


def test_an_agent_or_a_source_that_is_new_in_mid_week_changes_nothing_of_the_days_before():
    new = [row(at(17, hour), agent="b", cost=hour) for hour in range(0, 24, 2)]
    elsewhere = [row(at(day, 5), source="t", agent="other") for day in range(20)]
    second = [row(at(day, 5), source="t", agent="a000", cost=60) for day in (17, 18)]
    idle = [one for one in usage(20) if one["hour"].hour != 5]
    assert_each_day_alone_says_the_same(idle + new + elsewhere + second, 14, 19)


def test_a_large_fleet_is_calibrated_once_a_week_by_what_came_before_its_monday():
    whole = assert_each_day_alone_says_the_same(usage(18, agents=31, a3d15h5={"cost": 2000}), 14, 17)
    assert ("a003", "critical") in {(one["agent"], one["severity"]) for one in of_hours(whole)}


def test_what_is_not_learned_is_judged_even_so_and_unseen_by_the_days_after_it():
    rows = usage(19, **{f"a0d15h{hour}": {"cost": 900} for hour in range(8, 16)}, a0d17h12={"cost": 500})
    verdicts = Known((), (real("a000", 15, 8, hours=8),))
    taught = assert_each_day_alone_says_the_same(rows, 14, 18, verdicts)
    assert {one["timestamp"] for one in of_hours(taught)} >= {at(15, 8), at(17, 12)}
    plain = detect(rows, 17, 17)
    expected = [
        next(
            one["expected"] for one in some.baselines.to_pylist() if (one["time"], one["metric"]) == (at(17, 3), "cost")
        )
        for some in (detect(rows, 17, 17, known=verdicts), plain)
    ]
    assert expected[0] != expected[1]


def said(verdict: Verdict, first: datetime, last: datetime) -> AnomalyLabel:
    return AnomalyLabel(f"an-{first}", verdict, "o", "p", "a000", "cost", "hour", first, "ada", "", at(30), last)


@pytest.mark.parametrize(("verdict", "factor"), [("false_positive", 1.25), ("real", 0.9)])
def test_a_verdict_on_hours_changes_what_the_model_asks_of_them_from_the_next_day_on(verdict: Verdict, factor: float):
    rows = usage(17, a0d15h13={"cost": 160, "calls": 80})
    known = Known((), (said(verdict, at(14, 2), at(14, 3)),))
    (plain,), (taught,) = (
        [one for one in of_hours(detect(rows, 15, 15, known=some)) if one["metric"] == "cost"]
        for some in (NOTHING, known)
    )
    assert json.loads(taught["context"]).get("thresholds_times") == factor
    for told in ("score", "confidence"):
        assert (taught[told] < plain[told]) == (factor > 1)
        assert (taught[told] > plain[told]) == (factor < 1)


def test_a_verdict_on_an_incident_of_two_days_counts_once_and_on_two_incidents_twice():
    rows = usage(17, a0d15h13={"cost": 260, "calls": 80})
    begun, goes_on, other = (
        said("false_positive", at(12, 22), at(13)),
        said("false_positive", at(13), at(13, 4)),
        said("false_positive", at(13, 20), at(13, 21)),
    )
    asked = []
    for labels in ((begun,), (goes_on, begun), (begun, goes_on, other)):
        (one,) = [one for one in of_hours(detect(rows, 15, 15, known=Known((), labels))) if one["metric"] == "cost"]
        asked.append(json.loads(one["context"])["thresholds_times"])
    assert asked == [1.25, 1.25, pytest.approx(1.25**2, abs=1e-3)]


def burst(first: int, from_hour: int, hours: int, **values) -> dict[str, dict]:
    """Changes of so many hours of agent 0 in a row."""
    ticks = range(first * 24 + from_hour, first * 24 + from_hour + hours)
    return {f"a0d{tick // 24}h{tick % 24}": values for tick in ticks}


@pytest.mark.parametrize("first", range(14, 21))
def test_what_goes_on_past_midnight_is_one_anomaly_on_any_day_of_the_week_alone_and_in_a_range(first: int):
    rows = usage(first + 3, **burst(first, 22, 5, cost=400, calls=80))
    found = of_hours(assert_each_day_alone_says_the_same(rows, first - 1, first + 1))
    costs = [one for one in found if one["metric"] == "cost"]
    onset, rest = (json.loads(one["context"]) for one in costs)
    assert [one["timestamp"] for one in costs] == [at(first, 22), at(first + 1)]
    assert (onset.get("continues"), rest["continues"]) == (None, costs[0]["id"])
    assert costs[1]["score"] < costs[0]["score"]
    assert [
        one["id"] for one in found if "continues" not in json.loads(one["context"]) and one["dt"] != at(first).date()
    ] == []


def test_in_a_fleet_with_new_agents_too_a_day_alone_knows_what_began_the_day_before():
    fleet = usage(23, agents=31, **burst(20, 21, 9, cost=2000, calls=80))
    young = [
        row(at(day, hour), agent="young", cost=900 if (day, hour) > (20, 20) else 2)
        for day in (18, 19, 20, 21)
        for hour in range(24)
    ]
    found = of_hours(assert_each_day_alone_says_the_same(fleet + young, 20, 22))
    goes_on = {one["agent"] for one in found if "continues" in json.loads(one["context"])}
    assert "a000" in goes_on


def test_agents_of_other_days_change_nothing_of_a_day():
    rows = usage(17, a0d15h13={"cost": 900})
    later = datetime.combine(START, datetime.min.time()) + timedelta(days=16)
    rows += [row(later, agent=f"new{number}", cost=1) for number in range(40)]
    wanted = detect(rows, 15, 15).anomalies.to_pylist()
    assert wanted
    assert [one for one in detect(rows, 15, 16).anomalies.to_pylist() if one["dt"].day == 18] == wanted


def test_a_fleet_large_enough_is_calibrated_on_itself():
    found = of_hours(detect(usage(15, agents=31, a3d14h5={"cost": 2000}), 14, 14))
    assert ("a003", "cost", "critical") in {(one["agent"], one["metric"], one["severity"]) for one in found}
    assert len({one["agent"] for one in found}) < 6


def test_a_new_agent_learns_and_raises_no_alarm():
    ceiling = NewAgentCeiling(warning=10_000, critical=10_000)
    config = CONFIG.model_copy(update={"new_agent_ceiling": ceiling})
    found = detect(usage(2, a0d1h13={"cost": 900}), 0, 1, config)
    assert of_hours(found) == []


def test_the_model_is_for_hours_alone():
    with pytest.raises(ValidationError):
        GrainMethods(day="usage_model")  # type: ignore[arg-type]


def test_what_shows_in_two_metrics_is_the_rarer_for_it_and_told_once():
    dearer, both = {"cost": 130}, {"cost": 130, "input_tokens": 6_500_000}
    deviations = []
    for change in (dearer, both):
        found = of_hours(detect(usage(16, a0d15h13={"calls": 80, **change}), 15, 15))
        (told,) = [one for one in found if "echo_of" not in one["context"]]
        assert told["metric"] in ("cost", "tokens")
        deviations.append(told["deviation"])
    assert deviations[1] > deviations[0] > 2


BUDGETS = st.tuples(*[st.floats(1e-4, 1)] * 3).map(
    lambda parts: AlarmBudget(
        info=parts[0] + parts[1] + parts[2] + 2e-4, warning=parts[1] + parts[2] + 1e-4, critical=parts[2]
    )
)


@given(budget=BUDGETS, metrics=st.integers(1, 4), surprises=st.lists(st.floats(0, 8), min_size=2, max_size=30))
def test_a_mark_is_reached_exactly_from_its_surprise_on_and_sigmas_rise_with_surprises(budget, metrics, surprises):
    reached, ordered = marks(budget, metrics), np.sort(surprises)
    assert reached.info < reached.warning < reached.critical
    assert sigmas(np.array(reached), reached).tolist() == [2, 3, 5]
    assert (np.diff(sigmas(ordered, reached)) >= 0).all()
    assert ((sigmas(ordered, reached) >= 3) == (ordered >= reached.warning)).all()


@given(budget=BUDGETS, share=st.floats(0.01, 1), metrics=st.integers(1, 4))
def test_a_smaller_budget_never_asks_for_less(budget, share, metrics):
    smaller = AlarmBudget(**{name: value * share for name, value in budget.model_dump().items()})
    pairs = zip(marks(smaller, metrics), marks(budget, metrics), strict=True)
    assert all(strict >= loose for strict, loose in pairs)


def test_the_budget_of_an_agent_is_shared_by_its_metrics():
    reached = marks(AlarmBudget(info=1.4, warning=0.14, critical=0.014), 1)
    assert reached == pytest.approx((1, 2, 3))
    assert marks(AlarmBudget(info=1.4, warning=0.14, critical=0.014), 4) == pytest.approx(np.add(reached, np.log10(4)))


def test_a_smaller_budget_never_rings_more():
    rows = usage(18, **{f"a0d{day}h{day}": {"cost": 55 + 25 * day} for day in range(14, 18)})
    counts = []
    for times in (8, 1, 0.1, 0.001):
        budget = AlarmBudget(info=times, warning=times / 5, critical=times / 20)
        found = of_hours(detect(rows, 14, 17, CONFIG.model_copy(update={"false_alarms_per_agent_week": budget})))
        counts.append([sum(one["severity"] in at_least for one in found) for at_least in SEVERE])
    assert all(more >= less for one, other in pairwise(counts) for more, less in zip(one, other, strict=True))
    assert counts[0] != counts[-1]


SEVERE = [("info", "warning", "critical"), ("warning", "critical"), ("critical",)]

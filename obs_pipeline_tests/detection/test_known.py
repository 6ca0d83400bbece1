"""What people say of usage, and what it changes of baselines and verdicts."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.detection.calendar import PlannedEvent
from obs_pipeline.detection.config import AnomalyDetectionConfig, GrainMethods
from obs_pipeline.detection.detect import Detection, detect_anomalies
from obs_pipeline.detection.known import NOTHING, Known
from obs_pipeline.detection.models import Anomaly, anomalies_from_table
from obs_pipeline.storage.anomaly_labels import AnomalyLabel, Verdict
from obs_pipeline_tests.detection.series_rows import daily, hourly, row

FIRST = date(2025, 3, 1)
CONFIG = AnomalyDetectionConfig(grains=("day",), metrics=("cost",))
BURST = 40


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def noon(number: int) -> datetime:
    return datetime.combine(day(number), datetime.min.time()) + timedelta(hours=12)


def spending(cost_on: dict[int, float], days: int = 60, agent: str = "a") -> list[dict[str, Any]]:
    """A series of $10 a day, give or take, but for the days named."""
    return [
        row(noon(number), agent=agent, calls=40, cost=cost_on.get(number, 10 + number * 7 % 5 * 0.3))
        for number in range(days)
    ]


def detect(
    rows: list[dict[str, Any]], first: int, last: int, known: Known, config: AnomalyDetectionConfig = CONFIG
) -> Detection:
    hours = hourly(rows)
    return detect_anomalies(hours, daily(hours), (day(first), day(last)), config, known=known)


def found(rows: list[dict[str, Any]], number: int, known: Known = NOTHING, **more: Any) -> list[Anomaly]:
    return anomalies_from_table(detect(rows, number, number, known, **more).anomalies)


def event(first: int, last: int, **fields: Any) -> PlannedEvent:
    span = {"from": day(first).isoformat(), "until": day(last + 1).isoformat()}
    return PlannedEvent.model_validate({"name": "launch", **span, **fields})


def label(number: int, verdict: Verdict, agent: str | None = "a", grain: str = "day") -> AnomalyLabel:
    time = datetime.combine(day(number), datetime.min.time())
    return AnomalyLabel("an", verdict, "o", "p", agent, "cost", grain, time, "ada", "", noon(100))


def test_a_burst_that_was_planned_is_no_anomaly_and_one_beyond_the_plan_is():
    rows = spending({40: BURST})
    assert found(rows, 40)
    assert not found(rows, 40, Known((event(40, 40, expect={"cost": [1, 5]}),)))
    (left,) = found(rows, 40, Known((event(40, 40, expect={"cost": [1, 1.5]}),)))
    assert left.context["planned_event"] == "launch"
    assert "explains only a part" in left.reason
    assert abs(left.deviation or 0) < abs(found(rows, 40)[0].deviation or 0)


def test_an_event_without_a_stated_effect_excuses_any_cost_but_not_its_absence_of_others():
    rows = spending({40: BURST})
    assert not found(rows, 40, Known((event(39, 41),)))
    assert found(rows, 40, Known((event(39, 39),)))
    assert found(rows, 40, Known((event(40, 40, expect={"tokens": [0, 9]}),)))


def test_an_expected_rise_that_does_not_come_is_an_anomaly():
    rows = spending({})
    (missing,) = found(rows, 40, Known((event(40, 40, expect={"cost": [3, 6]}),)))
    assert (missing.deviation or 0) < 0


def test_an_event_is_for_those_in_its_scope_alone():
    rows = spending({40: BURST}) + spending({40: BURST}, agent="b")
    told = found(rows, 40, Known((event(40, 40, scope={"org": "o", "agent": ["b", "c"]}),)))
    assert [one.agent for one in told] == ["a"]


@pytest.mark.parametrize("known", [Known((event(36, 39),)), Known((), tuple(label(n, "real") for n in range(36, 40)))])
def test_what_was_planned_or_real_is_not_learned(known: Known):
    """Four days of bursts make the fifth look ordinary, unless they are known for what they were."""
    rows = spending(dict.fromkeys(range(36, 41), BURST))
    taught, plain = detect(rows, 40, 40, known), detect(rows, 40, 40, Known())
    expected, widened = (one.baselines.column("expected")[0].as_py() for one in (taught, plain))
    assert expected == pytest.approx(10.6, abs=0.2)
    assert widened > 12
    assert taught.baselines.column("points")[0].as_py() == plain.baselines.column("points")[0].as_py() - 4


def test_an_alarm_called_false_raises_the_thresholds_of_its_series_for_ninety_days():
    rows = spending({40: 25, 170: 25}, days=180) + spending({40: 25}, days=180, agent="b")
    (before,) = [one for one in found(rows, 40) if one.agent == "a"]
    called = Known((), tuple(label(number, "false_positive") for number in (36, 37, 38, 39)))
    after = found(rows, 40, called)
    assert [one.agent for one in after if one.severity == before.severity] == ["b"]
    forgotten = found(rows, 170, called)
    assert [(one.severity, one.context.get("thresholds_times")) for one in forgotten] == [(before.severity, None)]


def test_an_alarm_called_real_lowers_them_a_little_and_never_below_nine_tenths():
    rows = spending({40: BURST})
    (once,) = found(rows, 40, Known((), (label(35, "real"),)))
    (often,) = found(rows, 40, Known((), tuple(label(number, "real") for number in range(30, 40))))
    assert once.context["thresholds_times"] == often.context["thresholds_times"] == 0.9


def test_a_verdict_changes_nothing_of_the_day_it_is_about_nor_of_days_before():
    rows = spending({40: BURST})
    verdicts = Known((), (label(40, "false_positive"), label(41, "false_positive"), label(45, "real")))
    assert detect(rows, 38, 40, verdicts).anomalies.equals(detect(rows, 38, 40, Known()).anomalies)


def test_a_contradicted_price_is_told_whatever_was_planned():
    rows = spending({40: BURST})
    rows[40] |= {"mispriced_calls": 1, "overcharge": rows[40]["cost"], "overcharged_list_cost": rows[1]["cost"]}
    (told,) = found(rows, 40, Known((event(40, 40),)))
    assert told.method == "list_price"


@pytest.mark.parametrize("method", ["zscore", "ensemble", "usage_model"])
def test_hours_of_an_event_are_excused_by_each_method(method: str):
    config = AnomalyDetectionConfig(metrics=("cost",), grains=("hour",), method=GrainMethods(hour=method))
    rows = [
        row(noon(number) + timedelta(hours=hour - 12), calls=40, cost=10 + (number * 7 + hour) % 5 * 0.3)
        for number in range(41)
        for hour in range(24)
    ]
    rows[-6:] = [{**one, "cost": one["cost"] * 9} for one in rows[-6:]]
    plan = Known((event(40, 40, expect={"cost": [0, 12]}),))
    assert found(rows, 40, config=config)
    assert not found(rows, 40, plan, config=config)


EVENTS = st.builds(
    lambda first, length, most, agents: event(
        first, first + length, expect={"cost": [0.5, most]}, scope={"agent": agents} if agents else {}
    ),
    st.integers(0, 45),
    st.integers(0, 5),
    st.floats(0.5, 8),
    st.sampled_from([[], ["a"], ["b", "a"]]),
)
LABELS = st.builds(
    label,
    st.integers(0, 45),
    st.sampled_from(["real", "false_positive", "planned"]),
    st.sampled_from(["a", "b", None]),
    st.sampled_from(["day", "hour"]),
)


@settings(max_examples=40)
@given(st.lists(EVENTS, max_size=3), st.lists(LABELS, max_size=5), st.dictionaries(st.integers(0, 44), st.just(BURST)))
def test_a_range_of_days_gives_what_its_days_give_whatever_is_known(events, labels, bursts):
    rows = spending(bursts, 45) + spending({}, 45, "b")
    known = Known(tuple(events), tuple(labels))
    whole = detect(rows, 38, 44, known)
    single = [detect(rows, number, number, known) for number in range(38, 45)]
    for table in ("baselines", "anomalies"):
        assert getattr(whole, table).equals(pa.concat_tables([getattr(one, table) for one in single]).combine_chunks())

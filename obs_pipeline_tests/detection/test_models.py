"""Identity of anomalies, their table, and the choice of the worst."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.detection.models import (
    ANOMALY_SCHEMA,
    Anomaly,
    anomalies_from_table,
    anomalies_to_table,
    anomaly_id,
    worst_anomalies,
)

WHEN = datetime(2025, 5, 7, 15)
NAMES = st.one_of(st.none(), st.text(max_size=5))


def anomaly(**changes) -> Anomaly:
    plain = Anomaly(
        id=anomaly_id("o", "p", "a", "cost", "hour", WHEN),
        timestamp=WHEN,
        org="o",
        project="p",
        agent="a",
        metric="cost",
        grain="hour",
        severity="warning",
        score=60.0,
        confidence=0.4,
        baseline=1.0,
        observed=9.0,
        deviation=4.0,
        lower=0.0,
        upper=2.0,
        method="zscore",
        reason="because.",
        context={"calls": 3, "call": {"model": "m – ü"}},
    )
    return replace(plain, **changes)


def test_an_id_is_the_same_on_every_machine_for_ever():
    assert anomaly_id("o", "p", "a", "cost", "hour", WHEN) == "an-e11cd14383ee0ec9"


@given(one=st.tuples(NAMES, NAMES, NAMES), other=st.tuples(NAMES, NAMES, NAMES))
def test_different_series_have_different_ids_even_with_missing_names(one, other):
    ids = {anomaly_id(*series, "cost", "day", WHEN) for series in (one, other)}
    assert len(ids) == (1 if one == other else 2)


@pytest.mark.parametrize("change", [{"metric": "tokens"}, {"grain": "day"}, {"timestamp": WHEN + timedelta(hours=1)}])
def test_metric_grain_and_time_are_part_of_the_id(change):
    parts = {"metric": "cost", "grain": "hour", "timestamp": WHEN}
    assert anomaly_id("o", "p", "a", **parts) != anomaly_id("o", "p", "a", **{**parts, **change})


def test_anomalies_survive_their_table():
    several = [anomaly(), anomaly(org=None, agent=None, deviation=None, lower=None, upper=None, baseline=None)]
    table = anomalies_to_table(several)
    assert table.schema == ANOMALY_SCHEMA
    assert table["dt"].to_pylist() == [WHEN.date()] * 2
    assert anomalies_from_table(table) == several
    assert anomalies_to_table([]).schema == ANOMALY_SCHEMA


def test_the_worst_come_first_and_each_agent_once_a_day():
    several = [
        anomaly(id="an-1", score=50),
        anomaly(id="an-2", score=90, metric="tokens"),
        anomaly(id="an-3", score=70, agent="b"),
        anomaly(id="an-4", score=60, timestamp=WHEN + timedelta(days=1)),
    ]
    assert [one.id for one in worst_anomalies(several, 10)] == ["an-2", "an-3", "an-4"]
    assert [one.id for one in worst_anomalies(several, 2)] == ["an-2", "an-3"]
    assert worst_anomalies(several[::-1], 10) == worst_anomalies(several, 10)

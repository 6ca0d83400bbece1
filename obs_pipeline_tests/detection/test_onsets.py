"""Incidents of the table of anomalies, each once, as readers count and list them."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

import duckdb
from hypothesis import given, settings

from obs_pipeline.detection.incidents import begun, ends_of, gathered
from obs_pipeline.detection.models import ANOMALY_SCHEMA, Anomaly, anomalies_from_table, anomalies_to_table
from obs_pipeline.detection.onsets import ONSETS
from obs_pipeline_tests.detection.test_incidents import DAY, HOURS, hour


def onsets(rows: list[Anomaly]) -> list[Anomaly]:
    with duckdb.connect() as connection:
        connection.register("anomalies", anomalies_to_table(rows))
        query = f"SELECT * FROM ({ONSETS}) ORDER BY timestamp, id"
        table = connection.sql(query).to_arrow_table()
    assert table.schema.names == ANOMALY_SCHEMA.names
    return anomalies_from_table(table)


def test_an_incident_of_three_days_is_one_row_as_long_and_as_grave_as_it_became():
    hours = [hour(n, score=85 if n == 30 else 55, severity="critical" if n == 30 else "warning") for n in range(20, 52)]
    (whole,) = onsets(gathered(hours))
    first = hour(20)
    assert (whole.id, whole.timestamp, whole.observed) == (first.id, first.timestamp, 55)
    assert (whole.severity, whole.score, whole.confidence) == ("critical", 85, 0.85)
    assert (ends_of(whole), whole.context["abnormal_hours"]) == (DAY + timedelta(hours=52), 32)
    assert whole.context["excess"] == 31 * 55 + 85 - 32
    assert whole.context["peak"]["timestamp"] == "2026-03-03T06:00:00"
    assert whole.context["continued_by"] == [hour(24).id, hour(48).id]
    assert whole.reason.endswith("It went on after that day, until 2026-03-04 04:00 UTC.")


def test_the_peak_of_a_single_later_hour_is_that_hour():
    (whole,) = onsets(gathered([hour(23, "errors", score=60), hour(24, "errors", score=70)]))
    assert whole.context["peak"] == {
        "timestamp": "2026-03-03T00:00:00", "observed": 70, "baseline": 1, "deviation": 4,
    }  # fmt: skip
    assert "excess" not in whole.context


def test_what_continues_a_row_that_is_not_there_is_counted_itself():
    _, second, third = gathered([hour(n) for n in range(20, 52)])
    (left,) = onsets([second, third])
    assert left.id == second.id
    assert left.context["continued_by"] == [third.id]


def test_a_row_of_one_day_stays_as_it_is():
    rows = gathered([hour(3), hour(5), hour(3, "tokens", score=51), hour(70, agent="b")])
    assert onsets(rows) == sorted(rows, key=lambda one: (one.timestamp, one.id))
    assert onsets([]) == []


@settings(max_examples=40)
@given(HOURS)
def test_no_abnormal_hour_of_a_metric_is_lost_and_the_gravest_stays_the_gravest(hours):
    rows = gathered(hours)
    found = onsets(rows)
    assert not [one for one in found if "continues" in one.context]
    assert not [one for one in found if "echo_of" in one.context and one.severity != "info"]
    named = Counter(name for one in found for name in one.context.get("continued_by", []))
    assert named == Counter(one.id for one in rows if "continues" in one.context)
    alone = [json.loads(json.dumps(dict(one.context))).get("score_alone", one.score) for one in rows]
    assert [(one.id, one.severity, one.score, one.confidence) for one in found] == [
        (one.id, one.severity, one.score, one.confidence)
        for one in sorted(begun(rows), key=lambda one: (one.timestamp, one.id))
    ]
    assert max((one.score for one in found), default=0) == max(alone, default=0)

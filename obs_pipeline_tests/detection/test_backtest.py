"""Alarms, and how they are held against what is known."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from obs_pipeline.detection.backtest import (
    Alarm,
    Incident,
    LabelsUnusable,
    alarms_of,
    changes,
    evaluate,
    judged_incidents,
    read_incidents,
)
from obs_pipeline.detection.config import Grain, Metric
from obs_pipeline.detection.models import Anomaly, Severity
from obs_pipeline.storage.anomaly_labels import AnomalyLabel, Verdict

MIDNIGHT = datetime(2026, 3, 2)


def hours(number: float) -> datetime:
    return MIDNIGHT + timedelta(hours=number)


def anomaly(
    at: float,
    severity: Severity = "warning",
    *,
    agent: str = "a",
    grain: Grain = "hour",
    metric: Metric = "cost",
    score: float = 50,
) -> Anomaly:
    name = f"{agent}-{metric}-{grain}-{at}"
    return Anomaly(name, hours(at), "o", "p", agent, metric, grain, severity, score, 0.5, 1, 9, 4, 0, 2, "zscore", "")


def incident(
    begins: float, ends: float, *, agent: str = "a", verdict: Verdict = "real", kind: str = "spike"
) -> Incident:
    return Incident((None, None, agent), hours(begins), hours(ends), kind, verdict)


def spans(alarms: list[Alarm]) -> list[tuple[float, float, int]]:
    def since(moment: datetime) -> float:
        return (moment - MIDNIGHT) / timedelta(hours=1)

    return [(since(one.begins), since(one.ends), len(one.anomalies)) for one in alarms]


@pytest.mark.parametrize(
    ("anomalies", "expected"),
    [
        ([], []),
        ([anomaly(3)], [(3, 4, 1)]),
        ([anomaly(3), anomaly(16)], [(3, 17, 2)]),
        ([anomaly(3), anomaly(16.5)], [(3, 4, 1), (16.5, 17.5, 1)]),
        ([anomaly(3, metric="tokens"), anomaly(3), anomaly(0, grain="day")], [(0, 24, 3)]),
        ([anomaly(0, grain="day"), anomaly(3), anomaly(35)], [(0, 36, 3)]),
        ([anomaly(3), anomaly(3, agent="b")], [(3, 4, 1), (3, 4, 1)]),
        ([anomaly(3, "info"), anomaly(9)], [(9, 10, 1)]),
    ],
)
def test_anomalies_of_an_agent_that_belong_together_ring_once(anomalies, expected):
    assert spans(alarms_of(anomalies, "warning")) == expected


def test_an_alarm_is_as_bad_as_its_worst_anomaly():
    (alarm,) = alarms_of([anomaly(3, score=55), anomaly(4, "critical", score=90), anomaly(5, score=60)], "warning")
    assert alarm.worst.severity == "critical"


def test_with_a_whole_list_of_incidents_every_other_alarm_is_false():
    told = [anomaly(3), anomaly(40), anomaly(80, agent="b")]
    report = evaluate(told, "warning", [incident(2, 5), incident(100, 110)], 14, complete=True)
    assert (report.right, report.false, report.unjudged) == (1, 2, 0)
    assert report.precision == pytest.approx(1 / 3)
    assert (report.found, report.incidents, report.recall) == (1, 2, 0.5)
    assert report.recall_by_kind == {"spike": (1, 2)}
    assert report.alarms_per_week == 1.5


def test_with_verdicts_alone_what_nobody_judged_counts_for_nothing():
    told = [anomaly(3), anomaly(40), anomaly(80)]
    known = [incident(3, 4), incident(40, 41, verdict="false_positive")]
    report = evaluate(told, "warning", known, 7, complete=False)
    assert (report.right, report.false, report.unjudged) == (1, 1, 1)
    assert report.incidents == 1


def test_the_delay_ends_when_the_reported_day_or_hour_is_over():
    assert evaluate([anomaly(5)], "warning", [incident(3, 9)], 1, complete=True).median_delay_hours == 3
    assert evaluate([anomaly(0, grain="day")], "warning", [incident(3, 9)], 1, complete=True).median_delay_hours == 21


def test_an_incident_of_a_named_project_is_not_met_by_another_project():
    elsewhere = Incident(("o", "q", "a"), hours(0), hours(9), "spike")
    assert evaluate([anomaly(3)], "warning", [elsewhere], 1, complete=True).false == 1


def test_nothing_found_and_nothing_known_says_nothing():
    report = evaluate([], "warning", [], 7, complete=True)
    assert (report.precision, report.recall, report.median_delay_hours) == (None, None, None)


def test_a_change_adds_what_only_it_says_and_removes_what_it_no_longer_does():
    before = alarms_of([anomaly(3), anomaly(40)], "warning")
    after = alarms_of([anomaly(40, metric="tokens"), anomaly(80), anomaly(3, agent="b")], "warning")
    added, removed = changes(before, after)
    assert spans(added) == [(3, 4, 1), (80, 81, 1)]
    assert spans(removed) == [(3, 4, 1)]
    assert changes(before, before) == ([], [])


def test_a_verdict_is_an_incident_of_its_day_or_hour():
    label = AnomalyLabel("an", "planned", "o", "p", "a", "cost", "day", hours(0), "ada", "", hours(99))
    assert judged_incidents([label]) == [Incident(("o", "p", "a"), hours(0), hours(24), "cost", "planned")]


def test_a_file_of_incidents_is_read_whatever_its_zone(tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_text("kind,agent,start,end\nspike,a,2026-03-02T02:00:00+02:00,2026-03-02T05:00:00Z\n", encoding="utf-8")
    assert read_incidents(path) == [incident(0, 5)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("agent,start\na,2026-03-01\n", ":1: the columns end are missing"),
        ("agent,start,end\na,soon,2026-03-01\n", ":2: start 'soon' is no time"),
        ("agent,start,end\na,2026-03-01,2026-03-01\n", ":2: the end must be after the start"),
        ("agent,start,end,verdict\na,2026-03-01,2026-03-02,maybe\n", ":2: verdict 'maybe' is none of"),
        ("agent,start,end\na\n", ":2: start '' is no time"),
    ],
)
def test_a_mistake_in_a_file_of_incidents_is_named_with_its_line(tmp_path: Path, content: str, said: str):
    path = tmp_path / "labels.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(LabelsUnusable) as refused:
        read_incidents(path)
    assert said in str(refused.value)

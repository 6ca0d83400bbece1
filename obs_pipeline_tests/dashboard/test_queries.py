"""The questions of the dashboard, on lakes whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pytest

from obs_pipeline.dashboard import queries
from obs_pipeline.detection.models import Anomaly, Metric, Severity, anomalies_to_table, anomaly_id
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.policy.schema import Place
from obs_pipeline.policy.windows import day_start
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.aggregates import build_hourly
from obs_pipeline.usage.tables import USAGE_EVENTS
from obs_pipeline_tests.policy.trees import cost, policy
from obs_pipeline_tests.usage_files import landed_lake, rows_of, usage_rows

FIRST = date(2026, 3, 2)
DAYS = DayRange(FIRST, FIRST + timedelta(days=2))


def an_anomaly(agent: str, day: int, score: float, severity: Severity = "warning", metric: Metric = "cost") -> Anomaly:
    when = datetime(2026, 3, 2) + timedelta(days=day)
    identity = anomaly_id("acme", "atlas", agent, metric, "day", when)
    return Anomaly(
        id=identity, timestamp=when, org="acme", project="atlas", agent=agent, metric=metric, grain="day",
        severity=severity, score=score, confidence=0.9, baseline=1.0, observed=9.0, deviation=4.0, lower=0.0, upper=2.0,
        method="zscore", reason="because", context={"calls": 3},
    )  # fmt: skip


FOUND = [
    an_anomaly("writer", 0, 50),
    an_anomaly("writer", 1, 90, "critical"),
    an_anomaly("reader", 1, 70, "info", "tokens"),
    an_anomaly("reader", 2, 60),
]


@pytest.fixture
def lake(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Lake:
    filled = landed_lake(tmp_path, connection, usage_rows(3))
    filled.append(ANOMALIES, anomalies_with_days(FOUND))
    return filled


def anomalies_with_days(anomalies: list[Anomaly]):
    return anomalies_to_table(anomalies).select(ANOMALIES.schema.names)


def test_an_empty_lake_answers_every_question_with_nothing(tmp_path: Path, connection: duckdb.DuckDBPyConnection):
    empty = Lake(str(tmp_path / "lake"))
    assert queries.known_days(empty) is None
    assert queries.row_counts(connection, empty, DAYS).events == 0
    assert queries.anomaly_counts(connection, empty, DAYS) == {}
    assert queries.anomalies(connection, empty) == []
    assert queries.anomaly_by_id(connection, empty, "an-") == []
    assert queries.days_by_source(connection, empty, DAYS) == {}
    when = datetime(2026, 3, 2)
    assert queries.events_between(connection, empty, (None, None, None), when, when + timedelta(1)).num_rows == 0


def test_known_days_reach_from_the_first_to_the_last_row(lake: Lake):
    assert queries.known_days(lake) == DAYS


def test_rows_and_money_are_counted_from_the_events(connection: duckdb.DuckDBPyConnection, lake: Lake):
    events = rows_of(connection, lake, USAGE_EVENTS)
    counts = queries.row_counts(connection, lake, DAYS)
    assert counts.events == len(events)
    assert counts.cost == sum(event["cost"] or 0 for event in events)
    assert counts.unpriced == sum(event["cost_source"] == "unpriced" for event in events)
    assert counts.mispriced == sum(event["mispriced"] for event in events)
    one_day = queries.row_counts(connection, lake, DayRange(FIRST, FIRST))
    assert one_day.events == 24


def test_the_worst_anomaly_comes_first_and_limits_hold(connection: duckdb.DuckDBPyConnection, lake: Lake):
    assert [one.score for one in queries.anomalies(connection, lake)] == [90, 70, 60, 50]
    assert [one.score for one in queries.anomalies(connection, lake, limit=1)] == [90]
    assert queries.anomalies(connection, lake, limit=1) == [FOUND[1]]


@pytest.mark.parametrize(
    ("filters", "scores"),
    [
        ({"severities": ["critical"]}, [90]),
        ({"severities": ["critical", "info"]}, [90, 70]),
        ({"agent": "reader"}, [70, 60]),
        ({"metric": "cost"}, [90, 60, 50]),
        ({"days": DayRange(FIRST, FIRST)}, [50]),
        ({"agent": "reader", "metric": "cost", "severities": ["warning"]}, [60]),
        ({"agent": "o'brien; DROP TABLE anomalies"}, []),
    ],
)
def test_filters_narrow_down(
    connection: duckdb.DuckDBPyConnection, lake: Lake, filters: dict[str, object], scores: list[float]
):
    assert [one.score for one in queries.anomalies(connection, lake, **filters)] == scores  # type: ignore[arg-type]


def test_anomalies_are_counted_by_severity(connection: duckdb.DuckDBPyConnection, lake: Lake):
    assert queries.anomaly_counts(connection, lake, DAYS) == {"critical": 1, "warning": 2, "info": 1}


def goes_on(lake: Lake) -> Anomaly:
    """The first of the anomalies goes on the day after, and graver."""
    later = replace(
        an_anomaly("writer", 1, 85, "critical", "tokens"),
        grain="hour",
        context={"continues": FOUND[0].id, "score_alone": 95},
    )
    lake.append(ANOMALIES, anomalies_with_days([later]))
    return later


def test_what_goes_on_is_listed_and_counted_once_where_it_began(connection: duckdb.DuckDBPyConnection, lake: Lake):
    later = goes_on(lake)
    second = DayRange(later.dt, later.dt)
    assert [one.score for one in queries.anomalies(connection, lake)] == [95, 90, 70, 60]
    (first,) = queries.anomalies(connection, lake, DayRange(FIRST, FIRST), severities=["critical"])
    assert (first.id, first.context["continued_by"]) == (FOUND[0].id, [later.id])
    assert {one.id for one in queries.anomalies(connection, lake, second)} == {FOUND[1].id, FOUND[2].id}
    assert queries.anomaly_counts(connection, lake, DayRange(FIRST, FIRST)) == {"critical": 1}
    assert queries.anomaly_counts(connection, lake, second) == {"critical": 1, "info": 1}
    assert queries.anomaly_counts(connection, lake, DAYS) == {"critical": 2, "warning": 1, "info": 1}


def test_the_row_of_a_later_day_can_be_asked_for_by_its_id(connection: duckdb.DuckDBPyConnection, lake: Lake):
    later = goes_on(lake)
    assert queries.anomaly_by_id(connection, lake, later.id) == [later]
    (whole,) = queries.anomaly_by_id(connection, lake, FOUND[0].id)
    assert whole.severity == "critical"


def test_an_anomaly_is_found_by_its_id_or_its_beginning(connection: duckdb.DuckDBPyConnection, lake: Lake):
    assert queries.anomaly_by_id(connection, lake, FOUND[0].id) == [FOUND[0]]
    assert queries.anomaly_by_id(connection, lake, FOUND[0].id[:12]) == [FOUND[0]]
    assert queries.anomaly_by_id(connection, lake, "an-%") == []
    assert len(queries.anomaly_by_id(connection, lake, "an-")) == 4


def test_events_between_two_times_leave_out_the_end(connection: duckdb.DuckDBPyConnection, lake: Lake):
    start = datetime(2026, 3, 2)
    series = ("acme", "atlas", "agent-1")
    found = queries.events_between(connection, lake, series, start, start + timedelta(hours=5)).to_pylist()
    times = [
        event["event_time"]
        for event in rows_of(connection, lake, USAGE_EVENTS)
        if (event["org"], event["project"], event["agent"]) == series
    ]
    assert sorted(row["event_time"] for row in found) == [t for t in sorted(times) if t < start + timedelta(hours=5)]


def test_events_without_a_project_are_a_series_of_their_own(connection: duckdb.DuckDBPyConnection, lake: Lake):
    start = datetime(2026, 3, 2)
    found = queries.events_between(connection, lake, ("acme", None, "agent-0"), start, start + timedelta(days=3))
    assert found.num_rows > 0
    assert found["project"].null_count == found.num_rows


def test_a_source_is_told_with_the_days_it_has_events_on(connection: duckdb.DuckDBPyConnection, lake: Lake):
    build_hourly(connection, lake, DAYS)
    assert queries.days_by_source(connection, lake, DAYS) == {"gateway": DAYS.days()}


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "Europe/Zurich"])
def test_a_budget_is_the_exact_sum_of_the_events_of_its_window_in_zones_at_half_hours_too(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, zone: str
):
    lake = landed_lake(tmp_path, connection, usage_rows(3, per_day=480))
    build_hourly(connection, lake, DAYS)
    policies = [policy(Place("acme"), calendar={"time_zone": zone}, budgets={"cost": cost(1), "calls": cost(9)})]
    at = datetime(2026, 3, 3, 20, 10)
    stood = {(one.place, one.kind): one for one in queries.budgets(connection, lake, policies, at)}
    starts = [day_start(date(2026, 3, day), ZoneInfo(zone)) for day in (3, 4)]
    start = max(begins for begins in starts if begins <= at)
    events = [
        event
        for event in rows_of(connection, lake, USAGE_EVENTS)
        if start <= event["event_time"] < datetime(2026, 3, 3, 21)  # an hour under way counts whole
    ]
    spent = stood[Place("acme"), "cost"]
    assert spent.window_start == start
    assert spent.spent == sum(event["cost"] or 0 for event in events)
    assert stood[Place("acme"), "calls"].spent == len(events)

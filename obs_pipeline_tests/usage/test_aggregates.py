"""Hours and days, against the same sums done in Python from the events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.aggregates import build_daily, build_hourly
from obs_pipeline.usage.event import DIMENSIONS, TOKEN_COLUMNS
from obs_pipeline.usage.latency import RELATIVE_ERROR, bucket_of, flatten, quantiles, unpack
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_EVENTS, USAGE_HOURLY
from obs_pipeline_tests.usage_files import landed_lake, rows_of, usage_rows

DAYS = DayRange(date(2026, 3, 2), date(2026, 3, 4))
SUMS = (*TOKEN_COLUMNS, "list_cost", "cost_bound")
COUNTS = ("calls", "errors", "unpriced_calls", "mispriced_calls", "latency_calls")


@pytest.fixture
def lake(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Lake:
    rows = usage_rows(3, per_day=100)
    rows.append({**rows[0], "event_id": "credit", "event_type": "credit", "reported_cost": "-0.5"})
    filled = landed_lake(tmp_path, connection, rows)
    build_hourly(connection, filled, DAYS)
    build_daily(connection, filled, DAYS)
    return filled


def total(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def recomputed(events: list[dict[str, Any]], keys: tuple[str, ...]) -> dict[tuple[Any, ...], dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        hour = event["event_time"].replace(minute=0, second=0, microsecond=0)
        groups[tuple({**event, "hour": hour}[key] for key in keys)].append(event)
    return {
        key: {
            "calls": sum(event["event_type"] == "usage" for event in group),
            "errors": sum(event["event_type"] == "usage" and event["error_type"] is not None for event in group),
            "unpriced_calls": sum(event["cost_source"] == "unpriced" for event in group),
            "mispriced_calls": sum(event["mispriced"] for event in group),
            "latency_calls": sum(event["latency_ms"] is not None for event in group),
            "cost": total(event["cost"] for event in group) or Decimal(0),
            **{column: total(event[column] for event in group) for column in SUMS},
        }
        for key, group in groups.items()
    }


@pytest.mark.parametrize("table", [USAGE_HOURLY, USAGE_DAILY], ids=lambda table: table.name)
def test_every_sum_is_exactly_that_of_the_events(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Any):
    expected = recomputed(rows_of(connection, lake, USAGE_EVENTS), table.key)
    found = {tuple(row[key] for key in table.key): row for row in rows_of(connection, lake, table)}
    assert found.keys() == expected.keys()
    assert len(found) > 10
    for key, sums in expected.items():
        assert {name: found[key][name] for name in sums} == sums, key


def test_an_event_at_midnight_belongs_to_the_day_that_begins(connection: duckdb.DuckDBPyConnection, lake: Lake):
    hours = [row for row in rows_of(connection, lake, USAGE_HOURLY) if row["hour"].hour == 0]
    assert {row["hour"].date() for row in hours} == set(DAYS.days())
    assert all(row["hour"].date() == row["dt"] for row in rows_of(connection, lake, USAGE_HOURLY))


def test_an_hour_without_calls_has_no_row(tmp_path: Path, connection: duckdb.DuckDBPyConnection):
    lake = landed_lake(tmp_path, connection, usage_rows(1, per_day=2))
    build_hourly(connection, lake, DAYS)
    assert [row["hour"].hour for row in rows_of(connection, lake, USAGE_HOURLY)] == [0, 12]


def test_the_percentile_of_a_day_comes_from_the_merged_histograms_of_its_hours(
    connection: duckdb.DuckDBPyConnection, lake: Lake
):
    hourly, daily = rows_of(connection, lake, USAGE_HOURLY), rows_of(connection, lake, USAGE_DAILY)
    events = rows_of(connection, lake, USAGE_EVENTS)

    def percentiles(rows: list[dict[str, Any]]) -> Any:
        histograms = pa.array([row["latency_histogram"] for row in rows], pa.list_(pa.int64()))
        groups = np.array([DAYS.days().index(row["dt"]) for row in rows])
        return quantiles(flatten(histograms, groups), len(DAYS), (0.5, 0.95))

    assert (percentiles(hourly) == percentiles(daily)).all()
    for day, (median, p95) in zip(DAYS.days(), percentiles(daily), strict=True):
        exact = sorted(e["latency_ms"] for e in events if e["dt"] == day and e["latency_ms"] is not None)
        for share, told in ((0.5, median), (0.95, p95)):
            rank = int(np.ceil(share * len(exact) - 1e-9))
            assert told == pytest.approx(exact[rank - 1], rel=RELATIVE_ERROR + 1e-9)


def test_a_histogram_counts_each_call_with_a_latency_once(connection: duckdb.DuckDBPyConnection, lake: Lake):
    for row in rows_of(connection, lake, USAGE_HOURLY) + rows_of(connection, lake, USAGE_DAILY):
        counted = 0 if row["latency_histogram"] is None else int(unpack(row["latency_histogram"])[1].sum())
        assert counted == row["latency_calls"]


def test_an_hour_names_each_latency_bucket_once_and_in_rising_order(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
):
    (call,) = usage_rows(1, per_day=1)
    calls = [{**call, "event_id": str(number), "latency_ms": ms} for number, ms in enumerate([900, 20, 900, 20, 20])]
    lake = landed_lake(tmp_path, connection, calls)
    build_hourly(connection, lake, DAYS)
    (hour,) = rows_of(connection, lake, USAGE_HOURLY)
    buckets, counts = unpack(hour["latency_histogram"])
    assert (buckets.tolist(), counts.tolist()) == (bucket_of([20, 900]).tolist(), [3, 2])


def test_days_built_one_by_one_backwards_or_twice_give_the_same_tables(
    connection: duckdb.DuckDBPyConnection, lake: Lake, tmp_path: Path
):
    before = [rows_of(connection, lake, table) for table in (USAGE_HOURLY, USAGE_DAILY)]
    for day in reversed(DAYS.days()):
        build_hourly(connection, lake, DayRange(day, day))
        build_daily(connection, lake, DayRange(day, day))
    assert [rows_of(connection, lake, table) for table in (USAGE_HOURLY, USAGE_DAILY)] == before


def test_other_days_are_left_alone(connection: duckdb.DuckDBPyConnection, lake: Lake):
    before = rows_of(connection, lake, USAGE_DAILY)
    later = DAYS.last + timedelta(days=1)
    build_hourly(connection, lake, DayRange(later, later))
    build_daily(connection, lake, DayRange(later, later))
    assert rows_of(connection, lake, USAGE_DAILY) == before


def test_dimensions_that_are_missing_stay_missing_and_do_not_mix(connection: duckdb.DuckDBPyConnection, lake: Lake):
    projects = {row["project"] for row in rows_of(connection, lake, USAGE_DAILY)}
    assert projects == {None, "atlas"}
    assert set(DIMENSIONS) <= set(USAGE_DAILY.key)

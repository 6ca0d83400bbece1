"""The marts: what they say against what the tables below them hold."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from obs_pipeline.dashboard.marts import build_data_quality, build_leaderboard, build_spend
from obs_pipeline.dashboard.tables import MART_DATA_QUALITY, MART_LEADERBOARD, MART_SPEND
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.aggregates import build_daily, build_hourly
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_HOURLY
from obs_pipeline_tests.usage_files import landed_lake, rows_of, usage_rows

FIRST = date(2026, 3, 2)
DAYS = DayRange(FIRST, FIRST + timedelta(days=9))


def built(folder: Path, connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> Lake:
    lake = landed_lake(folder, connection, rows)
    build_hourly(connection, lake, DAYS)
    build_daily(connection, lake, DAYS)
    build_spend(connection, lake, DAYS)
    build_leaderboard(connection, lake, DAYS)
    build_data_quality(connection, lake, DAYS)
    return lake


@pytest.fixture
def lake(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Lake:
    return built(tmp_path, connection, usage_rows(10, per_day=30))


def calls_of(day: int, agent: str, cost: str, count: int = 1) -> list[dict[str, Any]]:
    when = f"{FIRST + timedelta(days=day)}T08:00:00"
    return [
        {"event_id": f"{agent}-{day}-{n}", "event_time": when, "agent": agent, "reported_cost": cost, "model": "m"}
        for n in range(count)
    ]


@pytest.mark.parametrize("grain", ["hour", "day"])
@pytest.mark.parametrize("column", ["cost", "calls", "errors", "input_tokens", "unpriced_calls", "cost_bound"])
def test_each_grain_adds_up_to_the_hourly_table_exactly(
    connection: duckdb.DuckDBPyConnection, lake: Lake, grain: str, column: str
):
    spend = [row for row in rows_of(connection, lake, MART_SPEND) if row["grain"] == grain]
    hours = rows_of(connection, lake, USAGE_HOURLY)
    for day in DAYS.days():
        assert sum(row[column] or 0 for row in spend if row["dt"] == day) == sum(
            row[column] or 0 for row in hours if row["dt"] == day
        )


def test_a_mover_is_compared_with_its_daily_mean_of_the_seven_days_before(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
):
    rows = [call for day in range(7) for call in calls_of(day, "steady", "7")]
    rows += calls_of(7, "steady", "10") + calls_of(7, "new", "5") + calls_of(0, "gone", "14")
    lake = built(tmp_path, connection, rows)
    board = {r["agent"]: r for r in rows_of(connection, lake, MART_LEADERBOARD) if r["dt"] == FIRST + timedelta(days=7)}
    nano = Decimal("0.00000001")
    assert {agent: (row["place"], row["cost"]) for agent, row in board.items()} == {
        "new": (1, Decimal(5)),
        "steady": (2, Decimal(10)),
        "gone": (3, Decimal(0)),
    }
    assert abs(board["steady"]["cost_week_before"] - 7) < nano
    assert abs(board["gone"]["cost_change"] + 2) < nano
    for row in board.values():
        assert row["cost_change"] == row["cost"] - row["cost_week_before"]


def test_places_count_from_one_without_gaps(connection: duckdb.DuckDBPyConnection, lake: Lake):
    board = rows_of(connection, lake, MART_LEADERBOARD)
    for day in DAYS.days():
        places = sorted(row["place"] for row in board if row["dt"] == day)
        assert places == list(range(1, len(places) + 1))


def test_the_leaderboard_of_a_day_does_not_depend_on_which_days_are_computed_with_it(
    connection: duckdb.DuckDBPyConnection, lake: Lake
):
    before = rows_of(connection, lake, MART_LEADERBOARD)
    for day in reversed(DAYS.days()):
        build_leaderboard(connection, lake, DayRange(day, day))
    assert rows_of(connection, lake, MART_LEADERBOARD) == before


def test_data_quality_accounts_for_every_row(tmp_path: Path, connection: duckdb.DuckDBPyConnection):
    good = usage_rows(10, per_day=10)
    bad = [{**row, "event_id": f"bad-{n}", "input_tokens": -1} for n, row in enumerate(good[:7])]
    lake = built(tmp_path, connection, good + bad)
    found: Counter[str] = Counter()
    for row in rows_of(connection, lake, MART_DATA_QUALITY):
        found[row["finding"]] += row["rows"]
    events = rows_of(connection, lake, USAGE_EVENTS)
    assert found["accepted"] == len(good)
    assert found["rejected: negative_tokens"] == 7
    assert found["unpriced"] == sum(event["cost_source"] == "unpriced" for event in events) > 0
    accepted = [row for row in rows_of(connection, lake, MART_DATA_QUALITY) if row["finding"] == "accepted"]
    assert sum(row["cost"] or 0 for row in accepted) == sum(event["cost"] or 0 for event in events)


def test_the_bound_of_unpriced_calls_is_told_and_never_added_to_the_cost(
    connection: duckdb.DuckDBPyConnection, lake: Lake
):
    spend = [row for row in rows_of(connection, lake, MART_SPEND) if row["grain"] == "day" and row["unpriced_calls"]]
    assert spend
    for row in spend:
        assert row["cost_bound"] > 0

"""The marts from the usage tables, for a range of days at a time. The SQL stands beside this module."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import duckdb
import pyarrow as pa

from obs_pipeline.dashboard.tables import MART_DATA_QUALITY, MART_LEADERBOARD, MART_SPEND
from obs_pipeline.storage.engine import load_sql
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.tables import (
    USAGE_DAILY,
    USAGE_DUPLICATES,
    USAGE_EVENTS,
    USAGE_HOURLY,
    USAGE_REJECTED,
    USAGE_TWINS,
)

LEADERBOARD_DAYS: Final = 7
"""A mover is compared with its daily mean over this many days before."""


def build_spend(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> None:
    """Spend per hour and per day by org, project, team, agent and model."""
    lake.derive(connection, MART_SPEND, days, load_sql("obs_pipeline.dashboard", "mart_spend"), {USAGE_HOURLY: days})


def build_leaderboard(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> None:
    """Agents by how much their cost moved."""
    asked = pa.table(
        {
            "dt": pa.array(days.days(), pa.date32()),
            "week_before": pa.array([day - timedelta(days=LEADERBOARD_DAYS) for day in days.days()], pa.date32()),
        }
    )
    connection.register("days", asked)
    inputs = {USAGE_DAILY: days.widened(before=LEADERBOARD_DAYS)}
    query = load_sql("obs_pipeline.dashboard", "mart_leaderboard")
    lake.derive(connection, MART_LEADERBOARD, days, query, inputs)


def build_data_quality(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> None:
    """What became of every row."""
    inputs = {USAGE_EVENTS: days, USAGE_REJECTED: days, USAGE_DUPLICATES: days, USAGE_TWINS: days}
    query = load_sql("obs_pipeline.dashboard", "mart_data_quality")
    lake.derive(connection, MART_DATA_QUALITY, days, query, inputs)

"""usage_events → usage_hourly → usage_daily, for a range of days at a time. The sums are SQL beside this module."""

from __future__ import annotations

import duckdb

from obs_pipeline.storage.engine import load_sql
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_EVENTS, USAGE_HOURLY


def build_hourly(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> None:
    """Sum the days' events to hours."""
    lake.derive(connection, USAGE_HOURLY, days, load_sql("obs_pipeline.usage", "hourly"), {USAGE_EVENTS: days})


def build_daily(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> None:
    """Sum the days' hours to days."""
    lake.derive(connection, USAGE_DAILY, days, load_sql("obs_pipeline.usage", "daily"), {USAGE_HOURLY: days})

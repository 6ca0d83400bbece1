"""The one partitioning: UTC days, and what a run is asked to do with them."""

from __future__ import annotations

from datetime import date

import dagster as dg

from obs_pipeline.settings import get_settings
from obs_pipeline.storage.lake import DayRange

# end_offset=1: today is a partition too, so that a day can be watched while it is still provisional.
DAILY = dg.DailyPartitionsDefinition(start_date=get_settings().first_day.isoformat(), end_offset=1)
ONE_RUN = dg.BackfillPolicy.single_run()


def days_of(context: dg.AssetExecutionContext) -> DayRange:
    """The days this run was asked for."""
    asked = context.partition_key_range
    return DayRange(date.fromisoformat(asked.start), date.fromisoformat(asked.end))


def range_tags(days: DayRange) -> dict[str, str]:
    """The tags by which Dagster runs a range of partitions in one run."""
    return {
        "dagster/asset_partition_range_start": days.first.isoformat(),
        "dagster/asset_partition_range_end": days.last.isoformat(),
    }

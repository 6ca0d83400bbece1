"""The end of the batch: only here do days count as computed, when everything before went well."""

from datetime import timedelta

import dagster as dg

from obs_pipeline.clock import utc_now
from obs_pipeline.dashboard.queries import days_by_source
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of
from obs_pipeline.defs.resources import BatchLimits, EngineResource, LakeResource, LedgerResource, Progress
from obs_pipeline.defs.source_assets import unread_by_pulls
from obs_pipeline.usage.watermark import provisional_days


@dg.asset(
    group_name="dashboard",
    owners=["team:platform"],
    kinds={"sqlite"},
    description="Days computed to their end, and up to which landing: what is not in here waits for a batch. A batch "
    "that was killed, or stopped by a blocking check, leaves its days waiting.",
    deps=[
        "usage_rejected",
        "usage_twins",
        "incidents",
        "forecasts",
        "mart_spend",
        "mart_leaderboard",
        "mart_data_quality",
    ],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
)
def computed_days(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ledger: LedgerResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Tell the ledger that the days are done, and the page which of them late events may still change."""
    days = days_of(context)
    with_rows = ledger.open().mark_settled((days.first, days.last), utc_now())
    newest = {source.source: source.last_event for source in ledger.open().freshness()}
    with engine.get_connection() as connection:
        sources = days_by_source(connection, lake.open(), days)
    late = provisional_days(sources, newest, timedelta(hours=limits.allowed_lateness_hours))
    unread = unread_by_pulls(ledger.open(), limits, days)
    provisional = sorted({*late, *unread})
    for day in days.days():
        state = "provisional: late events may still change it" if day in provisional else "final"
        state = "provisional: a pulled source was not read to its end" if day in unread else state
        context.add_asset_metadata({"state": state}, partition_key=day.isoformat())
    progress.report(context, days, days)
    return dg.MaterializeResult(
        metadata={
            "days": str(days),
            "days_with_rows": with_rows,
            "provisional_days": ", ".join(map(str, provisional)) or "none",
        }
    )

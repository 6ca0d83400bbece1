"""The end of the batch: only here do days count as computed, when everything before went well."""

import dagster as dg

from obs_pipeline.clock import utc_now
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of
from obs_pipeline.defs.resources import LedgerResource, Progress


@dg.asset(
    group_name="dashboard",
    owners=["team:platform"],
    kinds={"sqlite"},
    description="Days computed to their end, and up to which landing: what is not in here waits for a batch. A batch "
    "that was killed, or stopped by a blocking check, leaves its days waiting.",
    deps=["usage_rejected", "anomalies", "mart_spend", "mart_leaderboard", "mart_data_quality"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
)
def computed_days(
    context: dg.AssetExecutionContext, ledger: LedgerResource, progress: dg.ResourceParam[Progress]
) -> dg.MaterializeResult:
    """Tell the ledger that the days are done."""
    days = days_of(context)
    with_rows = ledger.open().mark_settled((days.first, days.last), utc_now())
    progress.report(context, days, days)
    return dg.MaterializeResult(metadata={"days": str(days), "days_with_rows": with_rows})

"""The dashboard marts as assets."""

import dagster as dg

from obs_pipeline.dashboard.marts import build_data_quality, build_leaderboard, build_spend
from obs_pipeline.dashboard.tables import MART_DATA_QUALITY, MART_LEADERBOARD, MART_SPEND
from obs_pipeline.defs import checks
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of
from obs_pipeline.defs.resources import BatchLimits, EngineResource, LakeResource, Progress
from obs_pipeline.defs.stories import tell_days
from obs_pipeline.defs.usage_assets import FINOPS, TOTALS, hourly_chunks, lake_asset
from obs_pipeline.storage.lake import chunk_days
from obs_pipeline.storage.proofs import keys_are_unique, schema_is_declared, totals_agree
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_EVENTS, USAGE_HOURLY

_SPEND_TOP = """
    SELECT dt, org, project, agent, model, calls, cost FROM mart_spend WHERE grain = 'day'
    ORDER BY cost DESC, agent, model
"""
_MOVERS = "SELECT dt, place, agent, cost, cost_week_before, cost_change FROM mart_leaderboard ORDER BY place"
_FINDINGS = "SELECT * FROM mart_data_quality ORDER BY finding = 'accepted' DESC, rows DESC, finding"


@dg.asset(
    **lake_asset(MART_SPEND, "dashboard", FINOPS, {"duckdb", "deltalake"}),
    deps=["usage_hourly"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("mart_spend"),
)
def mart_spend(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Spend by hour and by day; each grain adds up to the hourly table."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("mart_spend")
    with engine.get_connection() as connection:
        for chunk in hourly_chunks(tables.rows_per_day(USAGE_HOURLY, days), days, limits):
            build_spend(connection, tables, chunk)
            for grain in ("hour", "day"):
                before, after = (USAGE_HOURLY, "true", TOTALS), (MART_SPEND, f"grain = '{grain}'", TOTALS)
                evidence.add("money_and_calls_conserved", totals_agree(connection, tables, chunk, before, after))
            evidence.add("unique_keys", keys_are_unique(connection, tables, MART_SPEND, chunk))
            progress.report(context, chunk, days)
        evidence.add("schema", schema_is_declared(tables, MART_SPEND))
        told = tell_days(context, connection, tables, MART_SPEND, days, _SPEND_TOP)
    return dg.MaterializeResult(metadata=told, check_results=evidence.results())


@dg.asset(
    **lake_asset(MART_LEADERBOARD, "dashboard", FINOPS, {"duckdb", "deltalake"}),
    deps=[
        dg.AssetDep(
            "usage_daily",
            partition_mapping=dg.TimeWindowPartitionMapping(
                start_offset=-7, allow_nonexistent_upstream_partitions=True
            ),
        )
    ],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("mart_leaderboard"),
)
def mart_leaderboard(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Who moved most against the week before."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("mart_leaderboard")
    totals = {"cost": "sum(cost)", "calls": "sum(calls)"}
    with engine.get_connection() as connection:
        for chunk in hourly_chunks(tables.rows_per_day(USAGE_DAILY, days), days, limits):
            build_leaderboard(connection, tables, chunk)
            before, after = (USAGE_DAILY, "true", totals), (MART_LEADERBOARD, "true", totals)
            evidence.add("money_and_calls_conserved", totals_agree(connection, tables, chunk, before, after))
            evidence.add("unique_keys", keys_are_unique(connection, tables, MART_LEADERBOARD, chunk))
            progress.report(context, chunk, days)
        evidence.add("schema", schema_is_declared(tables, MART_LEADERBOARD))
        told = tell_days(context, connection, tables, MART_LEADERBOARD, days, _MOVERS)
    return dg.MaterializeResult(metadata=told, check_results=evidence.results())


@dg.asset(
    **lake_asset(MART_DATA_QUALITY, "dashboard", FINOPS, {"duckdb", "deltalake"}),
    deps=["usage_events", "usage_rejected", "usage_twins"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("mart_data_quality"),
)
def mart_data_quality(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """What became of every row of the days."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("mart_data_quality")
    with engine.get_connection() as connection:
        for chunk in chunk_days(days, tables.rows_per_day(USAGE_EVENTS, days), limits.events_per_chunk):
            build_data_quality(connection, tables, chunk)
            before = (USAGE_EVENTS, "true", {"rows": "count(*)", "cost": "sum(cost)"})
            after = (MART_DATA_QUALITY, "finding = 'accepted'", {"rows": "sum(rows)", "cost": "sum(cost)"})
            evidence.add("accounts_for_every_event", totals_agree(connection, tables, chunk, before, after))
            evidence.add("unique_keys", keys_are_unique(connection, tables, MART_DATA_QUALITY, chunk))
            progress.report(context, chunk, days)
        evidence.add("schema", schema_is_declared(tables, MART_DATA_QUALITY))
        told = tell_days(context, connection, tables, MART_DATA_QUALITY, days, _FINDINGS)
    return dg.MaterializeResult(metadata=told, check_results=evidence.results())

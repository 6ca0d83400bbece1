"""Baselines and anomalies as assets, with the picture of each day."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from obs_pipeline.clock import utc_now
from obs_pipeline.defs import checks
from obs_pipeline.defs.day_chart import day_charts
from obs_pipeline.defs.day_explanations import day_explanations
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of
from obs_pipeline.defs.resources import (
    BatchLimits,
    EngineResource,
    LakeResource,
    LedgerResource,
    PricesResource,
    Progress,
)
from obs_pipeline.defs.stories import picture, tell_days
from obs_pipeline.defs.usage_assets import lake_asset
from obs_pipeline.detection.batch import days_at_once, detect_days, known_in, settings_in
from obs_pipeline.detection.explanations import list_rates
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline.storage.proofs import keys_are_unique, schema_is_declared

SRE = ["team:sre"]

_WORST = """
    SELECT dt, severity, round(score) AS score, agent, metric, grain, reason FROM anomalies
    ORDER BY score DESC, id
"""
_STATES = """
    SELECT dt, grain, metric, count(*) AS points, count(*) FILTER (state = 'learning') AS learning,
        count(*) FILTER (observed > upper) AS above, count(*) FILTER (observed < lower) AS below
    FROM baselines GROUP BY dt, grain, metric ORDER BY grain, metric
"""


def _usage_of_the_days_before(asset: str) -> dg.AssetDep:
    mapping = dg.TimeWindowPartitionMapping(start_offset=-28, allow_nonexistent_upstream_partitions=True)
    return dg.AssetDep(asset, partition_mapping=mapping)


@dg.multi_asset(
    name="detection",
    specs=[
        dg.AssetSpec(
            "baselines",
            deps=[_usage_of_the_days_before("usage_hourly"), _usage_of_the_days_before("usage_daily")],
            **lake_asset(BASELINES, "detection", SRE, {"numpy", "deltalake"}),
        ),
        dg.AssetSpec(
            "anomalies",
            deps=["baselines", "usage_events"],
            **lake_asset(ANOMALIES, "detection", SRE, {"numpy", "deltalake"}),
        ),
    ],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=[*checks.specs("baselines"), *checks.specs("anomalies")],
)
def detection(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    engine: EngineResource,
    ledger: LedgerResource,
    prices: PricesResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> Iterator[Any]:
    """Compare the days with the days before them."""
    days, tables, config = days_of(context), lake.open(), settings_in(Path(limits.policies))
    known = known_in(Path(limits.policies), ledger.open())
    expected, found = checks.Evidence("baselines"), checks.Evidence("anomalies")
    with engine.get_connection() as connection:
        for chunk in days_at_once(connection, tables, days):
            detect_days(connection, tables, chunk, config, known, utc_now())
            expected.add("unique_keys", keys_are_unique(connection, tables, BASELINES, chunk))
            found.add("unique_keys", keys_are_unique(connection, tables, ANOMALIES, chunk))
            progress.report(context, chunk, days)
        expected.add("schema", schema_is_declared(tables, BASELINES))
        found.add("schema", schema_is_declared(tables, ANOMALIES))
        bands = tell_days(context, connection, tables, BASELINES, days, _STATES)
        worst = tell_days(context, connection, tables, ANOMALIES, days, _WORST)
        for day, chart in day_charts(connection, tables, days):
            shown = {"observed_against_baseline": picture(chart, f"Cost on {day}")}
            context.add_asset_metadata(shown, asset_key="anomalies", partition_key=day.isoformat())
        rates = partial(list_rates, prices.load())
        for day, causes in day_explanations(connection, tables, days, config.lookback_days, rates):
            context.add_asset_metadata(causes, asset_key="anomalies", partition_key=day.isoformat())
    yield dg.MaterializeResult(asset_key="baselines", metadata=bands)
    yield dg.MaterializeResult(asset_key="anomalies", metadata=worst)
    yield from (*expected.results(), *found.results())

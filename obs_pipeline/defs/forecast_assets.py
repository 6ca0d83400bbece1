"""Forecasts as an asset, with the picture of each day's month."""

from collections.abc import Iterator
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Final

import dagster as dg
import duckdb
import pyarrow as pa

from obs_pipeline.clock import utc_now
from obs_pipeline.defs import checks
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of
from obs_pipeline.defs.resources import BatchLimits, EngineResource, LakeResource, LedgerResource, Progress
from obs_pipeline.defs.stories import picture, tell_days
from obs_pipeline.defs.usage_assets import FINOPS, lake_asset
from obs_pipeline.detection.forecast_batch import BUDGET_SCHEMA, MONTHS_BEFORE, WINDOW_SCHEMA, forecast_days, months
from obs_pipeline.detection.forecasts import COVERAGE, Replay
from obs_pipeline.detection.pictures.interval_chart import Outlook, interval_chart_svg
from obs_pipeline.detection.tables import FORECASTS
from obs_pipeline.policy.batch import Standing, standing
from obs_pipeline.policy.calendars import cost_limits, period_windows
from obs_pipeline.policy.in_force import PoliciesOverTime
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.policy_store import PolicyStore
from obs_pipeline.storage.proofs import Proof, keys_are_unique, schema_is_declared

REPLAYS_WORTH_A_WORD: Final = 100
TOLERANCE: Final = 0.15
"""How far the share of intervals that held may be from the promised one, on a month of days ahead."""

_SHOWN: Final = 8
_NEAREST: Final = """
    SELECT dt, coalesce(agent, project, org) AS whose, period, CAST(spent AS DOUBLE) AS spent, forecast, lower, upper,
        CAST(limit_amount AS DOUBLE) AS budget_limit, budget, exhausted_at, state
    FROM forecasts
    ORDER BY (upper / nullif(limit_amount, 0)) DESC NULLS LAST, forecast DESC NULLS LAST, whose, period
"""
_MONTHS: Final = f"""
    SELECT dt, coalesce(agent, project, org, 'no organisation') AS name, CAST(spent AS DOUBLE), forecast, lower, upper,
        CAST(limit_amount AS DOUBLE),
        CASE WHEN state <> 'ok' THEN state WHEN budget IS NULL OR budget = 'holds' THEN '' ELSE budget END
    FROM forecasts WHERE period = 'month' AND dt BETWEEN ? AND ?
    QUALIFY row_number() OVER (
        PARTITION BY dt ORDER BY limit_amount IS NULL, scope DESC, forecast DESC NULLS LAST, name
    ) <= {_SHOWN}
    ORDER BY dt, scope DESC, forecast DESC NULLS LAST, name
"""


def _usage_of_the_months_before(asset: str) -> dg.AssetDep:
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-31 * (MONTHS_BEFORE + 1), allow_nonexistent_upstream_partitions=True
    )
    return dg.AssetDep(asset, partition_mapping=mapping)


@dg.asset(
    **lake_asset(FORECASTS, "detection", FINOPS, {"numpy", "deltalake"}),
    deps=[_usage_of_the_months_before("usage_daily"), "usage_hourly", "effective_policies"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("forecasts"),
)
def forecasts(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ledger: LedgerResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """What will be spent by the end of the periods that follow each day, and which budgets that is too much for."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("forecasts")
    known = PoliciesOverTime(Path(limits.policies), PolicyStore(ledger.open()))
    replay = Replay(0, 0)
    with engine.get_connection() as connection:
        for chunk in months(days):
            found = standing(connection, tables, chunk, lambda at: known.at(at).policies, utc_now())
            replay = forecast_days(connection, tables, chunk, *_plain(found))
            evidence.add("unique_keys", keys_are_unique(connection, tables, FORECASTS, chunk))
            progress.report(context, chunk, days)
        evidence.add("schema", schema_is_declared(tables, FORECASTS))
        evidence.add("interval_coverage", _coverage(replay))
        told = tell_days(context, connection, tables, FORECASTS, days, _NEAREST)
        for day, chart in _charts(connection, tables, days):
            shown = {"month": picture(chart, f"Forecasts of {day}")}
            context.add_asset_metadata(shown, partition_key=day.isoformat())
    covered = {"replayed_intervals": replay.made, "replayed_coverage": round(replay.coverage, 3)} if replay.made else {}
    return dg.MaterializeResult(metadata={**told, **covered}, check_results=evidence.results())


def _plain(found: Standing) -> tuple[pa.Table, pa.Table]:
    windows = pa.Table.from_pylist(list(period_windows(found)), schema=WINDOW_SCHEMA)
    return windows, pa.Table.from_pylist(list(cost_limits(found)), schema=BUDGET_SCHEMA)


def _coverage(replay: Replay) -> Proof:
    if replay.made < REPLAYS_WORTH_A_WORD or abs(replay.coverage - COVERAGE) <= TOLERANCE:
        return checks.as_proof([])
    return checks.as_proof([{"intervals": replay.made, "held": round(replay.coverage, 3), "promised": COVERAGE}])


def _charts(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> Iterator[tuple[date, str]]:
    lake.view(connection, FORECASTS, days)
    rows = connection.execute(_MONTHS, [days.first, days.last]).fetchall()
    for day, some in groupby(rows, key=lambda row: row[0]):
        outlooks = [Outlook(*row[1:]) for row in some]
        yield day, interval_chart_svg(outlooks, f"Spend of the month, as foreseen at the end of {day}")

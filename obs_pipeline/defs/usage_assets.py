"""The usage assets: files → usage_events, usage_rejected → usage_hourly → usage_daily.

Each reads, calls its room, writes, and tells its story. What the numbers mean is decided in ``obs_pipeline.usage``.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import dagster as dg

from obs_pipeline.clock import utc_now
from obs_pipeline.defs import checks
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of
from obs_pipeline.defs.resources import (
    BatchLimits,
    EngineResource,
    LakeResource,
    LedgerResource,
    PricesResource,
    Progress,
)
from obs_pipeline.defs.source_watch import all_silences
from obs_pipeline.defs.stories import column_schema, tell_days
from obs_pipeline.storage.lake import DayRange, LakeTable, chunk_days
from obs_pipeline.storage.proofs import Proof, keys_are_unique, never_negative, schema_is_declared, totals_agree
from obs_pipeline.usage import quality_findings
from obs_pipeline.usage.aggregates import build_daily, build_hourly
from obs_pipeline.usage.event import TOKEN_COLUMNS
from obs_pipeline.usage.settling import leaks, settle
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_EVENTS, USAGE_HOURLY, USAGE_REJECTED, USAGE_TWINS
from obs_pipeline.usage.twins import DEAREST_TWINS, build_twins, near_twins

PLATFORM = ["team:platform"]
FINOPS = ["team:finops"]

_EVENT_TOTALS = {
    "cost": "sum(cost)",
    "calls": "count(*) FILTER (event_type = 'usage')",
    "input_tokens": "sum(input_tokens)",
    "output_tokens": "sum(output_tokens)",
}
TOTALS = {name: f"sum({name})" for name in _EVENT_TOTALS}


def lake_asset(table: LakeTable, group: str, owners: list[str], kinds: set[str]) -> dict[str, Any]:
    """What every asset over a lake table declares alike."""
    return {
        "description": table.description,
        "group_name": group,
        "owners": owners,
        "kinds": kinds,
        "metadata": {"dagster/column_schema": column_schema(table), "dagster/table_name": table.name},
    }


@dg.multi_asset(
    name="usage_events",
    specs=[
        dg.AssetSpec(
            "usage_events", deps=["usage_files"], **lake_asset(USAGE_EVENTS, "usage", PLATFORM, {"deltalake"})
        ),
        dg.AssetSpec(
            "usage_rejected", deps=["usage_files"], **lake_asset(USAGE_REJECTED, "usage", PLATFORM, {"deltalake"})
        ),
    ],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("usage_events"),
)
def usage_events(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ledger: LedgerResource,
    engine: EngineResource,
    prices: PricesResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> Iterator[Any]:
    """Settle the days: each event once, conflicts quarantined, late prices found, nothing lost."""
    days, tables, evidence, now = days_of(context), lake.open(), checks.Evidence("usage_events"), utc_now()
    book = prices.load()
    newest = ledger.open().newest_landing_per_day()
    ledger.open().note_seen({day: landing for day, landing in newest.items() if day in days})
    with engine.get_connection() as connection:
        for chunk in settling_chunks(tables.rows_per_day(USAGE_EVENTS, days), days, limits):
            settled = settle(connection, tables, chunk, book, limits.price_tolerance, limits.identity_days)
            landed = ledger.open().landed((chunk.first, chunk.last))
            lost = leaks(connection, tables, chunk, landed)
            evidence.add("rows_in_equal_rows_out", checks.as_proof(vars(leak) for leak in lost))
            # Settling looks for ids that stand twice: where it found none, that was the proof.
            unique = keys_are_unique(connection, tables, USAGE_EVENTS, chunk) if settled.removed else Proof(0)
            evidence.add("unique_keys", unique)
            evidence.add("unpriced_share", quality_findings.unpriced(connection, limits.unpriced_share_limit))
            evidence.add("mispriced_calls", quality_findings.mispriced(connection))
            progress.report(context, chunk, days)
        evidence.add("schema", schema_is_declared(tables, USAGE_EVENTS))
        stale = (asdict(one) for one in all_silences(ledger.open(), limits, now) if one.is_stale(now))
        evidence.add("sources_are_fresh", checks.as_proof(stale))
        events = tell_days(context, connection, tables, USAGE_EVENTS, days, quality_findings.DEAREST_CALLS)
        rejected = tell_days(context, connection, tables, USAGE_REJECTED, days, quality_findings.REJECTIONS)
    yield dg.MaterializeResult(asset_key="usage_events", metadata=events)
    yield dg.MaterializeResult(asset_key="usage_rejected", metadata=rejected)
    yield from evidence.results()


@dg.asset(
    **lake_asset(USAGE_TWINS, "usage", FINOPS, {"duckdb", "deltalake"}),
    deps=["usage_events", "usage_rejected"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("usage_twins"),
)
def usage_twins(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Tell which calls two sources reported, and what that did or may do to the cost."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("usage_twins")
    with engine.get_connection() as connection:
        for chunk in chunk_days(days, tables.rows_per_day(USAGE_EVENTS, days), limits.events_per_chunk):
            build_twins(connection, tables, chunk)
            evidence.add("unique_keys", keys_are_unique(connection, tables, USAGE_TWINS, chunk))
            evidence.add("no_near_twins", near_twins(connection, tables, chunk))
            progress.report(context, chunk, days)
        evidence.add("schema", schema_is_declared(tables, USAGE_TWINS))
        told = tell_days(context, connection, tables, USAGE_TWINS, days, DEAREST_TWINS)
    return dg.MaterializeResult(metadata=told, check_results=evidence.results())


@dg.asset(
    **lake_asset(USAGE_HOURLY, "usage", PLATFORM, {"duckdb", "deltalake"}),
    deps=["usage_events"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("usage_hourly"),
)
def usage_hourly(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Sum events to hours, and prove that no cent was lost on the way."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("usage_hourly")
    with engine.get_connection() as connection:
        for chunk in chunk_days(days, tables.rows_per_day(USAGE_EVENTS, days), limits.events_per_chunk):
            build_hourly(connection, tables, chunk)
            before, after = (USAGE_EVENTS, "true", _EVENT_TOTALS), (USAGE_HOURLY, "true", TOTALS)
            evidence.add("money_and_calls_conserved", totals_agree(connection, tables, chunk, before, after))
            evidence.add("unique_keys", keys_are_unique(connection, tables, USAGE_HOURLY, chunk))
            counted = ["calls", "errors", *TOKEN_COLUMNS]
            evidence.add("no_negative_totals", never_negative(connection, tables, USAGE_HOURLY, chunk, counted))
            progress.report(context, chunk, days)
        evidence.add("schema", schema_is_declared(tables, USAGE_HOURLY))
        told = tell_days(context, connection, tables, USAGE_HOURLY, days, quality_findings.DEAREST_HOURS)
    return dg.MaterializeResult(metadata=told, check_results=evidence.results())


@dg.asset(
    **lake_asset(USAGE_DAILY, "usage", FINOPS, {"duckdb", "deltalake"}),
    deps=["usage_hourly"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("usage_daily"),
)
def usage_daily(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Sum hours to days."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("usage_daily")
    with engine.get_connection() as connection:
        for chunk in hourly_chunks(tables.rows_per_day(USAGE_HOURLY, days), days, limits):
            build_daily(connection, tables, chunk)
            before, after = (USAGE_HOURLY, "true", TOTALS), (USAGE_DAILY, "true", TOTALS)
            evidence.add("money_and_calls_conserved", totals_agree(connection, tables, chunk, before, after))
            evidence.add("unique_keys", keys_are_unique(connection, tables, USAGE_DAILY, chunk))
            progress.report(context, chunk, days)
        evidence.add("schema", schema_is_declared(tables, USAGE_DAILY))
        told = tell_days(context, connection, tables, USAGE_DAILY, days, quality_findings.DEAREST_AGENTS)
    return dg.MaterializeResult(metadata=told, check_results=evidence.results())


def settling_chunks(rows: dict[Any, int], days: DayRange, limits: BatchLimits) -> list[DayRange]:
    """Chunks for settling, which reads little of an event, but that of the day before each chunk as well."""
    return chunk_days(days, rows, limits.events_per_chunk * 2)


def hourly_chunks(rows: dict[Any, int], days: DayRange, limits: BatchLimits) -> list[DayRange]:
    """Chunks for steps that read hourly rows, which are wider than events."""
    return chunk_days(days, rows, limits.events_per_chunk * 2 // 3)

"""Bills: billed_buckets → reconciliation, with usage_daily beside it, and the schedule that looks at them every day.

A job of its own: the daily batch does not wait for sellers. One run pulls every configured bill and compares the last days
again, as late calls and corrections of bills change them. A bill that fails leaves its days uncompared and fails a check; it
neither stops the others nor moves its own position.
"""

from datetime import timedelta
from pathlib import Path
from typing import Final

import dagster as dg

from obs_pipeline.clock import utc_now
from obs_pipeline.dashboard.unsettled import StillToCome, unsettled_days
from obs_pipeline.defs import checks
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of, range_tags
from obs_pipeline.defs.resources import (
    BatchLimits,
    EngineResource,
    LakeResource,
    LedgerResource,
    PricesResource,
    Progress,
)
from obs_pipeline.defs.source_assets import configured_sources
from obs_pipeline.defs.stories import tell_days
from obs_pipeline.defs.usage_assets import FINOPS, lake_asset
from obs_pipeline.storage.lake import DayRange
from obs_pipeline.storage.locks import exclusive
from obs_pipeline.storage.proofs import keys_are_unique, schema_is_declared
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.billing.admin_api import fetch_bill
from obs_pipeline.usage.billing.configured import BillsInvalid, read_bills
from obs_pipeline.usage.billing.pull import pull_bill
from obs_pipeline.usage.billing.reconcile import (
    TERMS,
    build_reconciliation,
    outside_tolerance,
    terms_come_to_the_gap,
)
from obs_pipeline.usage.currencies import RateBook
from obs_pipeline.usage.pulling.pages import PullFailed
from obs_pipeline.usage.tables import BILLED_BUCKETS, RECONCILIATION

GROUP: Final = "billing"
JOB: Final = "reconcile_bills"
COMPARED_DAYS: Final = 31
"""How many days are compared again every day: bills of a month are corrected until it is paid."""

_HOUR: Final = 6
"""Sellers close a UTC day some hours after its end."""

_WIDEST_GAPS: Final = f"""
    SELECT dt, provider, project, model, captured, billed, gap, {", ".join(TERMS)}
    FROM reconciliation WHERE gap <> 0 ORDER BY abs(gap) DESC, provider, model
"""


@dg.asset(**lake_asset(BILLED_BUCKETS, GROUP, FINOPS, {"api", "deltalake"}), check_specs=checks.specs("billed_buckets"))
def billed_buckets(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ledger: LedgerResource,
    engine: EngineResource,
    limits: BatchLimits,
) -> dg.MaterializeResult:
    """Pull every configured bill up to its last whole day, and the days before that its seller may have corrected."""
    tables, evidence = lake.open(), checks.Evidence("billed_buckets")
    policies, positions = Path(limits.policies), SourcePositions(ledger.open())
    bills, rates = read_bills(policies / "bills.yaml").bills, RateBook.load(policies / "currencies.yaml")
    told: dict[str, str] = {}
    failed: list[dict[str, str]] = []
    with engine.get_connection() as connection:
        for name, bill in bills.items():
            try:
                with exclusive(Path(limits.scratch), f"pulling-bill-{name}"):
                    done = pull_bill(connection, tables, name, bill, fetch_bill, positions, rates, utc_now())
                told[name] = f"{done.lines:,} lines, {done.first} until {done.until}"
            except PullFailed as error:
                failed.append({"bill": name, "failure": str(error)})
        known = sorted(tables.rows_per_day(BILLED_BUCKETS))
        if known:
            days = DayRange(known[0], known[-1])
            evidence.add("unique_keys", keys_are_unique(connection, tables, BILLED_BUCKETS, days))
        else:
            evidence.add("unique_keys", checks.as_proof([]))
    evidence.add("schema", schema_is_declared(tables, BILLED_BUCKETS))
    evidence.add("bills_are_read", checks.as_proof(failed))
    return dg.MaterializeResult(
        metadata={"bills": len(bills), "billed_days": len(known), **told}, check_results=evidence.results()
    )


@dg.asset(
    **lake_asset(RECONCILIATION, GROUP, FINOPS, {"duckdb", "deltalake"}),
    deps=["usage_daily", "billed_buckets"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("reconciliation"),
)
def reconciliation(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ledger: LedgerResource,
    engine: EngineResource,
    prices: PricesResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Say for each billed day, project and model what was captured, what is billed, and why they differ."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("reconciliation")
    said = read_bills(Path(limits.policies) / "bills.yaml")
    lateness = timedelta(hours=limits.allowed_lateness_hours)
    awaited = StillToCome(lateness, configured_sources(), said.bills.values())
    with engine.get_connection() as connection:
        late = unsettled_days(connection, tables, ledger.open(), days, awaited, utc_now())
        lines = build_reconciliation(connection, tables, days, prices.load(), late)
        evidence.add("terms_come_to_the_gap", checks.as_proof(terms_come_to_the_gap(connection, lines)))
        evidence.add("within_tolerance", checks.as_proof(outside_tolerance(connection, lines, said.tolerance)))
        evidence.add("unique_keys", keys_are_unique(connection, tables, RECONCILIATION, days))
        evidence.add("schema", schema_is_declared(tables, RECONCILIATION))
        told = tell_days(context, connection, tables, RECONCILIATION, days, _WIDEST_GAPS)
    progress.report(context, days, days)
    return dg.MaterializeResult(metadata=told, check_results=evidence.results())


reconcile_bills = dg.define_asset_job(
    JOB,
    dg.AssetSelection.assets("billed_buckets", "reconciliation"),
    description="Pull the bills, and compare what was captured with what is billed.",
)


@dg.schedule(
    job=reconcile_bills,
    cron_schedule=f"0 {_HOUR} * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=f"Every day: the bills, and the last {COMPARED_DAYS} days compared with them, where one is configured.",
)
def reconcile_schedule(context: dg.ScheduleEvaluationContext, limits: BatchLimits) -> dg.RunRequest | dg.SkipReason:
    """The days before that of the tick."""
    try:
        bills = read_bills(Path(limits.policies) / "bills.yaml").bills
    except BillsInvalid as error:
        return dg.SkipReason(str(error))
    if not bills:
        return dg.SkipReason("No bill is configured in policies/bills.yaml.")
    last = context.scheduled_execution_time.date() - timedelta(days=1)
    days = DayRange(last - timedelta(days=COMPARED_DAYS - 1), last)
    return dg.RunRequest(run_key=f"reconcile:{last}", tags=range_tags(days))

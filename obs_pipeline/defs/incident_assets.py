"""The asset ``incidents``: what the batch found wrong, folded into incidents, and decided who is to be told.

Gathers signals from the tables and the ledger, and hands them to ``obs_pipeline.alerting``. Nothing is sent here: what is
decided waits in the outbox for the job ``deliver_alerts``.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import dagster as dg
import duckdb

from obs_pipeline.alerting.models import Signal
from obs_pipeline.alerting.passes import Findings, heard_through, tell
from obs_pipeline.alerting.signals import anomaly_signal, budget_signal
from obs_pipeline.clock import utc_now
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of
from obs_pipeline.defs.resources import BatchLimits, EngineResource, LakeResource, LedgerResource, Progress
from obs_pipeline.defs.source_watch import silent_sources
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.policy.tables import BUDGET_STATUS
from obs_pipeline.storage.lake import DayRange, Lake

_ANOMALIES: Final = "SELECT * EXCLUDE dt FROM anomalies ORDER BY timestamp, id"
_BUDGETS: Final = """
    SELECT window_key, window_start, window_end, crossed, spent, limit_amount AS "limit", kind, period, org, project, agent
    FROM budget_status WHERE crossed IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY window_key ORDER BY dt DESC) = 1
    ORDER BY window_key
"""


@dg.asset(
    group_name="alerting",
    owners=["team:sre"],
    kinds={"sqlite"},
    description="Anomalies, crossed budgets and silent sources of the days, folded into incidents: one incident is told "
    "once, grows, and ends. `obs-pipeline alerts list` shows them.",
    deps=["anomalies", "budget_status"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
)
def incidents(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ledger: LedgerResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Fold what was found, and decide who is to be told."""
    days, now, records = days_of(context), utc_now(), ledger.open()
    with engine.get_connection() as connection:
        found = [*anomaly_signals(connection, lake.open(), days), *budget_signals(connection, lake.open(), days)]
    through = heard_through(records, now)
    silences = silent_sources(records, limits, now)
    findings = Findings(
        signals=[*(one for one in found if is_known(one, through)), *silences.signals],
        through=through,
        over=silences.over,
        recomputed=frozenset(days.days()),
    )
    passed = tell(records, Path(limits.policies), findings, now)
    progress.report(context, days, days)
    return dg.MaterializeResult(metadata={"days": str(days), "signals": len(findings.signals), **passed})


def is_known(signal: Signal, through: datetime) -> bool:
    """Whether what was found can still turn out not to be so: too little in an hour or a day that has not been heard of to
    its end (``through``) is no finding yet. Too much stays too much."""
    return signal.direction != "drop" or signal.ends_at <= through


def anomaly_signals(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> Iterator[Signal]:
    """Every anomaly of the days."""
    lake.view(connection, ANOMALIES, days)
    return (anomaly_signal(row) for row in _rows(connection, _ANOMALIES))


def budget_signals(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> Iterator[Signal]:
    """The newest state of every budget window that crossed a threshold in the days."""
    lake.view(connection, BUDGET_STATUS, days)
    for row in _rows(connection, _BUDGETS):
        yield budget_signal(**{**row, "project": row["project"] or "", "agent": row["agent"] or ""})


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
    return found

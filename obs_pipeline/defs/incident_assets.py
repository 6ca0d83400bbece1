"""The asset ``incidents``: what the batch found wrong, folded into incidents, and decided who is to be told.

Gathers signals from the tables and the ledger, and hands them to ``obs_pipeline.alerting``. Nothing is sent here: what is
decided waits in the outbox for the job ``deliver_alerts``.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg
import duckdb

from obs_pipeline.alerting.models import Signal
from obs_pipeline.alerting.passes import Findings, PassResult, routes_in_force, run_pass
from obs_pipeline.alerting.routes import RoutesError
from obs_pipeline.alerting.signals import anomaly_signal, budget_signal, lasting_signal, stale_source
from obs_pipeline.clock import utc_now
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of
from obs_pipeline.defs.resources import BatchLimits, EngineResource, LakeResource, LedgerResource, Progress
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.policy.tables import BUDGET_STATUS
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger, SourceFreshness

BATCH: Final = "job:daily_batch"
"""The subject of a batch that failed; a batch that gets this far reports it over."""

_ANOMALIES: Final = "SELECT * EXCLUDE (dt, context) FROM anomalies ORDER BY timestamp, id"
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
    sources = records.freshness()
    silent, alive = silent_sources(sources, now, timedelta(hours=limits.freshness_hours))
    findings = Findings(
        signals=[*found, *silent],
        through=min(now, max((one.last_event for one in sources if one.last_event), default=now)),
        over={BATCH, *alive},
        recomputed=frozenset(days.days()),
    )
    passed = tell(records, Path(limits.policies), findings, now)
    progress.report(context, days, days)
    return dg.MaterializeResult(metadata={"days": str(days), "signals": len(findings.signals), **passed})


def tell(ledger: Ledger, policies: Path, findings: Findings, now: datetime) -> dict[str, Any]:
    """Run a pass over the findings; what it did, as metadata. Without any usable routes nothing can be decided."""
    store = AlertStore(ledger)
    try:
        in_force = routes_in_force(store, policies / "routes.yaml", now)
    except RoutesError as error:
        return {"routes": f"none can be used, nobody is told: {error}"}
    passed = run_pass(store, in_force.routes, now, findings)
    return {"routes": in_force.problem or "policies/routes.yaml", **_did(passed)}


def failed_job(job: str, run_id: str, now: datetime, error: str) -> Findings:
    """A run that failed, as a finding."""
    headline = f"The job {job} failed: {error.splitlines()[0][:300] if error else 'no reason is known'}"
    return Findings([lasting_signal("run_failure", f"job:{job}", run_id, now, now, headline)])


def anomaly_signals(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> Iterator[Signal]:
    """Every anomaly of the days."""
    lake.view(connection, ANOMALIES, days)
    return (anomaly_signal(row) for row in _rows(connection, _ANOMALIES))


def budget_signals(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> Iterator[Signal]:
    """The newest state of every budget window that crossed a threshold in the days."""
    lake.view(connection, BUDGET_STATUS, days)
    for row in _rows(connection, _BUDGETS):
        yield budget_signal(**{**row, "project": row["project"] or "", "agent": row["agent"] or ""})


def silent_sources(
    sources: Iterable[SourceFreshness], now: datetime, allowed: timedelta
) -> tuple[list[Signal], set[str]]:
    """A signal for each source that sent nothing for too long, and the names of those that did."""
    silent, alive = [], set()
    for one in sources:
        if one.last_event is None or now - one.last_event <= allowed:
            alive.add(one.source)
        else:
            silent.append(stale_source(one.source, one.last_event, now))
    return silent, alive


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
    return found


def _did(passed: PassResult) -> dict[str, Any]:
    return {"incidents_changed": passed.changed, "messages_decided": passed.queued, "outcomes": dict(passed.outcomes)}

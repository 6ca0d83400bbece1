"""When work happens by itself: the jobs, the daily schedule, the sensors.

A tick only looks and asks for a run; all work is in the runs.
"""

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

import dagster as dg

from obs_pipeline.alerting.passes import tell
from obs_pipeline.clock import utc_now
from obs_pipeline.defs import billing_assets, source_assets
from obs_pipeline.defs.batch import close_killed_batches
from obs_pipeline.defs.instance import is_running
from obs_pipeline.defs.partitions import range_tags
from obs_pipeline.defs.resources import BatchLimits, LakeResource, LedgerResource
from obs_pipeline.defs.run_reports import findings_of
from obs_pipeline.settings import get_settings
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.tables import ALL_TABLES
from obs_pipeline.usage.due_days import due_days
from obs_pipeline.usage.inbox import Inbox
from obs_pipeline.usage.receiving.spool import move_abandoned

PAUSE_AFTER_FAILURE_SECONDS: Final = 600
"""How long a sensor waits after a run of its job that failed: the cause may need a person."""

_STOPPED: Final = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)

RETENTION_HOURS: Final = 7 * 24
"""How long an older version of a table stays readable."""

FILES: Final = dg.AssetSelection.assets("usage_files")
land_usage = dg.define_asset_job(
    "land_usage", FILES, description="Take in every file that waits in the landing folder."
)
daily_batch = dg.define_asset_job(
    "daily_batch",
    dg.AssetSelection.all()
    - FILES
    - dg.AssetSelection.assets("policies", "alert_health", *source_assets.PULLED.keys)
    - dg.AssetSelection.groups(billing_assets.GROUP),
    description="Everything from settled events to marts, for whole days.",
)


@dg.schedule(
    job=daily_batch,
    cron_schedule=f"0 {get_settings().daily_batch_hour} * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day: the batch for the day before.",
)
def daily_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Yesterday, by the time of the tick."""
    yesterday = (context.scheduled_execution_time - timedelta(days=1)).date().isoformat()
    return dg.RunRequest(run_key=f"daily:{yesterday}", partition_key=yesterday)


@dg.sensor(
    job=land_usage,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A file in the landing folder that has stopped growing is taken in.",
)
def landing_sensor(context: dg.SensorEvaluationContext, limits: BatchLimits) -> dg.SensorResult | dg.SkipReason:
    """Ask for a landing run when some waiting file is unchanged since the last look."""
    move_abandoned(Path(limits.landing).with_name("spool"), Path(limits.landing), utc_now)
    inbox = Inbox(Path(limits.landing), Path(limits.policies) / "sources")
    seen: dict[str, list[int]] = json.loads(context.cursor or "{}")
    present = inbox.fingerprint()
    complete = sorted(name for name, status in present.items() if seen.get(name) == status)
    cursor = json.dumps(present, sort_keys=True)
    if not complete or is_running(context.instance, "land_usage"):
        return dg.SensorResult(
            cursor=cursor, skip_reason=f"{len(present)} files wait, {len(complete)} of them fully written."
        )
    if _failed_lately(context, "land_usage"):
        return dg.SensorResult(cursor=cursor, skip_reason="The last landing failed; it is tried again after a while.")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=cursor)


@dg.sensor(
    job=daily_batch,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Days with landed events that the batch has not seen, however old, are computed again, in one run.",
)
def touched_days_sensor(
    context: dg.SensorEvaluationContext, ledger: LedgerResource, limits: BatchLimits
) -> dg.SensorResult | dg.SkipReason:
    """Ask for the touched days, and the days whose baselines they are part of."""
    due = due_days(ledger.open(), limits.identity_days)
    if not due.pending:
        return dg.SkipReason("Every landed event has been computed.")
    if _failed_lately(context, "daily_batch"):
        return dg.SkipReason("The last batch failed; it is tried again after a while.")
    close_killed_batches(context.instance, Path(limits.scratch))
    if is_running(context.instance, "daily_batch"):
        return dg.SkipReason("A batch is under way.")
    # No run keys: days that a batch left waiting, because it was killed or stopped by a check, are asked for again.
    return dg.SensorResult(run_requests=[dg.RunRequest(tags=range_tags(days)) for days in due.ranges()])


@dg.run_failure_sensor(
    name="failed_run_alert",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A failed run, of any job, becomes an incident.",
)
def failed_run_alert(context: dg.RunFailureSensorContext, ledger: LedgerResource, limits: BatchLimits) -> None:
    """One incident a job, however often it fails and however often the daemon looks."""
    now = utc_now()
    tell(ledger.open(), Path(limits.policies), findings_of(context.instance, context.dagster_run, now), now)


@dg.run_status_sensor(
    name="good_run_report",
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A run that went well ends the incident of its job; a check that failed in it becomes an incident.",
)
def good_run_report(context: dg.RunStatusSensorContext, ledger: LedgerResource, limits: BatchLimits) -> None:
    """Runs that say nothing new cost one look at the open incidents."""
    now = utc_now()
    findings = findings_of(context.instance, context.dagster_run, now)
    anything_open = bool(AlertStore(ledger.open()).incidents(("open", "acknowledged"), limit=1))
    if findings.signals or anything_open:
        tell(ledger.open(), Path(limits.policies), findings, now)


@dg.op(description="Merge small files and delete those no reader needs any more.")
def maintain_tables(context: dg.OpExecutionContext, lake: LakeResource) -> None:
    """Keeps a week of versions for time travel."""
    tables = lake.open()
    for table in ALL_TABLES:
        merged, removed = tables.compact(table), tables.vacuum(table, RETENTION_HOURS)
        context.log.info(f"{table.name}: {merged.get('numFilesRemoved', 0)} files merged, {len(removed)} deleted")


@dg.job(description="Compact and vacuum the lake; versions of the last seven days stay readable.")
def maintain_lake() -> None:
    maintain_tables()


maintenance_schedule = dg.ScheduleDefinition(
    name="maintenance_schedule",
    job=maintain_lake,
    cron_schedule="30 4 * * 0",
    execution_timezone="UTC",
    description="Every week: small files are joined, and versions older than seven days are let go.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


def _failed_lately(context: dg.SensorEvaluationContext, job: str) -> bool:
    newest = context.instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)
    if not newest or newest[0].dagster_run.status not in _STOPPED:
        return False
    return (newest[0].end_time or 0) > time.time() - PAUSE_AFTER_FAILURE_SECONDS

"""The daily batch as one call: the Dagster job ``daily_batch`` over a range of days, in this process.

Runs against the project's own instance, so that the page shows it like any other run. A batch that was killed cannot
say so itself: the next one, or the sensor, finds its lock free and closes its run as failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Final

import dagster as dg
from sqlalchemy.exc import DatabaseError

from obs_pipeline.alerting.passes import tell
from obs_pipeline.clock import utc_now
from obs_pipeline.dashboard.queries import batch_result
from obs_pipeline.defs.instance import open_instance
from obs_pipeline.defs.partitions import range_tags
from obs_pipeline.defs.resources import Progress, resources_from
from obs_pipeline.defs.run_reports import findings_of, offences, was_interrupted, why_failed
from obs_pipeline.detection.models import BatchResult
from obs_pipeline.errors import ObsError
from obs_pipeline.settings import Settings
from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.locks import Busy, exclusive

_JOB: Final = "daily_batch"
_LOCK: Final = "batch"
_STARTED_HERE: Final = {"obs-pipeline/started_by": "command line"}


class BatchFailed(ObsError):
    """The batch stopped; the message says at which step and why."""

    exit_code = 1


class BatchInterrupted(ObsError):
    """Somebody ended the batch: nothing is wrong."""

    exit_code = 130


@dataclass(frozen=True)
class FailedCheck:
    """One asset check that did not pass."""

    asset: str
    name: str
    blocking: bool
    offences: int


@dataclass(frozen=True)
class BatchRun:
    """How a run went."""

    run_id: str
    days: DayRange
    result: BatchResult
    failed_checks: Sequence[FailedCheck]


def steps() -> Sequence[str]:
    """The steps of a batch; each of them reports every one of the batch's days, in as many chunks as it likes."""
    from obs_pipeline.definitions import defs

    return [node.name for node in defs.resolve_job_def(_JOB).nodes]


def run_daily_batch(
    settings: Settings, days: DayRange, listener: Callable[[str, DayRange, DayRange], None] = lambda *_: None
) -> BatchRun:
    """Compute the days, all assets, in one run. ``listener`` hears (step, chunk, days) as they are done.

    Raises:
        BatchFailed: a step failed or a blocking check did not pass. An incident is in the ledger.
        BatchInterrupted: Ctrl-C or SIGTERM ended it.
        Busy: another command is at a batch.
    """
    from obs_pipeline.definitions import defs

    started = monotonic()
    with exclusive(settings.scratch, _LOCK), _records_can_be_kept(settings), open_instance(settings) as instance:
        _close_killed_runs(instance)
        result = defs.resolve_job_def(_JOB).execute_in_process(
            instance=instance,
            tags={**range_tags(days), **_STARTED_HERE},
            raise_on_error=False,
            resources={**resources_from(settings), "progress": Progress(listener)},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        failed = [_failed_check(one) for one in result.get_asset_check_evaluations() if not one.passed]
        # No daemon may be running whose sensors would tell of it; told twice is told once.
        findings = findings_of(instance, instance.get_run_by_id(result.run_id) or result.dagster_run, utc_now())
        tell(Ledger(settings.ledger), settings.policies, findings, utc_now())
        cause = "" if result.success else why_failed(instance, result.run_id)
        interrupted = was_interrupted(instance, result.run_id)
    if interrupted:
        raise BatchInterrupted(f"The batch of {days} was stopped before its end. Run the same command again.")
    if not result.success:
        raise BatchFailed(
            f"The batch stopped: {cause}. obs-pipeline doctor tells what is broken and what to do; the whole story is run "
            f"{result.run_id} on the Dagster page."
        )
    duration = timedelta(seconds=monotonic() - started)
    return BatchRun(result.run_id, days, _result(settings, days, duration), failed)


@contextmanager
def _records_can_be_kept(settings: Settings) -> Iterator[None]:
    """A full disk or a lost permission meets Dagster's own databases first."""
    try:
        yield
    except DatabaseError as error:
        raise BatchFailed(
            f"Dagster's records under {settings.dagster_home} cannot be kept: {error.orig}. Check the free space and the "
            "permissions, then run the same command again."
        ) from error


def _result(settings: Settings, days: DayRange, duration: timedelta) -> BatchResult:
    newest = {source.source: source.last_event for source in Ledger(settings.ledger).freshness()}
    lateness = timedelta(hours=settings.allowed_lateness_hours)
    with engine.connect(
        memory_limit=settings.engine_memory, threads=settings.engine_threads, scratch=settings.scratch
    ) as connection:
        return batch_result(connection, Lake(settings.lake), days, newest, lateness, duration)


def close_killed_batches(instance: dg.DagsterInstance, scratch: Path) -> None:
    """Close the runs of killed commands as failed, unless a command is at a batch right now."""
    try:
        with exclusive(scratch, _LOCK, wait_seconds=0):
            _close_killed_runs(instance)
    except Busy:
        return


def _close_killed_runs(instance: dg.DagsterInstance) -> None:
    begun = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    under_way = dg.RunsFilter(tags=_STARTED_HERE, statuses=begun)
    for run in instance.get_runs(under_way):
        instance.report_run_failed(run, "The process of this batch ended without a word; run the batch again.")


def _failed_check(evaluation: dg.AssetCheckEvaluation) -> FailedCheck:
    key = evaluation.asset_check_key
    return FailedCheck(key.asset_key.to_user_string(), key.name, bool(evaluation.blocking), offences(evaluation))

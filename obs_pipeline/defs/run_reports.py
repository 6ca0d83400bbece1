"""What a finished run says of its job and of the checks it made: findings that open incidents, and those that end them.

A job is as its newest finished run left it, a check as it was evaluated last. So it does not matter which sensor looks
first, nor how often: a run that failed before a later one went well is on record and wakes nobody.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from obs_pipeline.alerting.models import Signal
from obs_pipeline.alerting.passes import Findings
from obs_pipeline.alerting.signals import check_subject, failed_check, failed_run, job_subject
from obs_pipeline.defs.checks import CHECKS

_ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_CHECKED: Final = dg.DagsterEventType.ASSET_CHECK_EVALUATION
_TELLING: Final = {_CHECKED, dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
_INTERRUPTION: Final = dg.DagsterExecutionInterruptedError.__name__
_TOLD_OTHERWISE: Final = frozenset({check_subject("usage_events", "sources_are_fresh")})
"""A source that is silent is an incident of its own, by its own measure."""


def findings_of(instance: dg.DagsterInstance, run: dg.DagsterRun, now: datetime) -> Findings:
    """What is to be told of a run that ended. ``now`` is UTC without a zone."""
    checks = list(_checks(instance, run.run_id))
    signals = [one for one in checks if isinstance(one, Signal)]
    over = {one for one in checks if isinstance(one, str)}
    if run.status == dg.DagsterRunStatus.FAILURE and not was_interrupted(instance, run.run_id):
        signals.append(failed_run(run.job_name, run.run_id, now, why_failed(instance, run.run_id)))
    if _went_well_last(instance, run.job_name):
        over.add(job_subject(run.job_name))
    return Findings(signals, over=over)


def was_interrupted(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether somebody ended the run, by Ctrl-C or a signal to end: its days wait, but nothing is wrong."""
    broken = (
        entry.get_dagster_event() for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    )
    return any(_INTERRUPTION in _names_of_errors(one) for one in broken)


def _names_of_errors(event: dg.DagsterEvent) -> list[str | None]:
    names, error = [], event.step_failure_data.error
    while error is not None:
        names.append(error.cls_name)
        error = error.cause
    return names


def why_failed(instance: dg.DagsterInstance, run_id: str) -> str:
    """The blocking checks that did not pass, or else the steps that broke, each with its first cause, or else what Dagster
    says of the run."""
    events = [entry.get_dagster_event() for entry in instance.all_logs(run_id, of_type=_TELLING)]
    made = [one.asset_check_evaluation_data for one in events if one.event_type == _CHECKED]
    blocking = [one for one in made if one.blocking and not one.passed]
    if blocking:
        named = (f"{one.asset_key.to_user_string()}: {one.check_name} ({offences(one)} offences)" for one in blocking)
        return "; ".join(named)
    broken = [f"{one.step_key}: {_first_cause(one)}" for one in events if one.is_step_failure]
    ended = [one.message or "" for one in events if one.event_type == dg.DagsterEventType.RUN_FAILURE]
    return "; ".join(broken) or next(iter(ended), "") or "no step ran"


def _first_cause(event: dg.DagsterEvent) -> str:
    """What the step itself raised: it says more than what that was made of, and than what Dagster wrapped it in."""
    error = event.step_failure_data.error
    while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    return (error.message if error is not None else "unknown").strip().splitlines()[0]


def _went_well_last(instance: dg.DagsterInstance, job: str) -> bool:
    newest = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=_ENDED), limit=1)
    return bool(newest) and newest[0].dagster_run.status == dg.DagsterRunStatus.SUCCESS


def _checks(instance: dg.DagsterInstance, run_id: str) -> Iterator[Signal | str]:
    """Of each check that the run made and that stops nothing: a finding if it fails, else its subject."""
    made = instance.all_logs(run_id, of_type=_CHECKED)
    evaluations = (entry.get_dagster_event().asset_check_evaluation_data for entry in made)
    keys = {one.asset_check_key for one in evaluations if not one.blocking}
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(sorted(keys))
    for key, record in sorted(latest.items()):
        asset, check, evaluation = key.asset_key.to_user_string(), key.name, record.evaluation
        subject = check_subject(asset, check)
        if subject in _TOLD_OTHERWISE or not isinstance(evaluation, dg.AssetCheckEvaluation):
            continue
        if evaluation.passed:
            yield subject
        else:
            at = datetime.fromtimestamp(record.create_timestamp, UTC).replace(tzinfo=None)
            yield failed_check(asset, check, record.run_id, at, _expected(asset, check), offences(evaluation))


def offences(evaluation: dg.AssetCheckEvaluation) -> int:
    """How many findings a check counted; 0 where it does not count."""
    found = evaluation.metadata.get("offences")
    return int(str(found.value)) if found is not None else 0


def _expected(asset: str, check: str) -> str:
    guards: Iterable[str] = (guard.description for guard in CHECKS.get(asset, ()) if guard.name == check)
    return next(iter(guards), "the check passes")

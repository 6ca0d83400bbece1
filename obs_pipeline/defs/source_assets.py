"""The pulled sources as assets: one for each source of ``policies/sources.yaml``, pulled when its interval is over.

The assets are made when the code location is loaded; a source that is added later appears when it is loaded again. One run
pulls whatever is due, each source by itself: one that fails neither stops the others nor moves its own position, so its hours
stay unknown and are fetched by the next pull. How each source is, is told by its check, whenever that changes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from obs_pipeline.clock import utc_now
from obs_pipeline.defs.instance import is_running
from obs_pipeline.defs.resources import BatchLimits, LedgerResource
from obs_pipeline.settings import get_settings
from obs_pipeline.storage.lake import DayRange
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.locks import exclusive
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.pulling.configured import PulledSource, SourcesInvalid, pulled_sources
from obs_pipeline.usage.pulling.pull import fetch_of, pull
from obs_pipeline.usage.pulling.status import SourceStatus, statuses
from obs_pipeline.usage.watermark import unread_days

GROUP = "sources"
JOB = "pull_sources"
CHECK = "is_alive"
RETRY = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
_KINDS = {"litellm_table": "postgres", "langfuse_api": "api"}


@dataclass(frozen=True)
class SourceDefinitions:
    """What Dagster knows of the pulled sources; nothing where none is configured."""

    keys: list[dg.AssetKey] = field(default_factory=list)
    assets: list[Any] = field(default_factory=list)
    checks: list[Any] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    sensors: list[Any] = field(default_factory=list)


def source_definitions(sources: Mapping[str, PulledSource]) -> SourceDefinitions:
    """Assets, checks, the job and the sensor for some sources."""
    if not sources:
        return SourceDefinitions()
    keys = {name: dg.AssetKey([GROUP, name]) for name in sources}
    job = dg.define_asset_job(
        JOB,
        dg.AssetSelection.assets(*keys.values()),
        description="Fetch what is new of the pulled sources into the landing folder.",
    )
    return SourceDefinitions(
        keys=list(keys.values()),
        assets=[_asset(name, source, keys[name]) for name, source in sources.items()],
        checks=[_check(name, source, keys[name]) for name, source in sources.items()],
        jobs=[job],
        sensors=[_sensor(keys)],
    )


def configured_sources() -> dict[str, PulledSource]:
    """The sources of this installation. A file that cannot be used names none: commands and the doctor say what is wrong."""
    try:
        return pulled_sources(get_settings().policies / "sources.yaml")
    except SourcesInvalid:
        return {}


def unread_by_pulls(ledger: Ledger, limits: BatchLimits, days: DayRange) -> list[date]:
    """The days that some pulled source has not been read to the end of: what is missing there is unknown, not nothing."""
    try:
        sources = pulled_sources(Path(limits.policies) / "sources.yaml")
    except SourcesInvalid:
        return []
    found = statuses(sources, SourcePositions(ledger), utc_now())
    begun = {name: source.since for name, source in sources.items()}
    return unread_days(days.days(), begun, {one.source: one.position for one in found})


def _asset(name: str, source: PulledSource, key: dg.AssetKey) -> Any:
    @dg.asset(
        key=key,
        group_name=GROUP,
        owners=["team:platform"],
        kinds={_KINDS[source.kind]},
        description=f"Rows of {name}, by the mapping {source.mapping_name}, fetched every {source.every_minutes} minutes "
        "into the landing folder. A pull that fails is made again and is no time without usage.",
        metadata={"kind": source.kind, "mapping": source.mapping_name, "every_minutes": source.every_minutes},
        retry_policy=RETRY,
    )
    def pulled(context: dg.AssetExecutionContext, ledger: LedgerResource, limits: BatchLimits) -> dg.MaterializeResult:
        """Bring the source up to now, or some windows nearer."""
        current = pulled_sources(Path(limits.policies) / "sources.yaml").get(name, source)
        with exclusive(Path(limits.scratch), f"pulling-{name}"):
            done = pull(
                name, current, fetch_of(current), SourcePositions(ledger.open()), Path(limits.landing), utc_now()
            )
        context.log.info(f"{name}: {done.rows:,} rows in {len(done.files)} files")
        return dg.MaterializeResult(
            metadata={
                "rows": done.rows,
                "files": len(done.files),
                "from": done.start.isoformat(),
                "read_up_to": done.end.isoformat(),
            }
        )

    return pulled


def _check(name: str, source: PulledSource, key: dg.AssetKey) -> Any:
    @dg.asset_check(
        asset=key,
        name=CHECK,
        description=f"Read no longer ago than {source.late_after_minutes} minutes, with calls of the last "
        f"{source.silent_after_minutes}; the last pull went well.",
    )
    def is_alive(ledger: LedgerResource, limits: BatchLimits) -> dg.AssetCheckResult:
        current = pulled_sources(Path(limits.policies) / "sources.yaml").get(name, source)
        (found,) = statuses({name: current}, SourcePositions(ledger.open()), utc_now())
        return dg.AssetCheckResult(**_told(found))

    return is_alive


def _sensor(keys: Mapping[str, dg.AssetKey]) -> dg.SensorDefinition:
    @dg.sensor(
        name="due_sources_sensor",
        job_name=JOB,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sources whose interval is over are pulled; a source that became late, silent or alive is told.",
    )
    def due_sources_sensor(
        context: dg.SensorEvaluationContext, ledger: LedgerResource, limits: BatchLimits
    ) -> dg.SensorResult | dg.SkipReason:
        """Ask for one run of the sources that are due, and report how each is where that changed."""
        try:
            sources = pulled_sources(Path(limits.policies) / "sources.yaml")
        except SourcesInvalid as error:
            return dg.SkipReason(str(error))
        now = utc_now()
        found = statuses(
            {name: one for name, one in sources.items() if name in keys}, SourcePositions(ledger.open()), now
        )
        known: dict[str, str] = json.loads(context.cursor or "{}")
        changed = [one for one in found if known.get(one.source) != one.health]
        reports = [
            dg.AssetCheckEvaluation(asset_key=keys[one.source], check_name=CHECK, **_told(one)) for one in changed
        ]
        due = [one.source for one in found if one.is_due(now)]
        cursor = json.dumps({one.source: one.health for one in found}, sort_keys=True)
        if not due or is_running(context.instance, JOB):
            return dg.SensorResult(skip_reason=_why_not(due, sources, keys), cursor=cursor, asset_events=reports)
        asked = [keys[name] for name in due]
        checked = [dg.AssetCheckKey(key, CHECK) for key in asked]
        request = dg.RunRequest(asset_selection=asked, asset_check_keys=checked)
        return dg.SensorResult(run_requests=[request], cursor=cursor, asset_events=reports)

    return due_sources_sensor


def _why_not(due: list[str], sources: Mapping[str, PulledSource], keys: Mapping[str, dg.AssetKey]) -> str:
    new = sorted(set(sources) - set(keys))
    told = "The sources are being pulled." if due else "No source is due."
    return f"{told} Load the code location again to pull {', '.join(new)}." if new else told


def _told(status: SourceStatus) -> dict[str, Any]:
    """What a check says of a source."""
    described = {
        "health": status.health,
        "rows_pulled": status.rows_pulled,
        "next_pull": f"{status.next_pull:%Y-%m-%d %H:%M} UTC",
    }
    times = {"read_up_to": status.position, "newest_call": status.newest_event, "last_good_pull": status.pulled_at}
    described |= {name: f"{when:%Y-%m-%d %H:%M} UTC" for name, when in times.items() if when is not None}
    if status.failure:
        described["failure"] = status.failure
    return {
        "passed": status.health == "alive",
        "severity": dg.AssetCheckSeverity.WARN,
        "metadata": described,
        "description": status.failure or f"{status.source} is {status.health}.",
    }


PULLED = source_definitions(configured_sources())

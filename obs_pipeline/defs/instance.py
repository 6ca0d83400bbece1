"""The project's own Dagster instance: where it lives and how it is configured.

``dagster.yaml`` at the top of the project is the template; a copy with absolute paths lives in ``OBS_HOME/dagster``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import dagster as dg

from obs_pipeline.settings import Settings

EVENTS_PER_BATCH: Final = 1000


def instance_config(root: str) -> dict[str, Any]:
    """The content of ``dagster.yaml`` for an instance whose state lives under ``root``."""
    return {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "local_artifact_storage": {
            "module": "dagster._core.storage.root",
            "class": "LocalArtifactStorage",
            "config": {"base_dir": root},
        },
        "run_storage": {
            "module": "dagster._core.storage.runs",
            "class": "SqliteRunStorage",
            "config": {"base_dir": f"{root}/history"},
        },
        "event_log_storage": {
            "module": "obs_pipeline.defs.event_log",
            "class": "BatchedSqliteEventLogStorage",
            "config": {"base_dir": f"{root}/history/runs"},
        },
        "schedule_storage": {
            "module": "dagster._core.storage.schedules",
            "class": "SqliteScheduleStorage",
            "config": {"base_dir": f"{root}/schedules"},
        },
        "run_coordinator": {"module": "dagster", "class": "QueuedRunCoordinator"},
        "run_launcher": {"module": "obs_pipeline.defs.run_launcher", "class": "WatchedRunLauncher"},
        "run_monitoring": {"enabled": True, "poll_interval_seconds": 60},
        "concurrency": {"runs": {"max_concurrent_runs": 2}},
        "retention": {
            "schedule": {"purge_after_days": 90},
            "sensor": {"purge_after_days": {"skipped": 3, "failure": 30, "success": 90}},
        },
    }


def prepare_home(settings: Settings) -> Path:
    """Make the instance's folder and configuration; answer with the folder."""
    import yaml

    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    text = "# Written by obs-pipeline from the template dagster.yaml; edits are lost.\n"
    text += yaml.safe_dump(instance_config(str(home)), sort_keys=False)
    config = home / "dagster.yaml"
    if not config.exists() or config.read_text() != text:
        config.write_text(text)
    return home


def environment(settings: Settings) -> Mapping[str, str]:
    """What a Dagster process of this project needs in its environment."""
    return {
        "DAGSTER_HOME": str(prepare_home(settings)),
        "DAGSTER_EVENT_BATCH_SIZE": str(EVENTS_PER_BATCH),
        "DAGSTER_DISABLE_TELEMETRY": "true",
    }


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The persistent instance, as the page and the daemon see it."""
    os.environ.update(environment(settings))
    return dg.DagsterInstance.get()


def is_running(instance: dg.DagsterInstance, job: str, since: datetime | None = None) -> bool:
    """Whether a run of the job waits or is under way; of those created after ``since`` (UTC) when it is given."""
    active: list[Any] = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    return bool(instance.get_runs(dg.RunsFilter(job_name=job, statuses=active, created_after=since), limit=1))
